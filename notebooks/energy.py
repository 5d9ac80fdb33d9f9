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
from nflib.report import PALETTE, Picture, claim, colours, heatmap, panels, published, say, show, stored

BASES, FRONTS = list(models.LABELS.values()), list(generators.LABELS.values())


@functools.cache
def networks(size):
    with torch.device("meta" if size > 32 else "cpu"):
        built = {label: models.build(name, 10, size) for name, label in models.LABELS.items()}
        return built | {label: generators.build(name) for name, label in generators.LABELS.items()}


def printed(origin, metric, **more):
    """Printed numbers of a table by (base model, generator), "none" where there is none."""
    lines = published.select(origin=origin, metric=metric, **more).fillna({"base_model": "none", "generator": "none"})
    return {(line.base_model, line.generator): line.mean for line in lines.itertuples()}


def network_costs(size):
    """A row a network: Tables 6 and 7, printed, counted as the authors did, and true."""
    where, rows = {32: "CIFAR-10", 224: "ImageNet-10"}[size], []
    lines = published.load().query("origin == 'table07_params_macs'")
    lines = lines[lines["dataset"].str.contains(where)]
    printed_macs = lines[lines["metric"] == "MACs_million"]
    plain = {"UNetL": generators.UNet(16, zero_border=False), "UNetS": generators.UNet(8, zero_border=False)}
    for label, network in networks(size).items():
        as_printed = energy.macs_as_published(plain.get(label, network), size, "ResNet" in label and size == 32) / 1e6
        row = {"network": label, "parameters": models.parameter_count(network)}
        here = printed_macs[(printed_macs["base_model"] == label) | (printed_macs["generator"] == label)]
        row["published MACs (M)"] = here["mean"].iloc[0]
        row["MACs as published (M)"] = 1000 * round(as_printed / 1000, 2) if as_printed >= 1000 else round(as_printed, 2)
        rows.append(row | {"true MACs (M)": energy.macs(network, size) / 1e6})
    return pd.DataFrame(rows).merge(simulate.frame(size), on="network")


print(network_costs(32).T.to_string())
