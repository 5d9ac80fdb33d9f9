# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fewer bits per weight
#
# **Question.** How few bits can a weight have, with and without bit errors, and does a generator trained at 8 bits still
# help there?
#
# The trained base model is quantised again to each code width, from 8 down to 2 bits, without further training. A code of
# *b* bits takes whole values from $-(2^{b-1} - 1)$ to $2^{b-1} - 1$ times a step; the narrower the code, the larger the step.
# The generator keeps the 8 bits that it was trained with, and never saw a narrower base model. Each width is measured
# without errors, which gives CA and CA(NF), and under many error patterns, which gives PA and PA(NF). These are the
# paper's Tables 22 to 24 and Figures 4, 12 and 13.
#
# **The sign slip.** A code of fewer than 8 bits lies in a byte, its sign bit repeated in the unused bits above it. The
# official code lets errors change the lower *b* bits and then reads the whole byte. So an error in the sign bit does not
# change the sign: +3 in 4 bits, with its sign bit stuck at 1, becomes +11 in place of −5. We measure true two's complement
# (`ReleaseMap`) and, beside it, the official code's reading (`ReleaseMap, sign slip`), with the same error patterns. At 8
# bits nothing is left over in the byte, so the two are the same.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generator_names: list = ["conv_l", "unet_l"]
error_models: list = ["release_map", "release_map_sign_slip", "bit_flips"]
train_rate: float = 0.01  # bit-error rate that generators are trained at, a fraction
rate: float = 0.005  # bit-error rate of the measurement, a fraction
widths: list = [8, 7, 6, 5, 4, 3, 2]  # code widths of the base model, in bits
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, of the profile's grid for the data set

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import contradictions, quantization

cells = grids.quantization(
    profile, dataset, base_models, base_recipe, generator_names, error_models, train_rate, rate, widths, patterns
)
if measure:
    study.run(cells, profile, device)
else:
    cells = profiles.cells(profile, "quantization")
records = [r for r in tables.stored(profile, cells) if r["cell"]["base"]["dataset"] == dataset]
rows = quantization.frame(records, dataset)
quantization.summary(rows, profile)

# %% [markdown]
# A width *works* if it, and every wider one, is at most 5 points below what the same model (alone, or behind the
# generator) has at 8 bits without errors. Changes by the slip are means over error patterns, ± their standard error.
#
# ## Accuracy against code width
#
# Bars are the standard deviation over error patterns. Hollow markers are the paper's numbers; they stand only where the
# base recipe is `release` and the error model is ReleaseMap, with or without the slip. Below 8 bits the official code
# gives the slip.

# %% tags=["hide-input"]
quantization.pictures(rows)

# %% [markdown]
# ## What the slip changes
#
# Each error pattern is read both ways; the difference is the slip's. Bars are two standard errors over patterns.

# %% tags=["hide-input"]
quantization.pictures(rows, quantization.slip_changes)

# %% [markdown]
# ## The table
#
# All accuracies in per cent, RP and what the slip changes in percentage points. A dash means: not measured, or not in
# the paper.

# %% tags=["hide-input"]
quantization.table(rows)

# %% [markdown]
# ## The paper's other data sets

# %% tags=["hide-input"]
quantization.elsewhere(profile, dataset)

# %% [markdown]
# ## Oddities in the paper's tables
#
# Each line was found by a check on the printed numbers, in the paper's Tables 22 to 24 and Figures 12 and 13.
# [All such checks](scoreboard.ipynb) are on the scoreboard's page.

# %% tags=["hide-input"]
contradictions.table(contradictions.about(contradictions.frame(), "Table 22", "Table 23", "Table 24", "Figure 12", "Figure 13"))

# %% [markdown]
# ## What it means
#
# Two things go wrong as codes get narrower. Rounding makes the weights coarse, which costs accuracy without any error.
# Bit errors come on top: an error in the sign bit moves a weight by about the largest weight of its layer, whatever the
# width, and in a narrow code the lower bits are large too. A generator can only help against both as far as images that
# suit the 8-bit model suit the coarser one; the curves show how far that goes. Results below 8 bits depend on how a narrow
# code is read back, so a comparison must say which reading it uses.
