# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What happens when the voltage falls?
#
# **Reading a weight takes less energy, and bits flip: at 83 % of the nominal voltage a read takes 69 % of the energy, and
# 1 % of the bits flip, which changes one weight in thirteen.** Try it below: a classifier with 8-bit weights (a VGG11 of
# a quarter of the paper's width, for CIFAR-10) and the generator ConvL in front of it run in this page. ConvL was trained
# on the paper's loss while images fade in, under 1 % errors of the official map. Each bit of a chip here flips independently
# (BitFlips), and one that flips also flips at every lower voltage. The example is chosen: of the first test image of each
# class, the page starts with one that ConvL rescues on the chip shown.

# %% tags=["parameters"]
profile: str = "desk"  # whose published models are shown
front: str = "conv_l"  # the generator; also conv_s
training: str = "faded_eopm"  # how it was trained; also distilled
trained_under: str = "release_map"  # the error model that it was trained under; also bit_flips
rate: float = 0.01  # bit-error rate that it was trained at, and that the text speaks of, as a fraction
error_models: list[str] = ["bit_flips", "release_map"]  # of the curves
rates: list[float] = [0.0001, 0.0003, 0.001, 0.002, 0.0035, 0.005, 0.01, 0.015]  # of the curves, as fractions
patterns: int = 20  # error patterns of the curves
images: int = 2000  # test images of the curves, the first ones; 0: all
chip: int = 1  # number of the chip that is shown first
chips: int = 10  # from that one on, whose answers the text counts
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from itertools import product

from nflib.study import Cell, base, generator

whole, recipe = base(profile, "cifar10", "vgg11"), generator(profile, front, training, trained_under, rate)
settings = product((None, recipe), error_models, rates)
cells = [Cell(whole, *setting, patterns, images) for setting in settings]

# %% tags=["hide-cell"]
import base64
import json

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML
from torch import nn

import nflib
from nflib import energy, faults, generators
from nflib.names import ROOT, UserError
from nflib.quantize import Quantized
from nflib.report import Picture, arrays, claim, colours, measured, panels, say, stored
from nflib.report.show import keep, to_csv

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAME, FRONT = f"{profile}/cifar10/vgg11", generators.label(front)
NAMED = {"perturbed": "mean", "patterns": "chips"}  # columns, as the page calls them
SYSTEMS = ["alone", f"behind {FRONT}"]
if chip < 0 or not 1 <= chips <= 1000:
    raise UserError(f"chip is {chip}, chips is {chips}; allowed are numbers from 0, and from 1 to 1,000")
base_model = nflib.load(NAME)
transformer = Quantized(nflib.load(f"{NAME}/{front}", training=training, error_model=trained_under, rate=rate))

pictures = stored("paper12")
pictures = pictures[(pictures["kind"] == "transformed_images") & (pictures["dataset"] == "CIFAR-10")]
kept = arrays(pictures[:1])[0]  # the first test images of each class, one of which is shown
labels, places = np.unique(kept["labels"], return_index=True)
shown = kept["images"][places]
pixels = torch.from_numpy(shown).float() * (2 / 255) - 1

rows = measured(cells, profile, measure, device)
rows["system"] = np.where(rows["generator"] == "none", *SYSTEMS)
rows["said"] = [f"{a:.1f} % on average, {b:.1f} % on the worst chip" for a, b in zip(rows["perturbed"], rows["worst"])]
columns = ["error_model", "rate", "system", "clean", "perturbed", "worst", "patterns", "images"]
keep("explainer.csv", to_csv(rows[columns]))
values = [(column, system) for system in SYSTEMS for column in ("perturbed", "worst")]
wide = rows.pivot_table(index=["error_model", "rate"], columns="system", values=["perturbed", "worst"])
wide = wide.reindex(columns=pd.MultiIndex.from_tuples(values))


