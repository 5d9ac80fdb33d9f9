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
# # Images unlike those of training
#
# **Question.** A generator learns on clean training images. Does it still help when the camera does not see such images?
#
# A reviewer of the paper asked it. If a generator is a classifier that repeats its answer in a form which survives the
# errors ([why it works](mechanism.ipynb)), it should fail where classifiers fail. Here the test images are noisy (standard
# deviation 8 % of the range), blurred (0.7 pixels), low in contrast (0.4 of it) or darker (by 15 % of the range), the
# middle strengths of a common benchmark {cite}`hendrycks2019benchmarking`. Nothing was trained on any of them.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": one-cycle, weight decay
generator_names: list = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
tellers: list = ["conv_s"]  # generators whose encoder tells class patterns the class
shifts: list = ["noise", "blur", "low_contrast", "dark"]
error_model: str = "release_map"  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import shift

cells = profiles.cells(profile, "shift")
if measure:
    setting = (dataset, base_models, base_recipe, generator_names, tellers, shifts, error_model, rate, patterns)
    cells = grids.shift(profile, *setting)
    study.run(cells, profile, device)
rows = shift.frame(tables.stored(profile, cells))
shift.summary(rows, profile)

# %% [markdown]
# ## Shift by shift
#
# Filled: accuracy under errors, with the standard deviation over chips. Hollow: the same system without errors.

# %% tags=["hide-input"]
shift.pictures(rows)

# %% [markdown]
# ## All rows
#
# Accuracies in per cent; recovery, in points, against the base model alone on the same shifted images and the same chips.

# %% tags=["hide-input"]
shift.table(rows)

# %% [markdown]
# ## What it means
#
# Recovery is counted against the damaged base model on the same shifted images, so a shift that harms both alike leaves it
# as it is. Where it shrinks, the accuracy behind the generator falls by more than that of the damaged model alone.
