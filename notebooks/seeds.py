# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Do trainings with other seeds agree?
#
# **For a distilled ConvS in front of one base model, yes: three trainings agree within a point. But which chips are bad
# depends on the training of the base model.** We trained a full-size VGG11 on CIFAR-10 twice and ConvS four times by
# distillation, three times in front of the first and once in front of the second, and measured all of them on the same
# chips with 1 % bit errors of the official code's error map. No other generator, and no training on the paper's loss, was
# repeated.
#
# The paper trains each network once and prints the standard deviation over ten chips, which does not include the effect
# of training. Another seed means other initial weights, another order of images, other augmentation and other error
# patterns in training. A distilled generator shares its seed with the class-wise perturbations that it learns from.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper12", "paper": full size
dataset: str = "digits"  # also cifar10, cifar100, gtsrb, or the name of your own file in data/
base_models: list[str] = ["vgg11"]  # also resnet18, resnet50, vgg16, vgg19
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generators: list[str] = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
training: str = "eopm"  # also "distilled", "distilled_eopm"
error_models: list[str] = ["release_map"]  # also bit_flips, stuck_at, chip_map:PATH
rates: list[float] = [0.01]  # bit-error rates, as fractions
seeds: int = 2  # trainings of each base model, and of each generator on the first of them
patterns: int = 10  # error patterns (chips)
images: int = 0  # test images, the first ones; 0: all
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from itertools import product

from nflib.study import Cell, base, generator, settings

cells = []
for model, errors in product(base_models, settings(error_models, rates)):
    wholes = [base(profile, dataset, model, base_recipe, seed=seed) for seed in range(seeds)]
    cells += [Cell(whole, None, *errors, patterns, images) for whole in wholes]
    for name in generators:
        recipes = [generator(profile, name, training, *errors, seed=seed) for seed in range(seeds)]
        pairs = [(whole, recipes[0]) for whole in wholes] + [(wholes[0], recipe) for recipe in recipes[1:]]
        cells += [Cell(whole, recipe, *errors, patterns, images) for whole, recipe in pairs]

# %% tags=["hide-cell"]
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from nflib.report import claim, ladder, measured, paired, scatter, show, span

rows = measured(cells, profile, measure, device).sort_values(["base_seed", "generator_seed"], kind="stable")
rows["setting"] = rows["base_model"] + ", " + rows["error_model"] + " " + (100 * rows["rate"]).map("{:g} %".format)
alone, behind = rows[rows["generator"] == "none"], rows[rows["generator"] != "none"].copy()
names = behind["generator"] + " seed " + behind["generator_seed"].astype(str)
behind["trained"] = names + ", base model seed " + behind["base_seed"].astype(str)
again = behind[behind["base_seed"] == 0]  # only the generator was trained again
replaced = behind[behind["generator_seed"] == 0]  # base model and generator were trained again
key = ["setting", "generator", "training"]


def agreement(some):
    """The lowest correlation over chips between two trainings; NaN for fewer than two."""
    return min((np.corrcoef(a, b)[0, 1] for a, b in combinations(some["accuracies"], 2)), default=np.nan)


# %% [markdown]
# ## Trainings of a distilled ConvS agree within a point
#
# A line is one pair of trained networks. Hollow: the base model alone; filled: the same chips behind the generator,
# with the standard deviation over chips. Red diamond: the published value, of one EOPM training; the table names ours.

# %% tags=["hide-input"]
ladder(behind, by="trained", panel="setting", hue="generator", alt="Accuracy under errors of each training.")

# %% tags=["hide-input"]
for (setting, name, how), some in again.groupby(key, sort=False):
    reach = some["perturbed"].max() - some["perturbed"].min()
    claim(
        len(some) > 1 and reach < 1,
        f"{setting}: {len(some)} trainings of {name} by {how} give {span(some['perturbed'])} % under errors; one training's "
        f"standard deviation over chips is {some['std'].mean():.1f} points.",
    )
for (setting, name, how), some in replaced.groupby(key, sort=False):
    claim(
        some["recovery"].max() - some["recovery"].min() < 2 * some["recovery_se"].max(),
        f"{setting}: recovery is {span(some['recovery'])} points over {len(some)} "
        f"base models, each with its own {name}: a difference within two standard errors.",
    )

# %% [markdown]
# ## Which chips are bad depends on the base model
#
# A dot is one chip: its accuracy with the first training against that with another, of the base model (alone) or of its
# generator. Where dots lie along the diagonal, both trainings suffer from the same chips.

# %% tags=["hide-input"]
x, y = "accuracy of a chip, first training (%)", "the same chip, another training (%)"
chips, here = [], pd.concat([alone, again])
for system, some in here[here["setting"] == here["setting"].iloc[0]].groupby("system", sort=False):
    first, *others = some["accuracies"]
    chips += [pd.DataFrame({"system": system, x: first, y: other}) for other in others]
said = "Accuracy of each chip with one training against another, of the base model alone and behind a generator."
scatter(pd.concat(chips), x, y, "system", alt=said, name="seeds", xlim=(0, 100), ylim=(0, 100), aspect="equal")

# %% tags=["hide-input"]
for setting, some in alone.groupby("setting", sort=False):
    gaps = [paired(a, b) for a, b in combinations(some["accuracies"], 2)]
    gap, error = max(gaps, key=lambda pair: abs(pair[0]), default=(np.nan, np.nan))
    alike = again[again["setting"] == setting].groupby("generator").apply(agreement, include_groups=False).min()
    claim(
        agreement(some) < 0.7 and alike > 0.9,
        f"{setting}: the correlation over chips is {agreement(some):.2f} between two base models and at least "
        f"{alike:.2f} between two trainings of {' and '.join(again['generator'].unique())}.",
    )
    claim(
        abs(gap) < 2 * error,
        f"The means of the base models differ by {abs(gap):.1f} ± {error:.1f} points under errors, which is not "
        f"significant over {some['patterns'].iloc[0]} chips, and by {some['clean'].max() - some['clean'].min():.1f} "
        "points without errors.",
    )

# %% [markdown]
# ## How far two generators must differ
#
# Two generators, each trained once, differ by chance. A difference exceeds chance with 95 % confidence when it is
# larger than √2 times the standard deviation over trainings times Student's *t*, which is large for few trainings.

# %% tags=["hide-input"]
for (setting, name, _), some in again.groupby(key, sort=False):
    least = stats.t.ppf(0.975, max(len(some) - 1, 1)) * 2**0.5 * some["perturbed"].std(ddof=1)
    claim(
        least < some["std"].mean(),
        f"{setting}: if other generators vary as {name} does, a smaller difference than {least:.1f} points between two of "
        "them, on the same chips, may be chance.",
    )

# %% [markdown]
# ## The table

# %% tags=["hide-input"]
columns = ["system", "training", "base_seed", "generator_seed", "clean", "perturbed", "std", "recovery"]
show(rows, columns, "seeds", "Means over the same chips; one row per training.")

# %% [markdown]
# ## Limits
#
# These are few trainings, of one architecture and one small, distilled generator. A standard deviation from so few is itself
# uncertain by half its size. EOPM training, which the paper uses, may vary more; standard errors on other pages, which are
# over chips, leave the chance of training out.
