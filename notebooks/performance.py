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
# # Performance
#
# **Question.** How much faster is this code than the usual ways of doing the same work?
#
# `make bench` runs each comparison in one process, by turns: every side once, then every side once more, so that a slow
# minute of the machine meets all of them. Base models and generators have full size and random weights. Shown are medians
# over rounds, quartiles, and ratios of medians.
#
# * **Injection.** A new error pattern at a bit-error rate of 1 % goes into the 8-bit weights of a ResNet18 and out again.
#   *Dense sampling* draws a uniform number for each stored bit, quantises every weight anew and copies all of them back.
#   The *official path* draws, packs and lays out the official code's error map, step by step as that code does.
#   *MRFI* is a fault injector from PyPI; its default selector is approximate, its classic one exact.
# * **Training.** One optimiser step of a generator. The *official loop*, written anew from what that code does, runs
#   generator and clean model again for each perturbed model, a forward for a log line, and a backward through all weights.
# * **Evaluation.** Clean and perturbed accuracy with and without a generator. The *official way* computes transformed images
#   and clean accuracies again for each error pattern.

# %% tags=["parameters", "hide-input"]
hardware: str = "cpu"  # whose measurements are shown: "cpu" (it computes in bf16), "cpu_fp32" (it cannot) or "cuda"

# %% tags=["hide-input"]
from nflib.pages import performance

records = performance.stored(hardware)
performance.summary(records)

# %% [markdown]
# ## On other hardware
#
# What of this was measured elsewhere too. A textbook loop computes in fp32, so a processor without bf16 arithmetic narrows the
# gap of a training step; memory and its random numbers may be slower there, which widens that of drawing.

# %% tags=["hide-input"]
performance.elsewhere(hardware)

# %% [markdown]
# ## Time over ours
#
# Bars end at the ratio of medians; thin lines span the middle half of the ratios within a round; black strokes are goals.

# %% tags=["hide-input"]
performance.pictures(records)

# %% tags=["hide-input"]
performance.table(records)

# %% [markdown]
# ## Where our time goes
#
# Drawing a pattern happens on the host; applying and undoing happen where the weights are.

# %% tags=["hide-input"]
performance.stage_summary(records)

# %% tags=["hide-input"]
performance.stage_table(records)
