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
# # Does it pay?
#
# **Question.** Is there a voltage at which NeuralFuse saves energy and costs next to no accuracy? And what would one get
# without it: from the same chip at a slightly higher voltage, from a memory that spares, finds or corrects its faults, or
# from the same classifier with its largest weights cut?
#
# The paper compares at fixed bit-error rates, 1 % and 0.5 %. But whoever builds such a chip chooses the voltage. So each
# system is measured here over bit-error rates, on the same chips: a lower rate's faulty cells are among a higher rate's.
# Generators are the ones trained at one rate; they are measured at all.
#
# *Net saving* is the saving of weight-read energy, in per cent of what the base model alone reads at Vmin, with true reads
# ([energy](energy.ipynb)). Generators read at Vmin. Mitigations can stand beside them: the *sign bit spared*, in cells
# that do not fail; a parity bit for each weight, which is read as *zero where parity fails*; and a *SECDED code*, 8 check
# bits for 64, which corrects one wrong bit. Their further bits are counted, their logic and larger cells are not. A fourth
# needs nothing of the chip: the *weights are cut*, layer by layer, at three times their root mean square before they are
# coded anew. No training follows. The codes' range is the largest weight's; when few large weights no longer stretch it,
# each wrong bit moves a weight by less.
#
# NeuralFuse is for people who cannot train the classifier. Whoever can has another way: the same network, *trained to
# resist errors* after {cite:t}`stutz2021bit`, with clipped weights, or with these and on random bit errors at a rate of
# 1 %. It needs nothing more when the chip runs ([base recipes](base_recipe.ipynb)).
#
# **An assumption.** The paper prints one point of the voltage's curve: 0.83 Vmin, a rate of 1 %, 30.6 % saved. In between
# we take the logarithm of the rate as linear in the voltage, from `safe_ber` at Vmin, and the energy as a power of the
# voltage (about its square). The last section varies that.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/
base_models: list = ["vgg11"]
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": one-cycle, weight decay
generator_names: list = ["conv_s"]
tellers: list = ["conv_s"]  # generators whose encoder tells class patterns the class: conv_l, conv_s, unet_l, unet_s
mitigations: list = ["spare_sign", "zero_by_parity", "secded", "cut_weights"]
robust_recipes: list = ["clipped", "randbet"]  # base recipes, meant to resist errors, that the same network is trained by
error_models: list = ["release_map"]  # also bit_flips, stuck_at
train_rate: float = 0.01  # bit-error rate that generators are trained at, as a fraction
rates: list = [0.001, 0.003, 0.01, 0.03]  # bit-error rates, as fractions
patterns: int = 10  # error patterns (chips) per setting
safe_ber: float = 1e-5  # assumed bit-error rate at Vmin, a fraction
energy_ratio: float = 0.694  # energy of one read at a rate of 1 % over that at Vmin
device: str = "auto"
measure: bool = True  # False: show stored records only, whatever their training

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import tradeoff

cells = profiles.cells(profile, "tradeoff")
if measure:
    names = (base_models, base_recipe, generator_names, tellers, mitigations, robust_recipes, error_models)
    cells = grids.tradeoff(profile, dataset, *names, train_rate, rates, patterns)
    study.run(cells, profile, device)
records = tables.stored(profile, cells)
rows = tradeoff.frame(records, safe_ber, energy_ratio)
tradeoff.summary(rows, profile)

# %% [markdown]
# ## Accuracy against net saving
#
# Each line follows one system from a high voltage to a low one. Up and to the right is better.

# %% tags=["hide-input"]
tradeoff.against_saving(rows)

# %% [markdown]
# ## Accuracy against the bit-error rate

# %% tags=["hide-input"]
tradeoff.against_rate(rows)

# %% [markdown]
# ## All points
#
# A chip is *good* when it is at most 5 points below the base model without errors.

# %% tags=["hide-input"]
tradeoff.table(rows)

# %% [markdown]
# ## Does the verdict rest on the assumed voltage curve?
#
# The largest net saving in per cent at a loss of at most 1 point, when another bit-error rate is assumed at Vmin. *None*: no
# measured point loses so little and saves anything.

# %% tags=["hide-input"]
tradeoff.assumptions(records, energy_ratio)
