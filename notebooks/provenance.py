# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where does every number come from?
#
# **Every number was measured by committed code; its record says by which commit and on what machine.** The table lists all
# stored records on real images, of full-size and of narrow networks.
#
# A measured setting is a *cell*, its result a *record*: one JSON file in `results/records/`, named by the digest of its
# cell. It holds the accuracy under every error pattern, the commit of the code, versions, hardware, and the digests of
# the data and of the trained weights. All tables of this book are computed from records; `nflib check` verifies that.

# %% tags=["parameters"]
profiles: list[str] = ["paper", "paper12", "desk"]  # whose records are listed

# %% tags=["hide-cell"]
import pandas as pd

from nflib.report import claim, say, show
from nflib.study.cells import cell_of, digest_of
from nflib.study.records import Store
from nflib.study.trained import generator_key

rows, models = [], []
for profile, record in ((name, record) for name in profiles for record in Store(name).records()):
    cell, metrics, origin = cell_of(record["cell"]), record["metrics"], record["provenance"]
    names = {"base model": digest_of(cell.base), "selector": cell.selector and digest_of(cell.selector)}
    names["generator"] = cell.generator and generator_key(cell)
    trained = {what: metrics.get(f"{what.split()[0]}_training") for what in names}
    teacher = (trained["generator"] or {}).get("teacher", {})
    seconds = [one["seconds"] for one in [*trained.values(), teacher] if one]
    rows.append({"profile": profile, "kind": cell.kind, "setting": cell.words, "digest": cell.digest})
    command, seeds = f"nflib sweep --profile {profile} --only digest={cell.digest}", f"base model {cell.base.recipe.seed}"
    seeds += f", generator {cell.generator.seed}" if cell.generator else ""
    rows[-1] |= {"command": command, "commit": origin["commit"][:10], "seeds": seeds}
    rows[-1] |= {"hardware": f"{origin['device']}, threads: {origin['threads']}, {origin['precision']}"}
    rows[-1] |= {"chips": f"{cell.first_seed} to {cell.first_seed + cell.patterns - 1}" if cell.patterns else "none"}
    rows[-1] |= {"training_s": sum(seconds), "dirty": origin["dirty"], "date": origin["date"], "torch": origin["torch"]}
    for what, one in trained.items():
        if one:
            outcome = one.get("distillation_losses", []) + one.get("losses", [])
            made = one.get("provenance", {})
            model = {"profile": profile, "model": f"{what}: {cell.words.split(',')[0]}", "key": names[what], "losses": outcome}
            model |= {"seconds": one["seconds"], "trained_on": made.get("device", "unknown")}
            models.append(model | {"commit": made.get("commit", "unknown")[:10]})
rows, models = pd.DataFrame(rows), pd.DataFrame(models)
trainings = models.drop_duplicates(["key", "seconds"])
again = trainings[trainings.duplicated("key", keep=False)]

# %% [markdown]
# ## Every record names a commit, and none was measured from changed code

# %% tags=["hide-input"]
counts = rows.groupby("profile", sort=False).size()
claim(
    (rows["commit"] != "unknown").all() and not rows["dirty"].any(),
    f"All {len(rows):,} records ({', '.join(f'{name}: {count}' for name, count in counts.items())}) name one of "
    f"{rows['commit'].nunique()} commits of this repository, without uncommitted changes.",
)
claim(
    trainings.groupby("key")["losses"].agg(lambda some: some.map(str).nunique()).max() == 1,
    f"They rest on {trainings['key'].nunique()} trained models. Trainings that were repeated (models: "
    f"{again['key'].nunique()}) ended with the same losses to the last digit.",
)
say(
    "Records were measured on "
    f"{'; '.join(f'{name} ({count})' for name, count in rows['hardware'].value_counts().items())}."
)

# %% [markdown]
# ## All records
#
# Seeds fix trainings; training counts all networks of the setting, in seconds. To measure a cell again, remove its
# record and use its command, which the file below has.

# %% tags=["hide-input"]
columns = ["profile", "kind", "setting", "seeds", "commit", "hardware", "training_s", "digest"]
caption = "One row per record. nflib sweep --profile PROFILE --only digest=DIGEST measures it again."
show(rows, columns, "provenance", caption, 0)

# %% [markdown]
# ## Limits
#
# A commit says which code ran. The records are of many commits, and later ones may compute a little differently. A
# record with `moved_from` was named so before the profiles were separated; its cell was renamed, its numbers were not
# changed.
# Weights of full-size networks are not published; only their digests can be compared. Records of the profile `smoke`
# are not listed: `make book` measures them.
