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
# # Why it works
#
# **Question.** How can a change of the *image* make up for bit errors in every layer of the classifier?
#
# A hypothesis that the paper's pictures of class-wise similar perturbations suggest, and that its reviewers raised: the
# generator tells which class the image belongs to, and adds a pattern of that class so strong that even the damaged model
# recognises it. If that is so, then (1) ten fixed patterns, one a class, must be enough for somebody who is *told the
# label*; (2) a generator that first learns to imitate these patterns, which needs no base model and no error at all, must
# be trained far sooner; and (3) the generator is a classifier itself, so its own encoder, with a linear layer in the
# decoder's place and no base model behind it, shows how much of the answer was there already.
#
# The patterns are trained on the generator's own objective (Eq. 3) with the label given; *one pattern for all images* is
# the same without the label, the paper's universal input perturbation.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": one-cycle, weight decay
generator_names: list = ["conv_l", "conv_s", "deconv_l", "deconv_s", "unet_l", "unet_s"]
error_model: str = "release_map"  # or bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import mechanism

setting = (dataset, base_models, base_recipe, generator_names, error_model, rate, patterns)
cells = grids.mechanism(profile, *setting)
if measure:
    study.run(cells, profile, device)
rows = mechanism.frame(tables.stored(profile, cells if measure else profiles.cells(profile, "mechanism")))
mechanism.summary(rows, profile)

# %% [markdown]
# ## Patterns, generators, imitation
#
# Accuracy under errors; the bar is the standard deviation over error patterns (chips).

# %% tags=["hide-input"]
mechanism.ladders(rows)

# %% [markdown]
# ## The generator's encoder as a classifier of its own
#
# Squares: the encoder alone, at nominal voltage, like the generator. Circles: the base model at low voltage behind the
# whole generator. Further left is cheaper, higher is better.

# %% tags=["hide-input"]
mechanism.duels(rows)

# %% [markdown]
# ## All rows
#
# Accuracies in per cent, RP in percentage points with its standard error over patterns. Model-images are images times
# perturbed models that training took, the patterns' own training included. For an encoder alone, CA is the number that
# counts; its PA is what it would be at low voltage itself.

# %% tags=["hide-input"]
mechanism.table(rows)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
mechanism.meaning(rows)
