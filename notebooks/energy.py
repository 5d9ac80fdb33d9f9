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
# # Energy
#
# **Question.** What does NeuralFuse save, what does its generator cost, and do the paper's numbers follow from its own
# model?
#
# Everything on this page but the recovery is computed from the shapes of the networks; nothing is trained. The paper's
# Tables 2, 3, 6 and 8 and its Figures 1b, 5 and 6 are reproduced, and then corrected where a count is wrong.

# %% tags=["parameters", "hide-input"]
image_size: int = 32  # 32 or 224 pixels; the paper prints savings for 32 only
energy_ratio: float = 0.694  # energy of one read at low voltage over that at nominal voltage
profile: str = "paper"  # whose measured recoveries are drawn beside the published ones

# %% tags=["hide-input"]
from nflib import report, tables

saving = tables.energy_saving(image_size, energy_ratio)
records = tables.stored(profile)
report.energy_summary(saving, image_size, energy_ratio)

# %% [markdown]
# ## Weight reads and MACs of each network (Tables 6 and 7)
#
# `reads` are counted as the paper's simulation counts them. `true reads` count transposed convolutions, strided and
# 1x1 layers at the positions where their weights really are applied.

# %% tags=["hide-input"]
report.reads_table(image_size)

# %% [markdown]
# ## Energy saving (Tables 2 and 8)
#
# ES rests on weight reads, MAC-ES on multiply-accumulates, both in per cent of the base model's weight-read energy at
# nominal voltage. `true` uses the corrected counts. Negative: the generator costs more than the low voltage saves.

# %% tags=["hide-input"]
report.saving_table(saving)

# %% [markdown]
# ## Saving against recovery (Figures 1b, 5 and 6)
#
# Filled: published recovery on CIFAR-10 at 1 %. Ringed in black: measured here under the official code's error map.

# %% tags=["hide-input"]
report.energy_pictures(saving, records)

# %% [markdown]
# ## Recovery per million parameters (Table 3)

# %% tags=["hide-input"]
report.efficiency_table(records)

# %% [markdown]
# ## Printed numbers that do not follow from the other printed ones

# %% tags=["hide-input"]
report.inconsistency_table()
