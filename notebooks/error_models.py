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
# # What "1 % bit-error rate" means
#
# **Question.** How much of the damage by bit errors, and of the recovery, is due to the way the official code lays out its
# error map?
#
# The paper speaks of bits that flip independently. The official code does something else: cells are *stuck*, one map of
# 8192 × 128 cells serves all layers, and a slip lays each row of the map out sixteen times. All three are called
# "bit-error rate 1 %". Here one base model meets each of them in turn, changing one thing at a time:
#
# 1. the release map, as the official code has it;
# 2. the same map with the tiling corrected;
# 3. a map of its own for each layer;
# 4. stuck cells, each independent of all others;
# 5. bit flips at half the rate. A stuck cell often holds the right value already, so this changes about as many bits as
#    1 to 4 do;
# 6. bit flips at the full rate, as the paper's text has it: twice as many changed bits.
#
# Each error pattern is one chip. PA is the accuracy of the base model on it, CA that without errors, PA(NF) that behind a
# generator trained under the same error model, and RP = PA(NF) − PA.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipes: list = ["release", "modern"]  # how the base model was trained
generator_names: list = ["conv_l"]
rate: float = 0.01  # bit-error rate, a fraction; flips are measured at half of it too
patterns: int = 50  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only

# %% [markdown]
# ## The layout alone
#
# No network and no training is needed to see the difference. Take one convolution, 64 output filters of 576 weights, and
# mark each weight whose sign bit one error pattern changes. Left the official code's map, right independent stuck cells.

# %% tags=["hide-input"]
from nflib import grids, profiles, show, study, tables
from nflib.pages import error_models as page

page.comb(rate)

# %% [markdown]
# The errors of the left picture stand in combs: one faulty cell hits up to sixteen weights of one filter, sixteen weights
# apart. The table counts changed sign bits in each filter. Where errors are independent, variance over mean is about 1.

# %% tags=["hide-input"]
show.table(page.layout(rate, patterns).rename(columns=page.SHOWN), "layout")

# %% [markdown]
# ## What it does to accuracy

# %% tags=["hide-input"]
cells = grids.error_models(profile, dataset, base_models, base_recipes, generator_names, rate, patterns)
if measure:
    study.run(cells, profile, device)
else:
    cells = [cell for cell in profiles.cells(profile, "error_models") if cell.base.dataset == dataset]
records = tables.stored(profile, cells)
rows = page.frame(records, cells)
page.summary(rows, profile)

# %% [markdown]
# ## What a generator brings back
#
# Hollow: the base model alone. Filled: the same chips behind a generator that was trained under the same error model. The
# number is the recovery in points, with its standard error over chips.

# %% tags=["hide-input"]
page.recovery_pictures(rows)

# %% [markdown]
# ## Where the damage comes from
#
# Grey bars are the whole damage under one error model. Each coloured bar between two grey ones is what one artefact adds
# (orange) or takes away (blue), with its standard error. Below the dotted line: what it means that the rate counts flipped
# bits, not faulty cells.

# %% tags=["hide-input"]
page.attribution_pictures(rows)

# %% [markdown]
# ## Chip by chip
#
# A mean hides how much chips differ. Each dot is one chip.

# %% tags=["hide-input"]
page.chip_pictures(records)

# %% [markdown]
# ## The table
#
# Accuracies in per cent, RP in percentage points with its standard error. *Changed bits*: the share of stored bits that
# read differently. *5 % quantile*: one chip in twenty is worse. *Yield*: the share of chips at most five points below CA.
# Columns after CA are without the generator, those after CA(NF) with it. A dash means: not measured, or not in the paper.

# %% tags=["hide-input"]
page.accuracy_table(rows)

# %% [markdown]
# ## What it means
#
# A bit-error rate alone does not fix an experiment. Who compares numbers must say whether cells are stuck or bits flip, and
# whether errors are independent. A result that only one of these error models shows is a result about that error model.
# The paper's numbers belong to the first one. [What the official code really does](../release_code.md) has the details.
