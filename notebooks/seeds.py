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
# # Trained again
#
# **Question.** How much of a number is the luck of one training?
#
# The paper trains one generator per setting and gives the standard deviation over ten error patterns: how much *chips*
# differ. It never says how much the result moves when base model or generator is trained again with another seed, so a
# reader cannot tell which of its small differences between generators mean something. Here they are trained again: other
# first weights, another order of images, other augmentation, other error patterns wherever training meets any. The chips on
# which they are measured stay the same.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generator_names: list = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
error_models: list = ["release_map"]  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
trainings: int = 3  # of each base model, and of each generator
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import seeds

cells = profiles.cells(profile, "seeds")
if measure:
    setting = (dataset, base_models, base_recipe, generator_names, error_models, rate, trainings, patterns)
    cells = grids.seeds(profile, *setting)
    study.run(cells, profile, device)
rows = seeds.frame(tables.stored(profile, cells))
seeds.summary(rows, profile)

# %% [markdown]
# ## Training by training
#
# Filled: accuracy under errors, with the standard deviation over chips. Hollow: without errors.

# %% tags=["hide-input"]
seeds.pictures(rows)

# %% [markdown]
# ## All trainings
#
# Of settings in which something was trained more than once. Accuracies in per cent; recovery, in points, against the same base
# model alone on the same chips.

# %% tags=["hide-input"]
seeds.table(rows)

# %% [markdown]
# ## What it means
#
# A standard deviation over chips, such as the paper prints, does not contain the luck of training. Where two systems are
# compared that were each trained once, a difference may be luck that is smaller than a few standard deviations over
# trainings; few trainings tell that standard deviation badly, too. A comparison of rates or mitigations with the same
# models does not add to it, but says what holds for that training; for another it may come out otherwise. All this is
# measured for the systems above only.
