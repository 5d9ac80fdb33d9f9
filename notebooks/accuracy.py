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
# # Accuracy recovery
#
# **Question.** How much of the accuracy that bit errors take away does each generator bring back?
#
# A base model is measured under many error patterns: alone (PA), and behind a generator that was trained for it under
# the same error model and bit-error rate (PA(NF)). Their paired difference is the recovery RP. These are the paper's
# Tables 12 to 15 and Figure 3; its numbers stand beside ours wherever it has the same setting. *Eq. 3* is the paper's
# training, on damaged models themselves; *imitation* is ours, of pictures that were trained on damaged models ([method](../method.md)).

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
datasets: list = ["digits"]  # also cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
base_models: list = ["resnet18", "resnet50", "vgg11", "vgg16", "vgg19"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generators: list = ["conv_l", "unet_l"]  # also conv_s, deconv_l, deconv_s, unet_s
error_models: list = ["release_map"]  # also bit_flips, stuck_at
rates: list = [0.01]  # bit-error rates, as fractions
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, report, study, tables

cells = [
    cell
    for dataset in datasets
    for model in base_models
    for cell in grids.accuracy(profile, dataset, model, base_recipe, generators, error_models, rates, patterns)
]
if measure:
    study.run(cells, profile, device)
records = tables.stored(profile, cells if measure else profiles.cells(profile, "accuracy"))
records = tables.longest(record for record in records if record["cell"]["base"]["dataset"] in datasets)
rows = tables.accuracy(records)
report.how_measured(rows, profile, datasets)

# %% [markdown]
# ## Recovery, generator by generator
#
# Hollow circles are the base model alone, filled ones the same chips behind a generator; the bar is the standard
# deviation over error patterns. A red diamond is the paper's PA(NF).

# %% tags=["hide-input"]
report.recovery_pictures(rows)

# %% tags=["hide-input"]
report.accuracy_summary(rows)

# %% [markdown]
# ## The table
#
# All accuracies in per cent. *Worst* is the worst of the patterns; RP is in percentage points, with its standard error
# over patterns. A dash means: not measured, or not in the paper.

# %% tags=["hide-input"]
report.accuracy_table(tables.with_unmeasured(rows, datasets))

# %% [markdown]
# ## What one chip does
#
# The mean hides how much chips differ. Each dot is one error pattern, the bar their mean, without a generator, at a rate of
# 1 % (where that is not measured, at the highest rate that is); a picture a base model.

# %% tags=["hide-input"]
report.chip_pictures(records)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
report.meaning(rows)
