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
# # Scoreboard
#
# **Question.** Which of the paper's numbers have we got too, and how far apart are they?
#
# Every number that the paper and its reviews print is looked up among our records and closed forms. A closed form (energy
# saving, weight reads, MACs, parameters) follows from the shapes of the networks and must agree to the last printed digit.
# An accuracy depends on training and on the error patterns; its difference is given in units of the printed standard
# deviation over patterns (± in the table), or of ours where none is printed. A latency belongs to its hardware.

# %% tags=["parameters", "hide-input"]
profile: str = "paper"  # whose records; only full-size models are compared

# %% tags=["hide-input"]
from nflib import tables
from nflib.pages import contradictions, scoreboard

records = tables.stored(profile, kind="accuracy") + tables.stored(profile, kind="overhead")
rows = scoreboard.frame(records)
scoreboard.summary(rows, profile)

# %% [markdown]
# ## Ours against theirs
#
# Left and middle in their own units, right on logarithmic axes. On the line, both are equal. Below: differences in spreads;
# the dark band is one spread wide to each side, the light band two.

# %% tags=["hide-input"]
scoreboard.pictures(rows)

# %% [markdown]
# ## By table
#
# *Printed*: numbers in the source; *ours*: those with a counterpart here. *As printed* and *differ* count closed forms; ≤ 1 and
# ≤ 2 count the accuracies within so many spreads, of those with a spread. A dash means that there is nothing to compare yet.

# %% tags=["hide-input"]
scoreboard.by_table_table(rows)

# %% [markdown]
# ## Every number
#
# Type into a column's head to filter by it, click the arrows beside to sort; *Search* looks everywhere. A setting names base
# model, generator, data set and bit-error rate, then what else fixes the number. The CSV has what the filters leave.

# %% tags=["hide-input"]
scoreboard.interactive(rows)

# %% [markdown]
# ## Where the printed numbers contradict each other
#
# Each suspicion with the check that settles it, computed from the printed numbers as the page is made.

# %% tags=["hide-input"]
found = contradictions.frame()
contradictions.summary(found)

# %% tags=["hide-input"]
contradictions.table(found)

# %% [markdown]
# ## What it means

# %% tags=["hide-input"]
scoreboard.meaning(rows)
