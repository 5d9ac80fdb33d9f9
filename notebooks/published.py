# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which trained models can I use?
#
# **The narrow networks of this study are published as 8-bit codes in `results/models/`: one line loads a base model or a
# generator, by names or, where its recipe has none, by the digest of its record** (column *load* below). The tables list
# them with their accuracy under errors.
#
# Each model is one safetensors file with codes and a scale for every layer that has weights, float32 for biases and
# batch norm, and a card that names its training, commit and machine. To measure a generator on one chip:
#
# ```python
# import nflib
# from nflib import data, evaluation, faults
#
# base = nflib.load("desk/cifar10/vgg11")
# generator = nflib.load("desk/cifar10/vgg11/conv_l")
# batches = evaluation.prepared(data.load("cifar10").test.first(500), generator)  # transformed images
# chip = faults.named("release_map", 0.01).draw(base.sizes, seed=50000)
# with faults.perturbed(base, chip) as model:
#     print(f"{evaluation.accuracy(model, batches):.1f} % accuracy under errors")
# ```

# %% tags=["parameters"]
profile: str = "desk"  # whose models are listed: "smoke", "desk", "paper12" or "paper"

# %% tags=["hide-cell"]
from functools import partial

import pandas as pd

from nflib import data, energy, generators, models
from nflib.adapters import added
from nflib.names import UserError
from nflib.report import claim, ladder, show, stored
from nflib.study import recipes, weights
from nflib.study.cells import cell_of
from nflib.study.records import Store
from nflib.study.trained import base_key, generator_key, new_generator

COUNTS = energy.macs, energy.weight_reads
USUAL = {"training": "faded_eopm", "error_model": "release_map", "rate": 0.01, "recipe": "release"}  # of nflib.load


def loading(cell):
    """The call that loads a cell's generator, or its base model where it has none: by names, else by the record's digest."""
    base, front, how = cell.base, cell.generator, {"recipe": cell.base.recipe.name}
    try:
        known = recipes.base(profile, base.dataset, base.model, **how) == base
    except UserError:  # a recipe without a name
        known = False
    if front:
        at = (front.error_model, front.rate)
        same = [word for word in recipes.TRAININGS if recipes.generator(profile, front.name, word, *at) == front]
        how |= dict(zip(("error_model", "rate", "training"), [*at, *same]))
        known = known and bool(same)
    name = "/".join([profile, base.dataset, base.model, *([front.name] if front else [])])
    more = [f"{key}={value!r}" for key, value in how.items() if value != USUAL[key]]
    return f"nflib.load({', '.join([repr(name), *more])})" if known else f"nflib.load('{profile}/{cell.digest}')"


def facts(cell, card):
    """What is known of a published model, and of the energy of the pair that it is measured in."""
    base, front, size = cell.base, cell.generator, data.image_size(cell.base.dataset)
    alone = models.build(base.model, card["classes"], size, base.width)
    network = new_generator(cell, card["classes"], size) if front else alone
    adds = [added(partial(count, image_size=size), alone, network, front.place if front else "") for count in COUNTS]
    ratio = energy.read_energy(cell.rate)
    return {
        "load": loading(cell),
        "parameters": models.parameter_count(network),
        "million_MACs": adds[0] / 1e6,
        "energy_saved": energy.energy_saving(energy.weight_reads(alone, size), adds[1] if front else 0, ratio),
        "KB": card["bytes"] / 1000,
        "training_s": card["facts"]["seconds"],
        "commit": card["facts"]["provenance"]["commit"][:10],
    }


cards = {card["key"]: card for card in weights.cards()}
known = {}  # by digest: of each measured cell whose model is published
for cell in (cell_of(record["cell"]) for record in Store(profile).records("accuracy")):
    key = generator_key(cell) if cell.generator else base_key(cell.base)
    if key in cards and not cell.surrogates and not (cell.generator and cell.generator.name in generators.CONTROLS):
        known[cell.digest] = {"key": key} | facts(cell, cards[key])
if not known:
    raise UserError(f"no published model has a record of profile {profile!r}; `nflib publish` stores trained models")
rows = stored(profile)
rows = rows[rows["digest"].isin(list(known))].reset_index(drop=True)
rows = rows.join(pd.DataFrame([known[digest] for digest in rows["digest"]]))
rows["model"] = rows["base_model"] + (" (" + rows["recipe_words"] + ")").str.replace(" (release)", "", regex=False)
rows["model"] = (rows["model"] + " + " + rows["generator"]).str.removesuffix(" + none")
here = rows["error_model"].eq("ReleaseMap") & rows["rate"].eq(USUAL["rate"]) & rows["bits"].eq(8)
main = rows[here & rows["load"].str.count("/").gt(1)]  # loaded by names
main = main[main["train_error_model"].eq(main["error_model"]) | main["generator"].eq("none")]

# %% [markdown]
# ## What each reaches under errors, and what it saves
#
# Each base model alone (hollow) and behind a generator (filled; bar: standard deviation over chips), at a bit-error rate
# of 1 %, which generators were trained for, under the official code's error map. Red diamonds: the paper, at full size.
# The table has the energy saved, which counts weight reads; below zero, the pair takes more than the base model alone.

# %% tags=["hide-input"]
fronts = main[main["recovery"].notna()]
fronts = fronts.assign(front=fronts["system"] + ", " + fronts["training"])
said = "Accuracy under errors of published models."
ladder(fronts, "front", "base_model", said, "published", "generator") if len(fronts) else None

# %% tags=["hide-input"]
for word, some in {"save": fronts[fronts["energy_saved"] > 0], "add": fronts[fronts["energy_saved"] < 0]}.items():
    for best in some.nlargest(1, "recovery").to_dict("records"):
        claim(
            best["recovery"] > 2 * best["recovery_se"] and best["energy_saved"] < 31,
            f"Where base model and generator together {word} energy of weight reads, {best['generator']} recovers most on "
            f"{best['dataset']}: {best['base_model']} rises from {best['perturbed_alone']:.1f} to {best['perturbed']:.1f} % under "
            f"{100 * best['rate']:g} % bit errors, and they {word} {abs(best['energy_saved']):.0f} %.",
        )

# %% tags=["hide-input"]
columns = ["dataset", "model", "training", "error_model", "rate", "clean", "perturbed", "energy_saved"]
show(rows, columns, "published", "Means over chips; all measured settings.")

# %% [markdown]
# ## How to load each, and how large it is

# %% tags=["hide-input"]
models_shown = rows.drop_duplicates("key")
columns = ["model", "training", "load", "parameters", "million_MACs", "KB", "training_s"]
show(models_shown, columns, "published_models", "One row per model; parameters and MACs are its own, not the pair's.")

# %% [markdown]
# ## Measure a generator of your own against them
#
# Add it as [Extend](../extend.md) shows, then run `nflib run accuracy --profile desk -p generators conv_l,YOURS`. Only
# what is neither published nor in `checkpoints/` is trained, and the table has both.
#
# ## Limits
#
# Models of the desk profile are narrow networks of about 10 million multiply-accumulates an image, not the paper's.
# Loading a model needs no data set. `nflib check` finds a file that was changed.
