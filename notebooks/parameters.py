# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which parameters does each notebook have?
#
# **Those of its first code cell, with a type, a default and a meaning; each profile gives some of them other values.**
# Both tables are read from the notebooks and from `notebooks/parameters.yml` when this page is built. `nflib run
# NOTEBOOK -p NAME VALUE` gives a value of your own, as [Re-run](../rerun.md) explains.

# %% tags=["parameters"]
profiles: list[str] = ["desk", "paper12", "paper"]  # whose values are shown beside the defaults

# %% tags=["hide-cell"]
import pandas as pd

from nflib.names import PROFILES, UserError
from nflib.report import claim, show
from nflib.study import notebooks

if unknown := set(profiles) - set(PROFILES):
    raise UserError(f"unknown profile {min(unknown)!r}; allowed: {', '.join(PROFILES)}")


def text(value):
    """A value as it is typed on the command line."""
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


rows = []
for name in notebooks.names():
    meanings, sets = notebooks.meanings(name), notebooks.sets(name)
    for parameter, (kind, default) in notebooks.parameters(name).items():
        typed = kind.__name__ if isinstance(default, (str, int, float)) else str(kind)
        row = {"notebook": name, "parameter": parameter, "type": typed, "default": text(default)}
        row |= {profile: text(sets.get(profile, {}).get(parameter, "")) for profile in profiles}
        rows.append(row | {"meaning": meanings[parameter]})
rows = pd.DataFrame(rows)

# %% [markdown]
# ## Names, types, defaults and meanings

# %% tags=["hide-input"]
show(rows, ["notebook", "parameter", "default", "meaning"], caption="One row per parameter of a notebook.")

# %% [markdown]
# ## Values of the profiles
#
# What a profile does not name has the notebook's default, and so has everything in the smoke profile. `measure` is
# false on every page of this book: it shows stored records only.

# %% tags=["hide-input"]
given = rows[(rows[profiles] != "").any(axis=1) & (rows["parameter"] != "profile")]
claim(
    (rows["meaning"] != "").all() and len(given),
    f"{rows['notebook'].nunique()} notebooks have {len(rows)} parameters, each with a meaning; profiles give other values to "
    f"{len(given)} of them.",
)
show(given, ["notebook", "parameter", "default", *profiles], caption="Parameters to which a profile gives a value.")
