# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How much energy does it save?
#
# **Low voltage with a generator saves 7 to 30 % of the energy of weight reads, but less than a fifth of the energy of a
# whole inference.** This holds for the paper's five base models and six generators, for images of 32×32 pixels, at 0.83
# of the nominal voltage, where 1 % of the bits are wrong. Everything on this page follows in closed form from the
# shapes of the networks; nothing is trained but the generators behind measured recoveries.
#
# The base model's weights are read at low voltage, the generator's at nominal voltage. The paper counts weight reads
# only. It does not print the energy of a read at low voltage over that at nominal voltage; its tables give away a ratio
# of 0.694.

# %% tags=["parameters"]
image_size: int = 32  # pixels; the paper prints savings for 32 only; 224: base models in their ImageNet form
energy_ratio: float = 0.694  # energy of one read at low voltage over that at nominal voltage
safe_ber: float = 1e-5  # assumed bit-error rate at nominal voltage, as a fraction
profile: str = "paper"  # whose measured recoveries are drawn beside the published ones

# %% tags=["hide-cell"]
import functools
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from nflib import energy, generators, models, simulate
from nflib.report import Picture, claim, colours, heatmap, panels, published, show, stored

BASES, FRONTS = list(models.LABELS.values()), list(generators.LABELS.values())


@functools.cache
def networks(size):
    """The five base models and six generators, by label."""
    with torch.device("meta" if size > 32 else "cpu"):
        built = {label: models.build(name, 10, size) for name, label in models.LABELS.items()}
        return built | {label: generators.build(name) for name, label in generators.LABELS.items()}


def printed(origin, metric, **more):
    """Printed numbers of a table by (base model, generator), NaN where there is none."""
    lines = published.select(origin=origin, metric=metric, **more).replace("none", np.nan)
    return {(line.base_model, line.generator): line.mean for line in lines.itertuples()}


@functools.cache
def counts(size):
    """A row a network: what one image costs, as the paper counts it and as it is."""
    dataset, rows = {32: "CIFAR-10", 224: "ImageNet-10"}[size], simulate.frame(size).set_index("network")
    table7 = {a if isinstance(a, str) else b: mean for (a, b), mean in printed("table07_params_macs", "MACs_million", dataset=dataset).items()}
    bordered = {"UNetL": generators.UNet(16, zero_border=False), "UNetS": generators.UNet(8, zero_border=False)}
    for label, network in networks(size).items():
        million = energy.macs_as_published(bordered.get(label, network), size, "ResNet" in label and size == 32) / 1e6
        rows.loc[label, "parameters"] = models.parameter_count(network)
        rows.loc[label, "MACs"] = 1000 * round(million / 1000, 2) if million >= 1000 else round(million, 2)
        rows.loc[label, "published_MACs"], rows.loc[label, "true_MACs"] = table7[label], energy.macs(network, size) / 1e6
    return rows


def pairs(size, ratio=energy_ratio):
    """A row a base model and generator: what the pair saves, in per cent, of weight reads, of MACs, and of the whole."""
    table, found = counts(size), pd.DataFrame(product(BASES, FRONTS), columns=["base_model", "generator"])
    base, front = (table.loc[found[name]].reset_index(drop=True) for name in found)
    for name, count in {"ES": "reads", "true ES": "true_reads", "MAC-ES": "published_MACs", "true MAC-ES": "true_MACs"}.items():
        found[name] = energy.energy_saving(base[count], front[count], ratio)
    for name, map_pj in (("", energy.SMALL_PJ), (", maps in 1 MB", energy.LARGE_PJ)):
        parts = {label: energy.accesses(network, size).picojoules(1, map_pj) for label, network in networks(size).items()}
        whole = {label: sum(some.values()) for label, some in parts.items()}
        found[f"share of weight reads{name}"] = [100 * parts[label]["weights"] / whole[label] for label in found["base_model"]]
        lost = found["generator"].map(whole) / found["base_model"].map(whole)
        found[f"whole inference{name}"] = found[f"share of weight reads{name}"] * (1 - ratio) - 100 * lost
    for name, origin in (("ES", "table02_energy_saving"), ("MAC-ES", "table08_mac_es")):
        known = printed(origin, f"{name.replace('-', '_')}_percent") if size == 32 else {}
        found[f"published {name}"] = [known.get(pair, np.nan) for pair in zip(found["base_model"], found["generator"])]
    return found


table, saving = counts(image_size), pairs(image_size)

# %% [markdown]
# ## Weight reads are about half of the energy of an inference
#
# Energy of one image by what takes it, at nominal voltage: reads of weights, reads and writes of feature maps,
# arithmetic. The accesses are those of the paper's accelerator, a 32×32 systolic array. The energies are published ones
# at 45 nm {cite}`horowitz2014computing`: 64 bits of a memory of 1 MB (weights) take 100 pJ, of 32 KB (maps) 20 pJ, a
# multiply-accumulate 0.3 pJ. Low voltage lowers the energy of weight reads only.

# %% tags=["hide-input"]
parts = pd.DataFrame({label: energy.accesses(n, image_size).picojoules() for label, n in networks(image_size).items()}).T / 1e6
figure, (axis,) = panels(1, 4.0)
for k, (name, words) in enumerate({"weights": "weight reads", "maps": "feature maps", "macs": "arithmetic"}.items()):
    left = parts.iloc[:, :k].sum(axis=1)
    axis.barh(parts.index, parts[name], left=left, color=("#222222", "0.55", "0.8")[k], label=words)
