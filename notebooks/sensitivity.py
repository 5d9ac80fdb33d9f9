# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Which bits and which layers matter?

# %% [markdown] tags=["paper12"]
# **Errors in the sign bit alone cost about three quarters of what errors in all bits cost, and the first three layers
# are the most sensitive. Behind UNetL no single bit or layer matters, but with errors in its own memory a generator makes
# things worse.** We measured a full-size VGG11 on CIFAR-10 with
# 1 % bit errors under the error map of the official code, alone and behind generators that were trained by
# distillation, not by the paper's algorithm ([method](../method.md)).

# %% [markdown] tags=["desk"]
# **Errors in the sign bit alone cost most of what errors in all bits cost, and the first three layers are the most
# sensitive. Behind a ConvL or a UNetL the sign bit still matters most.** We measured a narrow VGG11 on CIFAR-10 with
# 1 % bit errors under the error map of the official code. These generators were trained on the paper's loss while images
# faded in (*faded EOPM*).

# %% [markdown]
# A weight is stored as an 8-bit two's complement code: an error in bit 0 moves it by one quantisation step, in bit 6
# by 64 steps, in bit 7, the sign, by 128. We kept each chip's errors in one bit of every code, or in one layer, and
# removed all others. A last measurement adds errors to the generator's own weights, which the other pages keep free of
# errors. The generators were trained with errors everywhere in the base model.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper12", "paper": full size
dataset: str = "digits"  # also cifar10, cifar100, gtsrb, or the name of your own file in data/
base_models: list[str] = ["vgg11"]  # also resnet18, resnet50, vgg16, vgg19
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generators: list[str] = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
training: str = "eopm"  # "eopm": the paper's loss; "distilled": class-wise perturbations
error_models: list[str] = ["release_map"]  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate of training and of measurement, as a fraction
bits: list[int] = [0, 7]  # bits of a code that have errors, one at a time; 0 is the lowest, 7 the sign
layers: list[int] = [1]  # layers that have errors, one at a time, in the order of computing
patterns: int = 10  # error patterns (chips)
images: int = 0  # test images, the first ones; 0: all
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from itertools import product

from nflib.study import Cell, base, generator, settings

places, cells = [*(f"bit {k}" for k in bits), *(f"layer {k}" for k in layers)], []
for model, errors in product(base_models, settings(error_models, [rate])):
    whole, counts = base(profile, dataset, model, base_recipe), (patterns, images)
    fronts = [generator(profile, name, training, *errors) for name in generators]
    for recipe in [None, *fronts]:
        cells.append(Cell(whole, recipe, *errors, *counts))
        cells += [Cell(whole, recipe, *errors, *counts, kind="sensitivity", hit=place) for place in places]
    cells += [Cell(whole, recipe, *errors, *counts, kind="sensitivity", hit="generator too") for recipe in fronts]

# %% tags=["hide-cell"]
import numpy as np
import pandas as pd

from nflib.report import Picture, claim, colours, measured, metrics, paired, panels, show, span

rows = measured(cells, profile, measure, device)
rows["loss"] = rows["clean"] - rows["perturbed"]
rows["setting"] = rows["dataset"] + ", " + rows["base_model"] + ", " + rows["error_model"]
rows["what"], rows["place"] = rows["hit"].str.split().str[0], pd.to_numeric(rows["hit"].str.split().str[1], "coerce")
weights = [metrics(row)["layer_weights"] if row["what"] == "layer" else None for _, row in rows.iterrows()]
rows["weights"] = [100 * w[int(k) - 1] / sum(w) if w else np.nan for w, k in zip(weights, rows["place"])]  # per cent
alone = rows[rows["system"] == "alone"].sort_values(["setting", "place"], kind="stable")
behind = rows[rows["system"] != "alone"]
parts = {what: alone[alone["what"] == what] for what in ("all", "bit", "layer")}


def surely(better, worse):
    """Whether the first of `better` has a higher accuracy than the first of `worse`, by two standard errors."""
    gap, error = paired(better["accuracies"].iloc[0], worse["accuracies"].iloc[0])
    return gap > 2 * error


# %% [markdown]
# ## The sign bit and the first layers are the most sensitive
#
# Bars are the accuracy that is lost to errors in one bit or in one layer; thin lines are the standard deviation over
# chips. "All" has errors everywhere. Below a layer's number stands its share of the weights.

