# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Does a generator trained on clean images help on corrupted ones?

# %% [markdown] tags=["paper12"]
# **UNetL does: on noisy, blurred, dark and low-contrast images it still recovers at least two thirds of the accuracy
# that bit errors take away. ConvS recovers little under noise and low contrast.** We measured a full-size VGG11 on
# CIFAR-10 with 1 % bit errors under the official code's error map. The generators were trained by distillation, not by
# the paper's algorithm ([method](../method.md)).

# %% [markdown] tags=["desk"]
# **Partly: generators that were trained on the paper's loss still recover accuracy of a narrow VGG11 on corrupted images,
# but under noise far less than on clean ones.** We measured on CIFAR-10 with 1 % bit errors under the official code's
# error map. In training, images faded in (*faded EOPM*, [method](../method.md)).

# %% [markdown]
# The corruptions have the middle severity of a common benchmark {cite}`hendrycks2019benchmarking`: Gaussian noise
# (standard deviation 8 % of the range), blur (0.7 pixels) and low contrast (40 %); darkening (by 15 % of the range) is
# the counterpart of its brightening. No network was trained on them. All comparisons are on the same images and chips.

# %% [markdown] tags=["paper12"]
# A distilled generator learns to choose a perturbation by the image's class ([why it works](mechanism.ipynb)), so it may
# fail where classifiers fail. We therefore also measured class-wise perturbations selected by a separate classifier.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper12", "paper": full size
dataset: str = "digits"  # also cifar10, cifar100, gtsrb, or the name of your own file in data/
base_models: list[str] = ["vgg11"]  # also resnet18, resnet50, vgg16, vgg19
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generators: list[str] = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
training: str = "eopm"  # "eopm": the paper's loss; "distilled": class-wise perturbations
selectors: list[str] = []  # whose encoders select class-wise perturbations: conv_l, conv_s, unet_l, unet_s
shifts: list[str] = ["noise", "dark"]  # corruptions of the test images; also blur, low_contrast
error_models: list[str] = ["release_map"]  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate of training and of measurement, as a fraction
patterns: int = 10  # error patterns (chips)
images: int = 0  # test images, the first ones; 0: all
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from dataclasses import replace
from itertools import product

from nflib.study import Cell, base, generator, selector, settings

cells = []
for model, errors in product(base_models, settings(error_models, [rate])):
    whole, counts = base(profile, dataset, model, base_recipe), (patterns, images)
    systems = [Cell(whole, None, *errors, *counts)]
    systems += [Cell(whole, generator(profile, name, training, *errors), *errors, *counts) for name in generators]
    by_class = generator(profile, "class_wise", "eopm", *errors)
    encoders = [selector(profile, dataset, name) for name in selectors]
    systems += [Cell(whole, by_class, *errors, *counts, selector=encoder) for encoder in encoders]
    cells += [each for cell in systems for each in (cell, *(replace(cell, kind="shift", shift=s) for s in shifts))]

# %% tags=["hide-cell"]
import numpy as np

from nflib.report import COLOURS, Picture, claim, colours, measured, panels, show, span

CLEAN = "clean"
rows = measured(cells, profile, measure, device)
rows["images are"] = rows["shift"].replace("none", CLEAN).str.replace("_", " ")
rows["setting"] = rows["dataset"] + ", " + rows["base_model"] + ", " + rows["error_model"]
rows["share"] = 100 * rows["recovery"] / (rows["clean_alone"] - rows["perturbed_alone"])
rows["cost"] = rows["clean_alone"] - rows["clean"]  # of what stands in front, without errors
alone, behind = rows[rows["system"] == "alone"], rows[rows["system"] != "alone"]
corrupted, plain = (behind[(behind["images are"] != CLEAN) == moved] for moved in (True, False))

# %% [markdown]
# ## Generators still recover accuracy, least under noise
#
# Filled: accuracy under errors, with the standard deviation over chips. Hollow: the same system without errors.

