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
# # Class separation in the outputs
#
# **Question.** Do bit errors mix the classes in the base model's outputs, and does a generator set them apart again?
#
# For each test image the last layer gives one number per class. t-SNE places these outputs in a plane so that near
# neighbours stay near. This is the paper's Figure 15. The figure has no numbers, so two are added, in the plane and in the
# outputs themselves. *Neighbour accuracy*: how often the five nearest other images vote for an image's own class.
# *Silhouette*: 1 where each class lies close together and far from the others, 0 where classes overlap, negative where
# images lie closer to another class. Both are computed without errors and under each error pattern.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
base_model: str = "vgg11"  # the paper has resnet18
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generator_names: list = ["conv_l", "conv_s"]  # also deconv_l, deconv_s, unet_l, unet_s
error_model: str = "release_map"  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
patterns: int = 3  # error patterns (chips)
images: int = 360  # the first test images
device: str = "auto"
measure: bool = True  # False: show stored records only

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import tsne

cells = grids.tsne(profile, dataset, base_model, base_recipe, generator_names, error_model, rate, patterns, images)
if measure:
    study.run(cells, profile, device)
else:
    cells = [cell for cell in profiles.cells(profile, "tsne") if cell.base.dataset == dataset]
records = tables.stored(profile, cells)
rows = tsne.frame(records)
tsne.summary(rows, profile)

# %% [markdown]
# ## The picture
#
# A dot is an image, its colour the true class; the class's number stands just above the median of its dots (up to 20
# classes). Above without errors, below under the first error pattern. Axes have no units; each panel has its own.

# %% tags=["hide-input"]
tsne.pictures(records, profile)

# %% [markdown]
# ## The table
#
# Two rows for each network: in its outputs, and in their t-SNE embedding. Accuracies and neighbour accuracies in per cent
# of these images, means over error patterns with their standard deviation. *Gain* is the paired difference to the base
# model alone, with its standard error over patterns; the images are the same throughout. A dash means: not measured, or not
# in the paper.

# %% tags=["hide-input"]
tsne.table(rows)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
tsne.meaning(rows)