# %% tags=["hide-input"]
names = list(dict.fromkeys(rows["setting"]))
figure, axes = panels(2 * len(names), 2.4, columns=1)
systems = ["alone", *dict.fromkeys(behind["system"])]
paint = colours(systems)
for axis, (setting, what) in zip(axes, product(names, ["bit", "layer"])):
    here = rows[(rows["setting"] == setting) & rows["what"].isin([what, "all"])]
    ticks = here.drop_duplicates("hit").sort_values("place")
    height, spread = (here.pivot(index="hit", columns="system", values=v).loc[ticks["hit"], systems] for v in ("loss", "std"))
    height.plot.bar(ax=axis, yerr=spread, color=paint, width=0.8, legend=False, error_kw={"ecolor": "0.6", "linewidth": 1})
    shares = ["" if np.isnan(share) else "\n<0.1" if share < 0.1 else f"\n{share:.2g}" for share in ticks["weights"]]
    labels = ["all" if np.isnan(place) else f"{place:.0f}{share}" for place, share in zip(ticks["place"], shares)]
    axis.set_xticks(range(len(ticks)), labels, rotation=0)
    words = {"bit": "bit that has errors", "layer": "layer that has errors; weights (%)"}[what]
    title = setting if what == "bit" and len(names) > 1 else ""
    axis.set(xlabel=words, ylabel="lost accuracy (points)", ylim=(-2, None), title=title)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
Picture(figure, "Accuracy lost to errors in one bit or one layer, alone and behind generators.", "sensitivity")

# %% tags=["hide-input"]
for setting, some in parts["bit"].groupby("setting", sort=False):
    ranked, whole = some.sort_values("loss", ascending=False), parts["all"].set_index("setting")["loss"][setting]
    low = some[some["place"] < 5]
    claim(
        ranked["place"].iloc[0] == 7 and surely(ranked[1:], ranked) and 0.65 < ranked["loss"].iloc[0] / whole < 0.85,
        f"{setting}: errors in the sign bit alone cost {ranked['loss'].iloc[0]:.1f} points, in all bits {whole:.1f}.",
    )
    claim(
        len(low) > 4 and low["loss"].max() < 1,
        f"Errors in any one of the {len(low)} lowest bits cost at most {low['loss'].max():.1f} points.",
    )
for setting, some in parts["layer"].groupby("setting", sort=False):
    first, rest = some[some["place"] <= 3], some[some["place"] > 3].sort_values("loss", ascending=False)
    if len(rest):
        gap, error = paired(rest["accuracies"].iloc[0], np.mean([*first["accuracies"]], axis=0))
        claim(
            gap > 2 * error,
            f"{setting}: the first {len(first)} layers hold {first['weights'].sum():.1f} % of the weights. Errors in one of them cost "
            f"{first['loss'].mean():.1f} points on average, in a later layer at most {rest['loss'].max():.1f}.",
        )
sums, whole = [parts[what]["loss"].sum() for what in ("bit", "layer")], parts["all"]["loss"].sum()
claim(
    max(abs(one - whole) for one in sums) < 0.25 * whole,
    f"To within a quarter the losses add up: bit by bit to {sums[0]:.1f} points, layer by layer to {sums[1]:.1f}; errors "
    f"everywhere cost {whole:.1f}.",
)

# %% [markdown]
# ## Behind a generator, errors in one place cost less

# %% tags=["hide-input", "paper12"]
large = behind[behind["what"].isin(["bit", "layer"]) & (behind["generator"] == "UNetL")]
claim(
    len(large) and large["loss"].max() < 1,
    f"Behind UNetL, errors in any one of {large['hit'].nunique()} bits and layers cost at most {large['loss'].max():.1f} points.",
)

# %% tags=["hide-input"]
usual = parts["bit"].groupby("setting")["loss"].max()
for (setting, name), some in behind[behind["what"].isin(["bit", "layer"])].groupby(["setting", "system"], sort=False):
    ranked = some.sort_values("loss", ascending=False)
    if (worst := ranked.iloc[0])["loss"] >= 1:
        claim(
            worst["hit"] == "bit 7" and surely(ranked[1:], ranked) and worst["loss"] < 0.65 * usual[setting],
            f"Behind {name} the sign bit remains the most sensitive place, but errors there cost {worst['loss']:.1f} points instead of "
            f"{usual[setting]:.1f}.",
        )

# %% [markdown]
# ## With errors in its own memory, a generator lowers accuracy

# %% tags=["hide-input"]
too = behind[behind["hit"] == "generator too"]
claim(
    len(too) and too["recovery"].max() < 0,
    f"With the same bit-error rate in the generator's own weights, accuracy is {span(too['perturbed'], 0)} %; the base model alone "
    f"has {parts['all']['perturbed'].mean():.0f} %.",
)

# %% tags=["hide-input"]
columns = ["setting", "system", "hit", "weights", "clean", "perturbed", "std", "loss"]
how = " and ".join(behind["training"].unique())
caption = f"Accuracy in per cent, loss in points, by what has errors; weights: a layer's share. Generators: by {how}."
show(rows, columns, "sensitivity", caption)

# %% [markdown]
# ## Limits
#
# This is one base model with two generators, each trained once. The official error map gives every layer the same
# pattern of faulty cells, so layers are not independent samples. A layer's loss depends on its number of weights, its
# place and its quantisation scale together; we did not separate these. The generators were not trained to withstand
# errors of their own, and their layers were not measured one by one.
