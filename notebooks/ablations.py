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
# # What the training objective needs
#
# **Question.** How many perturbed models per step, which weight for them, and does the perturbation have to depend on the
# image at all?
#
# A generator is trained on the loss of the clean model plus lambda times the mean loss of N perturbed models, drawn anew in
# every step. The official recipe takes N = 10 and lambda = 5. Here one of the two is changed at a time and everything else
# is kept, the number of steps too. In the third part, a *universal input perturbation* (UIP) takes the generator's place:
# one learnt picture that is added to every image, trained by the same loss. These are the paper's Figure 7 and Tables 10
# and 11.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, imagenette224, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generator_names: list = ["conv_l"]
error_model: str = "release_map"  # or bit_flips, stuck_at
rate: float = 0.01  # bit-error rate, as a fraction
models_per_step: list = [1, 2, 4]  # values of N, each with lambda 5
loss_weights: list = [10.0, 5.0, 1.0, 0.1, 0.01]  # values of lambda, each with the profile's own N
universal: bool = True  # also train the universal input perturbation
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import ablations

varied = (models_per_step, loss_weights, universal)
trained = (base_models, base_recipe, generator_names, error_model, rate)
cells = grids.ablations(profile, dataset, *trained, *varied, patterns)
if measure:
    study.run(cells, profile, device)
rows = ablations.frame(tables.stored(profile, cells if measure else profiles.cells(profile, "ablations")), dataset)
ablations.summary(rows, profile)

# %% [markdown]
# ## Perturbed models per step
#
# Left: mean PA(NF), the bar is its standard deviation over error patterns, as in the paper's Figure 7. Right: the recovery
# RP with its standard error, which is what tells a change from chance.

# %% tags=["hide-input"]
ablations.pictures(rows, "N")

# %% [markdown]
# ## The weight lambda
#
# Filled circles are ours, the bar is the standard deviation over error patterns; dotted lines are the base model alone.
# Hollow diamonds are the paper's.

# %% tags=["hide-input"]
ablations.pictures(rows, "lambda")

# %% [markdown]
# ## One perturbation for all images

# %% tags=["hide-input"]
ablations.table(rows, "UIP")

# %% [markdown]
# ## All rows
#
# Accuracies in per cent, RP in percentage points with its standard error over patterns. Only rows of ReleaseMap and the base
# recipe `release` have the paper's numbers beside them: that is what the official code computes. A dash means: not measured,
# or not in the paper.

# %% tags=["hide-input"]
ablations.table(rows, "all")

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
ablations.meaning(rows)