# %% tags=["hide-input"]
names, places = list(dict.fromkeys(rows["setting"])), [CLEAN, *(s.replace("_", " ") for s in shifts)]
systems = list(dict.fromkeys([*alone["system"], *behind.sort_values("selector", key=lambda s: s != "none")["system"]]))
paint = colours(systems) | dict.fromkeys(behind["system"][behind["selector"] != "none"], COLOURS["the perturbation"])
figure, axes = panels(len(names), 1.4 + 0.2 * len(systems) * len(places), columns=1)
for axis, setting in zip(axes, names):
    for row in rows[rows["setting"] == setting].to_dict("records"):
        k = systems.index(row["system"])
        y, colour = places.index(row["images are"]) + 0.8 * ((k + 0.5) / len(systems) - 0.5), paint[row["system"]]
        axis.plot(row["clean"], y, "o", color="white", markeredgecolor=colour)
        axis.errorbar(row["perturbed"], y, xerr=row["std"], fmt="o", color=colour, markersize=5)
    for line in range(len(places) - 1):
        axis.axhline(line + 0.5, color="0.8", linewidth=1)
    axis.grid(False, axis="y")
    axis.set_yticks(range(len(places)), places)
    axis.set(xlim=(0, 100), ylim=(len(places) - 0.5, -0.5), xlabel="accuracy (%)", title=setting)
handles = [axes[0].plot([], [], "o", color=paint[system], label=system)[0] for system in systems]
figure.legend(handles=handles, loc="outside lower center", ncols=2)
Picture(figure, f"Accuracy with and without errors of {', '.join(systems)} on images: {', '.join(places)}.", "shift")

# %% tags=["hide-input"]
fronts = corrupted[corrupted["selector"] == "none"]
for name, some in fronts.groupby("generator", sort=False):
    usual, least = plain[plain["generator"] == name].iloc[0], some.loc[some["recovery"].idxmin()]
    claim(
        least["shift"] == "noise" and usual["recovery"] - least["recovery"] > 2 * 2**0.5 * usual["recovery_se"],
        f"{name} recovers {usual['recovery']:.1f} points on clean images ({usual['share']:.0f} % of the loss), "
        f"{span(some['recovery'])} on corrupted ones ({span(some['share'], 0)} %); the fewest under noise.",
    )
sure = corrupted["recovery"] > 2 * corrupted["recovery_se"]
said = f"Recovery is above two standard errors everywhere: in {sure.sum()} of {len(sure)} corrupted settings."
claim(sure.all(), said)

# %% tags=["hide-input", "paper12"]
large = fronts[fronts["generator"] == "UNetL"]
claim(
    large["share"].min() > 66,
    f"On every corruption UNetL recovers more than two thirds of what errors cost there: {span(large['share'], 0)} %.",
)

# %% [markdown]
# ## Without errors, a generator can cost more on corrupted images

# %% tags=["hide-input"]
worst = fronts.loc[fronts["cost"].idxmax()]
usual = plain.set_index(["setting", "system"])["cost"].get((worst["setting"], worst["system"]), np.nan)
claim(
    worst["cost"] - usual > 2 * 100 / worst["images"] ** 0.5,  # four accuracies, each of at most 50 % ± 50/√images
    f"{worst['generator']} costs {worst['cost']:.1f} points without errors on images with {worst['images are']}, and "
    f"{usual:.1f} on clean ones.",
)
for name, some in corrupted[corrupted["selector"] != "none"].groupby("selector", sort=False):
    left = (some["clean"] - some["perturbed"]).max()
    claim(
        left < 1 and (some["recovery"] > 2 * some["recovery_se"]).all(),
        f"With class-wise perturbations selected by the {name}, bit errors cost at most {left:.1f} points on any "
        f"corruption; under errors accuracy is {span(some['perturbed'])} %.",
    )

# %% [markdown]
# ## All settings

# %% tags=["hide-input"]
columns = ["system", "images are", "clean", "perturbed", "std", "recovery", "recovery_se", "share"]
how = " and ".join(fronts["training"].unique())
caption = f"Generators were trained on clean images by {how}. "
caption += "Share: recovery in per cent of what errors cost the base model alone on the same images."
show(rows, columns, "shift", caption)

# %% [markdown]
# ## Limits
#
# This is one base model, each network trained once, and four corruptions at one severity. Recovery is relative to the
# base model under errors on the same corrupted images; it does not undo what the corruption itself costs. A share above
# 100 % means more accuracy than the classifier alone has without errors.