def text(values):
    """A tensor's or an array's bytes as base64."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def exported(quantized):
    """A network's steps for the page: convolutions by codes, batch norm as a gain and a bias per channel, resizing."""
    steps, names = [], {layer: name for name, layer in quantized.layers.items()}
    for layer in quantized.model:
        if layer in names:
            code, outputs = quantized.codes[names[layer]], layer.weight.shape[0]
            one = {"kind": "conv", "kernel": 1, "activation": "none", "gain": torch.ones(outputs), "bias": layer.bias}
            one |= {"name": f"{len([s for s in steps if s['kind'] == 'conv']) + 1}: {type(layer).__name__}"}
            one |= {"inputs": layer.weight.shape[1], "outputs": outputs, "codes": code}
            if isinstance(layer, nn.Conv2d):
                one |= {"kernel": layer.kernel_size[0]}
            steps.append(one | {"scale": quantized.scales[names[layer]].item()})
        elif isinstance(layer, nn.BatchNorm2d):
            gain = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            steps[-1] |= {"gain": gain, "bias": (steps[-1]["bias"] - layer.running_mean) * gain + layer.bias}
        elif isinstance(layer, (nn.ReLU, nn.Tanh)):
            steps[-1]["activation"] = type(layer).__name__.lower()
        elif isinstance(layer, (nn.MaxPool2d, nn.Upsample)):
            steps.append({"kind": "pool" if isinstance(layer, nn.MaxPool2d) else "up"})
        elif not isinstance(layer, nn.Flatten):
            raise UserError(f"the page cannot compute a layer of type {type(layer).__name__}")
    packed = {"gain", "bias", "codes"}
    return [{key: text(value) if key in packed else value for key, value in step.items()} for step in steps]


page = {
    "classes": CLASSES,
    "images": [text(image) for image in shown], "labels": labels.tolist(),
    "base": exported(base_model),
    "generator": exported(transformer),
    "front": energy.weight_reads(transformer.model) / energy.weight_reads(base_model.model),
    "curve": {"safe": energy.SAFE_BER, "low_ber": energy.LOW_BER, "low_voltage": energy.LOW_VOLTAGE}
    | {"ratio": energy.ENERGY_RATIO},
    "systems": SYSTEMS, "error_model": "BitFlips",  # of the chips that the page draws
    "records": rows[[*columns, "said"]].round({"perturbed": 4, "worst": 4}).rename(columns=NAMED).to_dict("records"),
    **{"rate": rate, "chip": chip},
}


def mixed(x):
    """The finaliser of MurmurHash3 (uint32), by which the page draws chips."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def pattern(number, ber):
    """The error pattern of one of the page's chips, as `faults.perturbed` applies it."""
    cells = np.arange(8 * sum(base_model.sizes.values()), dtype=np.uint32)
    marks = mixed(mixed(cells) ^ mixed(np.array([(number + 0x9E3779B9) % 2**32], np.uint32)))
    toggle = np.packbits(marks < ber * 2**32, bitorder="little")
    found, start = {}, 0
    for name, size in base_model.sizes.items():
        index = np.flatnonzero(own := toggle[start : start + size])
        flips = torch.from_numpy(own[index])
        found[name] = faults.LayerFaults(torch.from_numpy(index), torch.full_like(flips, 255), flips)
        start += size
    return found


def read(number, ber):
    """All codes (int8) as a chip gives them back."""
    codes = {name: codes.clone() for name, codes in base_model.codes.items()}
    for name, errors in pattern(number, ber).items():
        codes[name][errors.index] = errors.read(codes[name][errors.index])
    return torch.cat(list(codes.values())).numpy()


def logits(number, ber):
    """Of the images and of the transformed images on a chip, float32 [2, images, classes]."""
    with torch.inference_mode(), faults.perturbed(base_model, pattern(number, ber)):
        return torch.stack([base_model(pixels), base_model(generators.transform(transformer.model, pixels))]).numpy()


# %% [markdown]
# ## Try it
#
# Slide to the right for a lower voltage. Energy is that of weight reads, in per cent of what the classifier alone takes at
# nominal voltage, at which the generator is always read.

# %% tags=["hide-input"]
right = logits(chip, rate).argmax(2) == labels
page["image"] = int(np.argmax(right[1] & ~right[0]))  # shown first: one that the generator rescues
codes, faulty = torch.cat(list(base_model.codes.values())).numpy(), read(chip, rate)
figure, (left, right) = panels(2, 3.2)
bins = np.arange(-128, 132, 4)
left.hist(codes, bins, log=True, color="0.7", label="stored")
left.hist(faulty, bins, log=True, histtype="step", color=colours(["BitFlips"])["BitFlips"], label=f"read, chip {chip}")
left.set(xlabel="code of a weight", ylabel="weights", title=f"At a BER of {100 * rate:g} %")
left.legend(loc="upper left", fontsize=9)
for system, colour in zip(SYSTEMS, colours(["alone", FRONT]).values()):
    line = rows[(rows["system"] == system) & (rows["error_model"] == page["error_model"])]
    right.semilogx(100 * line["rate"], line["perturbed"], "o-", color=colour, label=system)
    right.semilogx(100 * line["rate"], line["worst"], "--", color=colour)
