# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How much accuracy does a generator recover?
#
# **Large generators recover most of what bit errors take away; small ones recover about half of it.** The page shows accuracy on
# CIFAR-10 under bit errors at 1 %, for full-size classifiers with the error map of the official code. The generators were trained by
# distillation, not by the paper's algorithm: they learned to reproduce class-wise perturbations ([method](../method.md)).
#
# A base model is measured under many error patterns ("chips"): alone (PA), and behind a generator that was trained for it under the
# same error model and bit-error rate (PA(NF)). Their paired difference is the recovery RP. These are the paper's Tables 12 to 15 and
# its Figure 3.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper12", "paper": full size
datasets: list[str] = ["digits"]  # also cifar10, cifar100, gtsrb, imagenette224, or the name of your own file in data/
base_models: list[str] = ["resnet18", "resnet50", "vgg11", "vgg16", "vgg19"]
base_recipes: list[str] = ["release"]  # "release": no weight decay, as the official code; "modern": weight decay
generators: list[str] = ["conv_l", "unet_s"]  # also conv_s, deconv_l, deconv_s, unet_l
trainings: list[str] = ["eopm"]  # "eopm": the paper's loss; "distilled": class-wise perturbations; "distilled_eopm": both
error_models: list[str] = ["release_map"]  # also bit_flips, stuck_at, chip_map:PATH
rates: list[float] = [0.01]  # bit-error rates, as fractions
patterns: int = 10  # error patterns (chips)
images: int = 0  # test images, the first ones; 0: all
measure: bool = True  # False: stored records only
device: str = "auto"

# %% tags=["cells"]
from itertools import product

from nflib.study import Cell, base, generator, settings

cells = []
for dataset, model, recipe in product(datasets, base_models, base_recipes):
    for error_model, rate in settings(error_models, rates):
        whole, errors = base(profile, dataset, model, recipe), (error_model, rate)
        cells.append(Cell(whole, None, *errors, patterns, images))
        cells += [Cell(whole, generator(profile, name, how, *errors), *errors, patterns, images) for name, how in product(generators, trainings)]

# %% tags=["hide-cell"]
from nflib.report import claim, figures, ladder, measured, panels, say, show

rows = measured(cells, profile, measure, device)
behind = rows[rows["generator"] != "none"].copy()
behind["setting"] = behind["dataset"] + ", " + behind["base_model"] + ", " + behind["error_model"]

# %% [markdown]
# ## Large generators recover most of the loss
#
# Hollow circles are the base model alone, filled ones the same chips behind a generator; the bar is the standard deviation over chips.
# A red diamond is the paper's number.

# %% tags=["hide-input"]
top = behind[behind["rate"] == behind["rate"].max()]
ladder(top, panel="setting", alt="Accuracy under errors without and with each generator.", name="recovery")

# %% tags=["hide-input"]
large = behind[behind["generator"].isin(["ConvL", "DeConvL", "UNetL"])]
small = behind[behind["generator"].isin(["ConvS", "DeConvS", "UNetS"])]
share = (large["recovery"] / (large["clean_alone"] - large["perturbed_alone"])).median()
claim(share > 0.6, f"A large generator recovers {100 * share:.0f} % of the lost accuracy in the median of {len(large)} settings.")
claim(
    large["recovery"].median() > small["recovery"].median(),
    f"Small generators recover less: {small['recovery'].median():.1f} points in the median, large ones {large['recovery'].median():.1f}.",
)
sure = behind["recovery"] > 2 * behind["recovery_se"]
claim(sure.mean() > 0.9, f"Recovery is above two standard errors in {sure.sum()} of {len(behind)} settings.")

# %% [markdown]
# ## The bad chips gain most
#
# Each dot is one chip. Where the mean rises, the spread usually falls: a generator helps the chips that lose most.

# %% tags=["hide-input"]
one = top[top["setting"] == top["setting"].iloc[0]]
figure, (axis,) = panels(1, 3.2)
paint = figures.colours(["alone", *one["generator"]])
shown = {"alone": rows[rows["digest"].isin(rows.loc[(rows["generator"] == "none") & (rows["base_model"] == one["base_model"].iloc[0]), "digest"])].iloc[0]["accuracies"]}
shown |= {row.generator: row.accuracies for row in one.itertuples()}
for place, (name, values) in enumerate(shown.items()):
    axis.plot([place + 0.25 * ((k * 0.618) % 1 - 0.5) for k in range(len(values))], sorted(values), "o", color=paint[name], alpha=0.6)
axis.set_xticks(range(len(shown)), shown, rotation=20)
axis.set(ylabel="accuracy under errors (%)", ylim=(0, 100), title=one["setting"].iloc[0])
figures.Picture(figure, "Accuracy of each chip, alone and behind each generator.", "chips")

# %% [markdown]
# ## The table

# %% tags=["hide-input"]
show(
    rows,
    ["dataset", "base_model", "generator", "training", "rate", "perturbed_alone", "perturbed", "published_perturbed"],
    "accuracy",
    "Accuracy in per cent, means over chips. The column training says how each generator was trained; the paper trained by EOPM on the official recipe.",
)

# %% [markdown]
# ## Limits
#
# Where the column *training* says distillation, agreement with the paper is agreement of results, not of the way to them. The base models
# differ from the paper's, which were not published: without a generator their accuracy under errors differs too.

# %% tags=["hide-input"]
cost = (behind["clean_alone"] - behind["clean"]).median()
say(f"Without errors, a generator costs {cost:.1f} points of accuracy in the median.")
