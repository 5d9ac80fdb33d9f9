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
# # Where every number comes from
#
# Each measured setting is a **cell**, each result a **record**: one JSON file under `results/records/`, named by the
# digest of its cell. A record holds the accuracy under every error pattern, the commit of the code, the versions, the
# hardware, the digests of the data and of the trained weights, and the command that measures it again. The tables in
# this book are derived from the records; `nflib check` fails when one is not what they give.

# %% tags=["parameters", "remove-input"]
profile: str = "paper"  # whose records are listed

# %% tags=["remove-input"]
from nflib import derive, report
from nflib.store import Store

derive.checks()

# %% tags=["remove-input"]
report.provenance_table(Store(profile).records(), profile)

# %% [markdown]
# ## Look at one yourself
#
# ```
# nflib sweep accuracy --profile paper --only digest=DIGEST   # measures a cell whose record was removed
# nflib check                                                 # records valid, tables equal to what they give
# ```
