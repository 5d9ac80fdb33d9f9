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
# chip and the classifier as they are and puts a small network, the *generator*, in front: it changes each input image
# so that the damaged classifier still recognises it. This book measures anew what that brings and what it costs.

# %% tags=["parameters", "remove-input"]
profile: str = "paper"  # whose records the page rests on

# %% tags=["remove-input"]
from nflib import report, tables

records = tables.stored(profile)
rows = tables.accuracy(records)
report.headline(rows, profile)

# %% [markdown]
# ## Does it work?

# %% tags=["remove-input"]
report.recovery_pictures(rows, profile, dataset="CIFAR-10", ber_percent=1.0)

# %% tags=["remove-input"]
report.accuracy_summary(rows[rows["ber_percent"] == 1.0])

# %% [markdown]
# ## What does it cost?

# %% tags=["remove-input"]
report.cost_summary()

# %% [markdown]
# ## How far do our numbers agree with the paper's?

# %% tags=["remove-input"]
report.agreement(rows)

# %% [markdown]
# ## What "1 % bit errors" means decides the result
#
# Each dot is one error pattern, that is, one chip, of the same classifier without a generator.

# %% tags=["remove-input"]
report.chip_pictures(records)

# %% tags=["remove-input"]
report.error_model_summary(rows)

# %% [markdown]
# ## How to read on
#
# * [The method](../method.md): formulas, error models, metrics; and
#   [what the official code really does](../release_code.md).
# * [Every published number beside ours](scoreboard.ipynb), and where the printed numbers contradict each other.
# * [What "1 % bit errors" means](error_models.ipynb): the study's central finding.
# * [Accuracy recovery](accuracy.ipynb), [transfer to other classifiers](transfer.ipynb),
#   [fewer bits](quantization.ipynb), [ablations](ablations.ipynb), [robust training](robust_training.ipynb).
# * Why it works, or does not: [t-SNE](tsne.ipynb) and [transformed images](transformed_images.ipynb).
# * What it costs: [energy](energy.ipynb), [overhead](overhead.ipynb).
# * Each page has a twin [at smoke scale](error_models_smoke.ipynb), regenerated from nothing in minutes.
# * [Run it yourself](../rerun.md), and [where every number comes from](provenance.ipynb).
