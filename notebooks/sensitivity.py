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
# # Which bits, which layers?
#
# **Question.** Which of the errors do the damage: those in the high bits, or in some layers? What does a generator change
# about that? And what if the memory that holds the generator's own weights has errors too?
#
# Reviewers of the paper asked all three. Here each chip keeps its faulty cells, but only those in one bit of each code, or
# in one layer, count; the others are repaired. A stored weight is a two's complement code of 8 bits: bit 0 moves it by one
# step, bit 6 by 64, and bit 7, the sign, by 128 of the 254 steps between the largest weight and its negative.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": one-cycle, weight decay
generator_names: list = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
error_models: list = ["release_map"]  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
patterns: int = 10  # error patterns (chips) per setting
images: int = 360  # test images, the first ones
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import sensitivity

cells = profiles.cells(profile, "sensitivity")
if measure:
    setting = (dataset, base_models, base_recipe, generator_names, error_models, rate, patterns, images)
    cells = grids.sensitivity(profile, *setting)
    study.run(cells, profile, device)
rows = sensitivity.frame(tables.stored(profile, cells))
sensitivity.summary(rows, profile)

# %% [markdown]
# ## Bit by bit

# %% tags=["hide-input"]
sensitivity.bits(rows)

# %% [markdown]
# ## Layer by layer

# %% tags=["hide-input"]
sensitivity.layers(rows)

# %% [markdown]
# ## All rows
#
# Accuracies in per cent, the loss against the same system without errors in points.

# %% tags=["hide-input"]
sensitivity.table(rows)
