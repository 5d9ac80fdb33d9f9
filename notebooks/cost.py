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
# # How much training buys how much recovery?
#
# **Question.** Can a generator that sees at least 50 times fewer perturbed images in training bring back as much accuracy?
#
# The official recipe trains a generator for 300 epochs, and at each step sends the batch through N = 10 perturbed models.
# What that costs is counted in **model-images**: images times perturbed models. Two ways to need fewer of them are
# measured here beside the official recipe: a recipe of our own for the same objective (Eq. 3), with fewer perturbed models
# and a learning rate that rises and falls within the run; and **imitation**, in which the generator first learns to paint
# [class patterns](../method.md) that were trained beforehand. Imitation itself needs no perturbed model at all; the
# class patterns' own model-images are counted in.
#
# Each point is a generator of its own, trained to its end for the length given. Nobody picks a moment to stop. Which point
# is best, or the cheapest that is good enough, is decided on *validation images*, which neither training nor test has
# seen, under error patterns of their own; every accuracy shown is that of the test images.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": one-cycle, weight decay
generator_names: list = ["conv_s"]
error_model: str = "release_map"  # or bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
official_steps: list = [3, 10, 30]  # lengths of the official recipe; the official code's own is 58800
steps: list = [10, 30, 90]  # lengths of our recipe, from the start and after the longest imitation
imitation_steps: list = [40, 150]  # lengths of imitation alone
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import cost

lengths = (official_steps, steps, imitation_steps)
cells = grids.cost(profile, dataset, base_models, base_recipe, generator_names, error_model, rate, *lengths, patterns)
if measure:
    study.run(cells, profile, device)
rows = cost.frame(tables.stored(profile, cells if measure else profiles.cells(profile, "cost")))
cost.summary(rows, profile)

# %% [markdown]
# ## Recovery against model-images
#
# Accuracy under errors; further left is cheaper, higher is better. The bar is the standard error of the recovery over
# error patterns (chips). Imitation alone has one number of model-images, that of the class patterns, however long it is.

# %% tags=["hide-input"]
cost.curves(rows)

# %% [markdown]
# ## Recovery against time
#
# The same points against the minutes that the whole training took, class patterns and imitation included.

# %% tags=["hide-input"]
cost.minutes(rows)

# %% [markdown]
# ## All rows
#
# Accuracies in per cent, RP in percentage points with its standard error over patterns. N is the number of perturbed
# models per step.

# %% tags=["hide-input"]
cost.table(rows)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
cost.meaning(rows)
