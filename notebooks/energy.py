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
# Tables 2, 3, 6 and 8 and its Figures 1b, 2, 5 and 6 are reproduced, and then corrected where a count is wrong. The counts
# are also checked against the simulator that the paper used.

# %% tags=["parameters", "hide-input"]
image_size: int = 32  # 32 or 224 pixels; the paper prints savings for 32 only
energy_ratio: float = 0.694  # energy of one read at low voltage over that at nominal voltage
safe_ber: float = 1e-5  # assumed bit-error rate at Vmin, a fraction
profile: str = "paper"  # whose measured recoveries are drawn beside the published ones

# %% tags=["hide-input"]
from nflib import profiles, tables
from nflib.pages import energy

saving = tables.energy_saving(image_size, energy_ratio)
records = tables.longest(tables.stored(profile, profiles.cells(profile, "accuracy")))
energy.summary(saving, image_size, energy_ratio)

# %% [markdown]
# ## Errors and energy over the voltage (Figure 2)
#
# The paper's Figure 2 shows both for its memory, errors measured and energy simulated, as curves without numbers. One point
# is in the text: at 0.83 of the lowest safe voltage Vmin, 1 % of the bits fail and a read takes about 30 % less energy
# (30.6 %, as its tables give away). So what follows is an **assumption** through that point: the logarithm of the error rate
# is linear in the voltage, from `safe_ber` at Vmin (dashed: ten times more and fewer), and the energy is a power of the
# voltage, about its square.

# %% tags=["hide-input"]
energy.voltage_summary(safe_ber, energy_ratio)

# %% tags=["hide-input"]
energy.voltage_picture(safe_ber, energy_ratio)

# %% tags=["hide-input"]
energy.voltage_table(safe_ber, energy_ratio)

# %% [markdown]
# ## Weight reads and MACs of each network (Tables 6 and 7)
#
# *Reads* are counted as the paper's simulation counts them. *True reads* count transposed convolutions, strided and
# 1×1 layers at the positions where their weights really are applied.

# %% tags=["hide-input"]
energy.reads_table(image_size)

# %% [markdown]
# ## Weight reads against SCALE-Sim
#
# The counts above come from a formula; the paper's come from a program, SCALE-Sim. It plays a layer through a *systolic
# array*, 32 by 32 multiply-accumulate units that pass numbers on to their neighbours, and notes every access to a memory.
# In the *output-stationary* order that the paper used, each unit keeps one output: a row of units stands for one position
# of the image, a column for one output channel. While a weight wanders through its column it serves 32 positions; for the
# next 32 it is read again. Hence the formula: every weight is read once for every 32 positions, rounded up.
#
# Do formula and program agree? We ran the program on every different layer, both as the paper's authors ran it and as the
# networks really apply their weights: a transposed convolution of stride 2 is four convolutions with half the kernel.

# %% tags=["hide-input"]
energy.simulated_summary(image_size)

# %% tags=["hide-input"]
energy.simulated_table(image_size)

# %% [markdown]
# ## Energy saving (Tables 2 and 8)
#
# ES rests on weight reads, MAC-ES on multiply-accumulates, both in per cent of the base model's weight-read energy at
# nominal voltage. *True* uses the corrected counts. Negative: the generator costs more than the low voltage saves.

# %% tags=["hide-input"]
energy.saving_table(saving)

# %% [markdown]
# ## What is that of the whole inference?
#
# A reviewer asked. The paper's model has nothing but weight reads. Here are the other things that the same array does for an
# image: it reads the feature maps (an input once for every 32 output channels), writes them (an output once; sums stay in
# the array), and multiplies and adds. What is read is what SCALE-Sim counts, in closed form. The energies are published ones
# {cite}`horowitz2014computing`, at 45 nm: an 8-bit product and a 32-bit sum take 0.3 pJ, 64 bits of a memory of 1 MB 100 pJ, of
# 32 KB 20 pJ. Weights lie in memories of 1 MB, those of small generators too. Low voltage touches their reads alone.
#
# Left out are leakage, main memory (weights stay on the chip), the control and wires of the array, and what goes on between
# layers: normalising, pooling, adding, upsampling. Each would make the share of weight reads smaller. Zeros at the border of
# a map are counted as read, which makes it a little smaller already.

# %% tags=["hide-input"]
energy.whole_summary(image_size, energy_ratio)

# %% tags=["hide-input"]
energy.whole_picture(image_size)

# %% tags=["hide-input"]
energy.whole_table(image_size, energy_ratio)

# %% [markdown]
# ## At the other image size
#
# The paper tests its method on images of 224×224 pixels too, but prints savings for 32×32 only. At 224×224 a base model has
# its ImageNet form, which makes the image small at once; a generator works on all of it, from the first layer to the last.

# %% tags=["hide-input"]
other_size = {32: 224, 224: 32}[image_size]
other_saving = tables.energy_saving(other_size, energy_ratio)
energy.summary(other_saving, other_size, energy_ratio)

# %% tags=["hide-input"]
energy.saving_table(other_saving)

# %% tags=["hide-input"]
energy.whole_summary(other_size, energy_ratio)

# %% tags=["hide-input"]
energy.simulated_summary(other_size)

# %% [markdown]
# ## What does the generator cost in time on such an accelerator?
#
# A reviewer asked what the generator does to latency. SCALE-Sim counts clock cycles too. The array works through a layer
# in passes: one for every 32 positions and 32 output channels. A pass takes as many cycles as one output has products to
# add, and 62 more for filling and draining the array. Layers with few channels use it badly: the last layer of a generator
# has 3 output channels and leaves 29 of the 32 columns idle. The array waits for no memory here, and generator and base
# model run one after the other.

# %% tags=["hide-input"]
energy.cycles_summary(image_size)

# %% [markdown]
# What the generator adds, in per cent of its base model's count:

# %% tags=["hide-input"]
energy.cycles_table(image_size)

# %% [markdown]
# ## Saving against recovery (Figures 1b, 5 and 6)
#
# Published recovery on CIFAR-10 at 1 %, against what the pair saves, first as the paper counts it, then as it is; with a black
# rim, measured here under the official code's error map.

# %% tags=["hide-input"]
energy.pictures(energy_ratio, records)

# %% [markdown]
# ## Recovery per million parameters (Table 3)

# %% tags=["hide-input"]
energy.efficiency_table(records)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
energy.meaning(saving)

# %% [markdown]
# [The scoreboard](scoreboard.ipynb) lists the printed numbers that do not follow from the other printed ones.
