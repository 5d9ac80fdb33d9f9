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
# # NeuralFuse, reproduced
#
# A chip's memory that runs at too low a voltage saves energy and flips bits. **NeuralFuse** (NeurIPS 2024) leaves the
# chip and the classifier in its memory as they are and puts a small network, the *generator*, in front: it changes each
# input image so that the damaged classifier still recognises it. This book measures anew whether that works, why, and
# what it costs, with the paper's numbers beside ours.

# %% tags=["parameters", "remove-input"]
profile: str = "paper"  # whose records the page rests on

# %% tags=["remove-input"]
from nflib import profiles, tables
from nflib.pages import error_models, index, mechanism, tradeoff, transformed_images

index.idea()

# %% tags=["remove-input"]
trained = [cell for table in ("accuracy", "mechanism") for cell in profiles.cells(profile, table)]
stored = tables.stored(profile, profiles.cells(profile, "accuracy"))
records = tables.longest(stored)
rows = tables.accuracy(records)
why = mechanism.frame(tables.fullest(tables.stored(profile, profiles.cells(profile, "mechanism"))))
voltages = tradeoff.frame(tables.fullest(tables.stored(profile, profiles.cells(profile, "tradeoff"))))
laws = error_models.frame(tables.stored(profile, profiles.cells(profile, "error_models")))
fronts = mechanism.frame(tables.stored(profile, trained))
painted = transformed_images.frame(tables.stored(profile, profiles.cells(profile, "transformed_images")))

# %% [markdown]
# **In one table.** Accuracy in per cent at a bit-error rate of 1 %, errors laid out by the official code's map, behind the best
# generator measured; in brackets the paper's numbers. *Worst chip*: alone, then behind the generator. *Energy saved*: of
# reading the classifier's weights, less what the generator reads. *Epochs*: of the classifier's training.

# %% tags=["remove-input"]
index.glance(rows)

# %% [markdown]
# **In more detail**, at the same rate:

# %% tags=["remove-input"]
index.headline(rows, why, voltages, laws, fronts, painted)

# %% [markdown]
# **Words.** A *chip* is one error pattern: which cells of the weight memory are faulty. *BER*, the bit-error rate, is their
# share. *CA* and *PA*: accuracy without and with errors; *CA(NF)* and *PA(NF)*: the same behind a generator. *Recovery*:
# PA(NF) less PA, in percentage points. *Eq. 3*: the paper's training, on many damaged models. *Imitation*: ours, in which a
# generator learns to add a picture of the class. A generator's *encoder* is its first half. *Vmin*: the lowest voltage at
# which the memory is safe. *Net saving*: of the energy of reading the classifier's weights, less what stands in front of it
# reads. `release` and `modern` are two ways to train the classifier, without and with weight decay. *Weights cut at 3 × rms*:
# no weight larger than three times its layer's root mean square. *Sign bit spared*: its cell is kept at a safe voltage.
# [More in the method](../method.md)

# %% [markdown]
# ## Does it work, and why?
#
# Accuracy of the same damaged classifier, over the same chips, with different things in front. The bar is the standard
# deviation over chips.

# %% tags=["remove-input"]
index.ladders(fronts, why)

# %% [markdown]
# ## What does it cost?
#
# Net saving of weight-read energy (ES) at a bit-error rate of 1 %, with corrected counts, and the generator's size.
# Negative means that the generator costs more than the low voltage saves.

# %% tags=["remove-input"]
index.costs()

# %% [markdown]
# ## How far do our numbers agree with the paper's?

# %% tags=["remove-input"]
index.closed_forms()

# %% tags=["remove-input"]
index.agreement(rows, fronts)

# %% [markdown]
# ## What "1 % bit errors" means decides the result
#
# Each dot is one error pattern, that is, one chip, of the same classifier without a generator; the bar is their mean.
# *ReleaseMap* is the official code's error map, *StuckAt* has the same share of faulty cells at independent places,
# *BitFlips* flips each bit independently. Two recipes train the classifier: `release`, without weight decay, as the
# official code does, and `modern`, with it.

# %% tags=["remove-input"]
index.chips(records)

# %% tags=["remove-input"]
index.error_models(tables.accuracy(stored))

# %% [markdown]
# It decides how much there is to bring back, too. Hollow: the classifier alone. Filled: the same chips behind a generator that
# was trained under the same error model. The number is the recovery in points, with its standard error over chips.

# %% tags=["remove-input"]
error_models.recovery_pictures(laws)

# %% [markdown]
# ## How to read on
#
# * [The method](../method.md): formulas, error models, metrics; and
#   [what the official code really does](../release_code.md).
# * [Why it works](mechanism.ipynb): to tell the class is enough, and a generator that is trained to is ready in minutes.
# * [How much training buys how much recovery](cost.ipynb): the official recipe beside cheaper ones.
# * [Which bits, which layers](sensitivity.ipynb) do the damage, and what if the generator's memory fails too?
# * [Does it pay?](tradeoff.ipynb) Accuracy against saving over the voltage, beside a chip without a generator, and beside
#   ways of sparing it the errors.
# * [Trained again](seeds.ipynb): how much of a number is the luck of one training?
# * [Images unlike those of training](shift.ipynb): does a generator still help with noise, blur, little contrast, little light?
# * [What reviewers asked](questions.ipynb), each question with the measurement that answers it.
# * [Every published number beside ours](scoreboard.ipynb), and where the printed numbers contradict each other.
# * [What "1 % bit errors" means](error_models.ipynb): how much of the damage is the official code's error map.
# * [How much there is to recover](base_recipe.ipynb), and what in the training of the base model decides it.
# * [Accuracy recovery](accuracy.ipynb), [transfer to other classifiers](transfer.ipynb),
#   [fewer bits](quantization.ipynb), [ablations](ablations.ipynb), [robust training](robust_training.ipynb).
# * Pictures: [t-SNE](tsne.ipynb) and [transformed images](transformed_images.ipynb).
# * What it costs: [energy](energy.ipynb), [overhead](overhead.ipynb).
# * Each page has a twin [at smoke scale](error_models_smoke.ipynb), regenerated from nothing in minutes.
# * [Run it yourself](../rerun.md), and [where every number comes from](provenance.ipynb).