axis.invert_yaxis()
axis.set(xlabel="energy of one image (µJ)")
axis.legend(loc="lower right")
Picture(figure, "Energy of one image by network, and by what takes it.", "energy")

# %% tags=["hide-input"]
share, whole, large = (saving[name] for name in ("share of weight reads", "whole inference", "whole inference, maps in 1 MB"))
best, worst = saving.loc[whole.idxmax()], saving.loc[whole.idxmin()]
claim(
    whole.max() < 20 and share.between(50, 75).all(),
    f"Weight reads take {share.min():.0f} to {share.max():.0f} % of a base model's energy. With all that a generator costs, a pair "
    f"saves from {whole.min():.0f} % ({worst['base_model']} with {worst['generator']}) to {whole.max():.0f} % "
    f"({best['base_model']} with {best['generator']}); {sum(whole < 0)} of {len(saving)} pairs cost more than they save.",
)
claim(large.max() < whole.max(), f"If feature maps lie in memories as large as the weights', at most {large.max():.0f} % is saved.")

# %% [markdown]
# ## The pair saves most where the classifier is large and the generator small
#
# Savings in per cent, of weight reads alone and of the whole inference.

# %% tags=["hide-input"]
long = saving.melt(["base_model", "generator"], ["true ES", "whole inference"], "of", "saving")
long["of"] = long["of"].replace("true ES", "weight reads")
heatmap(long, "base_model", "generator", "saving", panel="of", alt="Saving by base model and generator.")

# %% [markdown]
# ## But small generators recover least (Figures 1b, 5 and 6)
#
# Recovery on CIFAR-10 at 1 % bit errors over the saving, as the paper counts both (hollow), and over the true saving
# (filled). Crosses: recovery measured here, with generators that we trained by distillation, not by the paper's
# algorithm.

# %% tags=["hide-input"]
gain, ours = printed("table12_cifar10", "RP", ber_percent=1), stored(profile)
ours = ours[(ours["error_model"] == "ReleaseMap") & (ours["base_recipe"] == "release") & (ours["dataset"] == "CIFAR-10")]
ours = ours[(ours["kind"] == "accuracy") & (ours["training"] == "distillation") & (ours["trained_on"] == ours["base_model"])]
ours = ours[(ours["rate"] == ours["train_rate"]) & (ours["bits"] == 8)].drop_duplicates(["base_model", "generator", "rate"])
here = pairs(32).assign(published=[gain[pair] for pair in product(BASES, FRONTS)])
here = here.merge(ours.loc[ours["rate"] == 0.01, ["base_model", "generator", "recovery"]], how="left")
figure, axes = panels(2, 3.9, sharey=True)
for axis, name in zip(axes, ("ES", "MAC-ES")):
    for generator, some in here.groupby("generator", sort=False):
        colour = colours(FRONTS)[generator]
        axis.plot(some[name], some["published"], "o", color="none", markeredgecolor=colour)
        axis.plot(some[f"true {name}"], some["published"], "o", color=colour, label=generator)
        axis.plot(some[f"true {name}"], some["recovery"], "x", color=colour)
    axis.set(xlabel=f"{name} (%)", ylabel="recovery (points)" if name == "ES" else "")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
Picture(figure, "Recovery over energy saving, for each base model and generator.", "recovery_over_saving")

# %% tags=["hide-input"]
ranks = [spearmanr(some["true ES"], some["published"]).statistic for _, some in here.groupby("base_model")]
claim(max(ranks) < 0, f"For each base model, generators that save more recover less (rank correlation {min(ranks):.2f} to {max(ranks):.2f}).")
by = [saving.groupby(name)["true ES"].agg(np.ptp).max() for name in ("base_model", "generator")]

# %% [markdown]
# ## The paper's counts come out (Tables 6 and 7), with transposed convolutions counted four times
#
# *Reads* are 64-bit reads of the weight memory for one image. The paper replaced transposed convolutions by larger
# plain ones, and counted their arithmetic over output instead of input pixels.

# %% tags=["hide-input"]
same, exact = table["published_reads"] == table["reads"], table["simulated_true_reads"] == table["true_reads"]
macs = np.isclose(table["MACs"], table["published_MACs"])
claim(same.all() and macs.all(), f"All {sum(same)} weight reads of Table 6 and all {sum(macs)} MACs of Table 7 come out as printed.")
claim(exact.all(), f"SCALE-Sim, the simulator that the paper used, counts the true reads of all {sum(exact)} networks as the closed form does.")
more = table["published_MACs"] / table["true_MACs"]
claim(more.max() > 2, f"The printed MACs exceed the true ones by a factor of up to {more.max():.1f} ({more.idxmax()}).")
show(
    table.reset_index(),
    ["network", "parameters", "published_reads", "reads", "true_reads", "published_MACs", "MACs", "true_MACs"],
    "networks",
    f"Weight reads and millions of multiply-accumulates for one image of {image_size}×{image_size} pixels: printed, counted as the paper does, and true.",
)

# %% [markdown]
# ## No single energy ratio gives both Table 2 and Table 8

# %% tags=["hide-input"]
intervals = {}
for name in ("ES", "MAC-ES"):
    free = saving[name] / 100 + energy_ratio  # 1 less the generator's share
    printed_right = saving[[f"published {name}", name]].round(1).diff(axis=1)[name].abs() < 0.01
    intervals[name] = free - (saving[f"published {name}"] + 0.05) / 100, free - (saving[f"published {name}"] - 0.05) / 100
