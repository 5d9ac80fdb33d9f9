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
# # Base recipes
#
# **Question.** How much is there to recover, does the training of the base model decide it, and why?
#
# A generator is there to bring back what bit errors took. How much that is may depend on the base model's recipe, which
# the paper does not vary. Here one network is trained by many recipes. Most differ in one value from a middle one: weight
# decay, *clipping* (weights are held within a limit while training), *training on bit errors* (every step is taken with the
# codes as stored and with a fresh pattern of random bit flips), the schedule of the learning rate, the number of epochs.
#
# `release` is the official code's recipe, `modern` what an engineer would do today. `clipped` and `randbet` are meant to
# resist errors, after {cite:t}`stutz2021bit`: clipped weights, and these together with training on random bit errors at a
# rate of 1 %. No generator is in use.
#
# Four guesses why one recipe resists errors better than another: (a) many channels are *silent*, and errors in them do
# not matter; (b) the right class leads by a *margin* that is large beside the noise in the logits; (c) each layer adds
# less *noise* for its signal; (d) errors shift whole channels by a common *offset*, which batch norm passes on.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_model: str = "vgg11"
base_recipes: list = ["release", "modern", "clipped", "randbet"]  # recipes with a name, beside the varied ones
width: float = 0.125  # factor on the base model's channels; 1 is full size
epochs: int = 8  # of the middle recipe
weight_decays: list = [0.0, 0.0005, 0.002]  # the middle recipe has 0.0005
clippings: list = [0.1]  # limits of weights, without weight decay
bit_error_rates: list = [0.01]  # of training on random bit flips, as fractions
schedules: list = ["constant"]  # beside one_cycle, which the middle recipe has; at a fifth of its rate
epoch_counts: list = [4, 16]
error_models: list = ["release_map", "bit_flips"]
rate: float = 0.01  # bit-error rate, as a fraction
patterns: int = 10  # error patterns (chips) per setting
images: int = 200  # test images on which the layers are looked at
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import base_recipe as page

varied = (width, epochs, weight_decays, clippings, bit_error_rates, schedules, epoch_counts)
setting = (error_models, rate, patterns, images)
cells = grids.base_recipe(profile, dataset, base_model, base_recipes, *varied, *setting)
if measure:
    study.run(cells, profile, device)
records = tables.stored(profile, cells if measure else profiles.cells(profile, "base_recipe"))
rows = page.frame(records)
page.summary(rows, profile)

# %% [markdown]
# ## Accuracy by recipe
#
# Dots: accuracy under errors, PA; the bar is the standard deviation over error patterns (chips). Black strokes: accuracy
# without errors, CA. The gap between the two is all that a generator can recover.

# %% tags=["hide-input"]
page.ladders(rows)

# %% [markdown]
# ## One change at a time
#
# Pairs of recipes that differ in one value, measured on the same error patterns. The noise that a layer's own errors make
# is the product of two things: how large errors are beside the weights, and what the layer makes of them.

# %% tags=["hide-input"]
page.single(records)

# %% tags=["hide-input"]
page.change_table(records)

# %% [markdown]
# ## Noise by layer
#
# Mean square of what errors change in a layer's output, after batch norm, over the variance of the output from image to
# image. At 1 the noise is as strong as the signal. Above: the layer's own weights are hit alone. Below: all are.

# %% tags=["hide-input"]
page.layers(records)

# %% [markdown]
# ## What goes with accuracy under errors?
#
# Spearman's rank correlation with PA over the recipes. *(b)* and the noise in the logits are the damage itself, seen at
# the end; the others could be its causes.

# %% tags=["hide-input"]
page.correlation_table(rows)

# %% [markdown]
# ## Is it the range of the weights?
#
# Codes reach as far as the largest weight, so a flipped bit is large where one weight is. Here the weights of the trained
# models are cut at a multiple of their root mean square and encoded anew, without any further training. Nothing but their
# range changes, and the few weights beyond it. Chips and images are the few on which the layers are looked at; the page
# [Does it pay?](tradeoff.ipynb) has the cut at 3 × rms on more of both, so its numbers differ by some points.

# %% tags=["hide-input"]
page.cuts(records)

# %% tags=["hide-input"]
page.cut_table(records)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
page.meaning(rows)

# %% [markdown]
# ## All rows
#
# Accuracies in per cent, CA − PA in percentage points. *Range / rms*: the largest weight that the codes can hold over the
# root mean square of the weights; the larger it is, the larger is a flipped bit beside a weight. *Weight noise*: mean square
# of the errors in the weights over that of the weights. *Own noise*: as in the picture, mean over layers. *Silent* and
# *common offset*: mean over layers.

# %% tags=["hide-input"]
page.table(rows)