right.set(xlabel="BER (%)", ylabel="accuracy (%)", title="Mean and worst chip (dashed)", ylim=(0, 100))
right.legend(loc="lower left", fontsize=9)
said = "Left: histogram of the weights' codes, narrow as stored, with far tails as read. Right: accuracy over the BER."
still = Picture(figure, said, "explainer")
static = ROOT / "book" / "_static"
script, style = ((static / f"explainer.{kind}").read_text("utf-8") for kind in ("js", "css"))
data = json.dumps(page, separators=(",", ":")).replace("</", "<\\/")
HTML(
    f"<style>{style}</style><div class='explainer-still' id='explainer-still'>{still._repr_html_()}</div>"
    "<div class='explainer' id='explainer' hidden></div>"
    f"<script type='application/json' id='explainer-data'>{data}</script><script>{script}</script>"
)

# %% [markdown]
# ## Four things to try

# %% tags=["hide-input"]
changed, far = (codes != faulty).mean(), [(np.abs(some.astype(int)) > 64).mean() for some in (codes, faulty)]
claim(
    abs(changed - (1 - (1 - rate) ** 8)) < 0.002 and energy.read_energy(rate) < 0.7,
    f"Slide to {100 * rate:g} % bit errors, {100 * energy.voltage(rate):.0f} % of the nominal voltage: a read takes "
    f"{100 * energy.read_energy(rate):.0f} % of the energy, and {100 * changed:.1f} % of the 8-bit weights change.",
)
claim(
    far[1] > far[0] + rate,
    f"Look at the tails of the histogram there. A flip of the top bit moves a weight by half the range: "
    f"{100 * far[0]:.2f} % of the stored codes lie more than 64 steps from zero, but {100 * far[1]:.2f} % of those read.",
)
drawn = np.stack([logits(number, rate).argmax(2) == labels for number in range(chip, chip + chips)])
clean = (logits(chip, 0.0).argmax(2) == labels).sum(1)
once = drawn.sum(2)
claim(
    (once.max(0) > once.min(0)).any() and once[:, 0].mean() < clean[0],
    f"Draw other chips: of the {len(labels)} images, the classifier alone gets {clean[0]} right without errors, and "
    f"{once[:, 0].min()} to {once[:, 0].max()} on chips {chip} to {chip + chips - 1}. Behind {FRONT} it gets "
    f"{clean[1]} right without errors, and {once[:, 1].min()} to {once[:, 1].max()} on these chips.",
)
if (key := (page["error_model"], rate)) in (both := wide.dropna()).index:
    (alone, alone_worst), (ahead, worst) = (both.loc[key][[("perturbed", s), ("worst", s)]] for s in SYSTEMS)
    lost = both.loc[key[0]]["perturbed"][SYSTEMS[0]].max() - alone
    claim(
        lost > 5,
        f"Follow the curves down to {100 * rate:g} %. The classifier alone keeps {alone:.1f} % accuracy, "
        f"{lost:.1f} points less than at its best; behind {FRONT} it has {ahead:.1f} %. The worst chips have "
        f"{alone_worst:.1f} and {worst:.1f} %.",
    )

# %% [markdown]
# ## The measured accuracies
#
# The curves above are these records: accuracy in per cent under errors, on chips that nflib drew.

# %% tags=["hide-input"]
heads = ["error model", "BER (%)", *(f"{system}{', worst chip' * (name == 'worst')}" for name, system in values)]
lines = [" | ".join(heads), "|".join(["---"] * len(heads))]
for (name, at), row in wide.iterrows():
    lines.append(" | ".join([name, f"{100 * at:g}", *("–" if np.isnan(x) else f"{x:.1f}" for x in row)]))
say("\n".join(f"| {line} |" for line in lines))
clean = " and ".join(f"{some['clean'].max():.1f} % {system}" for system, some in rows.groupby("system"))
say(f"Means over {rows['patterns'].min()} chips, on {rows['images'].min():,} test images. Without errors: {clean}.")

# %% [markdown]
# ## Limits
#
# The paper prints one point of bit-error rate and energy over the voltage; the rest is our assumption
# ([energy](energy.ipynb)). The page hashes chip and cell numbers to draw chips, and computes in floating point, not in
# integers. [How much accuracy does a generator recover?](accuracy.ipynb) has full-size networks.
