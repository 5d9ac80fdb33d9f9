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
# # Overhead
#
# **Question.** How much larger and slower does a generator make a base model?
#
# Parameters and multiply-accumulates (MACs) are counted from the shapes of the networks. Time is measured: the base model
# alone, the generator alone, and both in a row, on the same random images. Each runs at least ten times after warm-up; the
# number shown is the median of one call, its spread the interquartile range. *Extra* is what the generator adds: both minus
# base. Eager means that PyTorch issues one operation after the other; compiled means that `torch.compile` has fused them.
# Weights are untrained, which does not change the time. These are the paper's Tables 7 and 9.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # where records go; networks have full size in both profiles
datasets: list = ["cifar10"]  # decides the image size: 224 pixels for imagenet10 and imagenette224, otherwise 32
base_models: list = ["vgg11"]  # the paper has resnet18 and vgg19
generator_names: list = ["conv_s"]  # of conv_l, conv_s, deconv_l, deconv_s, unet_l, unet_s
batches: list = [1]  # images at once; the paper has 1
device: str = "auto"
measure: bool = True  # False: show stored records only, of every device

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import overhead
from nflib.trained import choose_device

on = choose_device(device).type
cells = grids.overhead(profile, datasets, base_models, generator_names, batches, on)
if measure:
    study.run(cells, profile, device)
else:
    cells = [cell for cell in profiles.cells(profile, "overhead") if cell.base.dataset in datasets]
rows = overhead.frame(tables.stored(profile, cells))
overhead.size_summary()

# %% [markdown]
# ## Parameters and MACs (Table 7)
#
# *As the paper* follows the authors' tool; *true* counts each multiply-accumulate once, where it happens.

# %% tags=["hide-input"]
overhead.size_table()

# %% [markdown]
# ## Latency (Table 9)

# %% tags=["hide-input"]
overhead.summary(rows, profile)

# %% [markdown]
# A bar is the extra time in per cent of the base model's; the thin line is its spread. A red diamond is the paper's, on
# another device. A black stroke is the generator's share of MACs: where the bar would end if time followed arithmetic.

# %% tags=["hide-input"]
overhead.pictures(rows)

# %% [markdown]
# Times in milliseconds for one batch. The paper's numbers stand beside eager rows at batch 1. A dash means: not measured,
# or not in the paper.

# %% tags=["hide-input"]
overhead.latency_tables(rows)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
overhead.meaning(rows)
