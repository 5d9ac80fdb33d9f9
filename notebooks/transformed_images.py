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
# # Transformed images
#
# **Question.** What does a generator add to images: a pattern of the class, painted over the image, or something else?
#
# A generator adds a perturbation G(x) to an image x and clips the sum to the range of images. These are the paper's Figures
# 16 and 17; they have no numbers, so some are added, all without bit errors. *Perturbation alone*: the base model sees G(x)
# and no image. *Nearest class mean*: each perturbation is told by the nearest mean of a class, means being taken over the
# other half of the images; the same for images. *Between classes*: how much of the variance of perturbations goes with the
# class, corrected for chance. *Common*: how much of the perturbation is the same for all images. *Swapped*: an image gets
# the perturbation that was made for an image of another class. Does the base model then tell the image's class, or the
# perturbation's?

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
base_models: list = ["vgg11"]  # the paper has resnet18
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generator_names: list = ["conv_l", "unet_s"]  # also conv_s, deconv_l, deconv_s, unet_l
error_model: str = "release_map"  # what generators are trained under: also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate of their training, as a fraction
device: str = "auto"
measure: bool = True  # False: show stored records only

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import transformed_images as page

cells = grids.transformed_images(profile, dataset, base_models, base_recipe, generator_names, error_model, rate)
if measure:
    study.run(cells, profile, device)
else:
    cells = [cell for cell in profiles.cells(profile, "transformed_images") if cell.base.dataset == dataset]
records = tables.stored(profile, cells)
rows = page.frame(records)
page.summary(rows, profile)

# %% [markdown]
# ## The images
#
# The first two test images of the first classes. Where two perturbations of a class look alike, and like the class's mean,
# the generator answers with a pattern of the class. Of generators trained alike the one is shown whose perturbation decides
# most often; the others unfold.

# %% tags=["hide-input"]
page.galleries(records, profile)

# %% [markdown]
# ## The table
#
# Everything in per cent. *Mean |G(x)|* and *mean change* (after clipping) are shares of the image range; *saturated* is the
# share of pixel values that clipping cuts. A dash means: not measured, or not in the paper.

# %% tags=["hide-input"]
page.table(rows)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
page.meaning(rows)
