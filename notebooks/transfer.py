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
# # Transfer to unseen base models
#
# **Question.** Does a generator that was trained on one base model help another one that it never saw?
#
# With *relaxed access* a generator is trained on the base model that it will serve. With *restricted access* that model, the
# *target*, can be run but not trained through. Then the generator is trained on another model, the *surrogate*, usually at a
# higher bit-error rate than it will meet, and used on the target as it is. Several surrogates can be used at once: each
# training step then counts the loss of all of them. Every generator is measured on every target, on the same error patterns.
# These are the paper's Tables 1 and 16 to 21.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
surrogates: list = ["resnet18", "vgg19"]  # what generators are trained on
base_models: list = ["resnet18", "resnet50", "vgg11", "vgg16", "vgg19"]  # the targets
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generator_names: list = ["conv_l", "unet_l"]
error_models: list = ["release_map"]  # also bit_flips, stuck_at
train_rates: list = [0.015]  # bit-error rates that generators are trained at, as fractions
rates: list = [0.01]  # bit-error rates that targets are measured at
patterns: int = 10  # error patterns (chips) per setting
ensemble: bool = True  # also train on all surrogates together
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, study, tables
from nflib.pages import transfer

at = (profile, dataset)
recipe, measured_at = (base_recipe, generator_names, error_models), (rates, patterns)
cells = grids.transfer(*at, surrogates, base_models, *recipe, train_rates, *measured_at, ensemble)
cells += [cell for model in base_models for cell in grids.accuracy(*at, model, *recipe, *measured_at)]  # relaxed access
if measure:
    study.run(cells, profile, device)
records = tables.stored(profile, cells) if measure else tables.longest(tables.stored(profile, transfer.grid(profile)))
rows = transfer.frame(records, dataset)
transfer.summary(rows, profile)

# %% [markdown]
# *Unseen* means that the target was not among the models that the generator was trained on. *Relaxed access* is a generator
# of the same kind, trained on the target itself at the bit-error rate of the measurement. *Kept* is the recovery on unseen
# targets as a share of that. *Against one of them* compares several surrogates with the mean of each alone.
#
# ## Who helps whom
#
# Each field is the recovery RP of one target (column) behind one generator (row), with its standard error over error
# patterns where there is room. Blue is a gain, red a loss, grey has no number; targets without any are left out. A solid
# frame marks a generator that was trained on its target alone, a dotted one a target among several surrogates; fields
# without a frame are unseen targets. *On target itself* is relaxed access.

# %% tags=["hide-input"]
transfer.pictures(rows)

# %% [markdown]
# ## The table
#
# Accuracies in per cent, RP in percentage points with its standard error over patterns. *Loss or gain* is PA(NF) minus that
# of relaxed access, on the same patterns. Only rows of ReleaseMap and the base recipe `release` have the paper's numbers
# beside them: that is what the official code computes. What was measured stands first. A dash means: not measured, or not in
# the paper.

# %% tags=["hide-input"]
transfer.table(rows)

# %% [markdown]
# ## The paper's other data sets

# %% tags=["hide-input"]
transfer.elsewhere(profile, dataset)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
transfer.meaning(rows)
