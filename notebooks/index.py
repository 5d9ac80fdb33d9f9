# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # NeuralFuse re-examined
#
# Lowering the supply voltage of a chip's weight memory saves energy, but stored bits flip and the classifier fails.
# **NeuralFuse** (NeurIPS 2024) changes neither chip nor classifier. It puts a small network in front, the *generator*,
# which adds a perturbation to each image, so that the classifier still recognises it.
#
# ```{image} ../_static/neuralfuse.svg
# :alt: An image and the generator's perturbation of it are added and enter the classifier, whose weights have flipped bits.
# :class: nflib-picture
# ```
#
# **What we found.** Generators recover much of the lost accuracy; the best narrow ones that we tested, trained on the
# paper's loss, tell the classifier the class. Most of the damage of the official code's "1 % bit errors" comes from a slip
# in its error map. And NeuralFuse rarely pays: a slightly higher voltage saves more energy, and beside a narrow VGG11 half
# of a generator, trained as long, recovers more than all of it in front.
#
# **How far this is a reproduction.** We evaluated as the paper does, mostly on CIFAR-10. Full-size generators on this page
# learned by *distillation*, a shorter training of our own; on the paper's loss, called EOPM, we trained them too
# [briefly](cost_paper12.ipynb) to tell. For narrow networks (*desk scale*) we trained on the paper's loss, while images
# fade in ([method](../method.md)). [Try it yourself](explainer.ipynb): lower the voltage of a classifier in your browser.

# %% tags=["parameters"]
longest: str = "paper"  # the profile of the first two figures: base models of 30 epochs
shorter: str = "paper12"  # the profile of the last one, which has more systems: base models of 12 epochs
narrow: str = "desk"  # the profile of generators that were trained on the paper's loss: networks of a quarter of the width

# %% tags=["hide-cell"]
import numpy as np
import pandas as pd

from nflib import generators
from nflib.report import bars, claim, ladder, page, paired, span, stored

LARGE = ["ConvL", "DeConvL", "UNetL"]


def vgg11(profile, **wanted):
    """Rows of the VGG11 on CIFAR-10 of a profile, at a bit-error rate of 1 %, with the values wanted."""
    wanted = {"dataset": "CIFAR-10", "base_model": "VGG11", "base_recipe": "release", "rate": 0.01} | wanted
    rows = stored(profile)
    rows = rows[np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])]
    return rows[(rows["base_seed"] == 0) & (rows["generator_seed"] == 0)]


# %% [markdown]
# ## Generators recover much of the lost accuracy

# %% tags=["hide-input"]
whole = vgg11(longest, kind="accuracy", patterns=50)
released = whole[whole["error_model"] == "ReleaseMap"]
behind = released[(released["training"] == "distillation") & (released["trained_on"] == "VGG11")]
desk = vgg11(narrow, kind="accuracy", patterns=20, error_model="ReleaseMap", trained_on="VGG11")
longer = desk[(desk["training"] == "faded EOPM") & (desk["generator"] == "ConvL")].nlargest(1, "steps").iloc[0]
desk = desk[desk["steps"] <= 7000].sort_values("steps").drop_duplicates(["generator", "training"], keep="last")  # the usual length
loss = desk[(desk["training"] == "faded EOPM") & desk["generator"].isin(generators.LABELS.values())].sort_values("generator")
sides = [behind.assign(scale="full size, by distillation")]
sides.append(loss.assign(scale="narrow, on the paper's loss", published_perturbed=np.nan))
shown = pd.concat(sides)
ladder(shown, panel="scale", alt="Accuracy of VGG11 under errors without and with each generator.", name="recovery")

# %% tags=["hide-input"]
share = (behind["recovery"] / (behind["clean_alone"] - behind["perturbed_alone"]))[behind["generator"].isin(LARGE)]
best = loss.loc[loss["recovery"].idxmax()]
claim(
    share.min() > 0.6 and (loss["recovery"] > 2 * loss["recovery_se"]).all(),
    "Accuracy of VGG11 on CIFAR-10 under 1 % bit errors, alone (hollow) and behind a generator (filled; bar: standard "
    f"deviation over chips). Left: full size, from {behind['perturbed_alone'].iloc[0]:.1f} to at most "
    f"{behind['perturbed'].max():.1f} %; red diamonds are the paper's values ([more](accuracy.ipynb)). Right: narrow "
    f"networks, from {best['perturbed_alone']:.1f} to at most {best['perturbed']:.1f} %, after "
    f"{best['training_minutes']:.0f} minutes of training on one CPU core ([more](accuracy_desk.ipynb)).",
)
claim(
    longer["perturbed"] > best["perturbed"] + 5 and longer["clean_alone"] - longer["clean"] < 1,
    f"Training counts: after {longer['training_minutes'] / 60:.0f} hours, four times as many steps, the narrow ConvL reaches "
    f"{longer['perturbed']:.1f} % under errors and {longer['clean']:.1f} without ([more](cost.ipynb)).",
)
told = page("scoreboard", "stored")["told"]
apart = told.assign(gap=told["difference"].abs()).groupby(["size", "column"])["gap"].agg(["median", "size"])
large, small = apart.loc["L"], apart.loc["S"]
claim(
    large.loc["clean", "median"] < 1 and large.loc["perturbed", "median"] < 3 < small["median"].min(),
    f"Beside the paper: behind large distilled generators, half of {large.loc['clean', 'size']} accuracies without errors are within "
    f"{large.loc['clean', 'median']:.1f} points of the published value and half of {large.loc['perturbed', 'size']} under errors within "
    f"{large.loc['perturbed', 'median']:.1f}; behind small ones within {small.loc['clean', 'median']:.1f} and "
    f"{small.loc['perturbed', 'median']:.1f}. Most published numbers have no counterpart here ([more](scoreboard.ipynb)).",
)
rows = stored(longest).query("dataset == 'CIFAR-10' and training == 'distillation' and error_model == 'ReleaseMap' and rate == 0.01")
rows = rows[(rows["kind"] == "accuracy") & (rows["trained_on"] == rows["base_model"]) & (rows["patterns"] == 50)]
price, slower = rows["clean_alone"] - rows["clean"], page("overhead", longest)["small"]["overhead"]
at_most, much = (price[rows["generator"].isin(LARGE) == is_large] for is_large in (True, False))
claim(
    at_most.max() < 6 < much.min() and 5 < slower.min() and slower.max() < 40,
    f"What a generator costs: without errors, a large one changes the accuracy of VGG11 or ResNet18 by {span(-at_most)} points, a "
    f"small one by {span(-much)} ([more](accuracy.ipynb)); on a CPU, with one image at a time, ResNet18 and VGG19 take "
    f"{span(slower, 0)} % longer ([more](overhead.ipynb)).",
)

# %% [markdown]
# ## "1 % bit errors" can mean very different damage

# %% tags=["hide-input"]
page("error_models", longest)["bits"]

# %% tags=["hide-input"]
alone = whole[whole["generator"] == "none"].set_index("error_model")
lost = alone["clean"] - alone["perturbed"]
claim(
    2.5 < lost["ReleaseMap"] / lost["StuckAt"] < 4,
    "Faulty bits of one layer on one chip (dots). The official code's map (left) repeats each faulty cell in 16 weights, "
    f"and the same VGG11 keeps {alone.loc['ReleaseMap', 'perturbed']:.1f} % accuracy; with as many independent faulty "
    f"cells (right) it keeps {alone.loc['StuckAt', 'perturbed']:.1f} %. If instead 1 % of all "
    f"bits flip independently, twice as many, it keeps {alone.loc['BitFlips', 'perturbed']:.1f} % ([more](error_models_paper.ipynb)).",
)

# %% [markdown]
# ## Generators that recover much tell the classifier the class

# %% tags=["hide-input"]
swapped = vgg11(narrow, kind="transformed_images", error_model="ReleaseMap")
swapped = swapped[swapped["generator"] == "ConvL"].sort_values(["training", "steps"]).drop_duplicates("training", keep="last")
gains = swapped["training"].map(desk[desk["generator"] == "ConvL"].set_index("training")["recovery"])
swapped["name"] = swapped["training"] + gains.map("\nrecovers {:.0f} points".format)
parts = {"swapped_image": "the image", "swapped_perturbation": "the perturbation"}
answers = swapped.rename(columns=parts).melt("name", list(parts.values()), "follow", "answers that follow … (%)")
said = "Share of answers that follow the image or the swapped perturbation, by generator."
bars(answers, "name", "answers that follow … (%)", "follow", alt=said, name="swap", xlim=(0, 100))

# %% tags=["hide-input"]
faded = swapped[swapped["training"] == "faded EOPM"].iloc[0]
claim(
    faded["swapped_perturbation"] > 2 * faded["swapped_image"],
    "Each image gets the perturbation that ConvL made for an image of another class (narrow VGG11, no bit errors; left: "
    f"how ConvL was trained). After the most effective training, *faded EOPM*, which is the paper's loss while images fade "
    f"in, the classifier answers with the perturbation's class in {faded['swapped_perturbation']:.0f} % of cases and with "
    f"the image's in {faded['swapped_image']:.0f} % ([more](mechanism.ipynb)).",
)

# %% [markdown]
# ## A higher voltage saves more than any generator

# %% tags=["hide-input"]
ranks = page("tradeoff", shorter)["ranks"]
ranks = ranks[ranks["setting"].str.contains("VGG11.*release.*ReleaseMap")].set_index("system")
words = {"alone": "higher voltage, no generator", "trained: clipped": "classifier trained with clipping"}
words |= {"SECDED": "error-correcting code", "parity, zero on error": "parity, faulty weights set to 0"}
words |= {name: f"generator {name}" for name in (*LARGE, "ConvS")}
fronts = [name for name in ranks.index if name in (*LARGE, "ConvS")]
places = ["alone", *fronts, *ranks.index[ranks["change"] == "the memory"], "trained: clipped"]
points = {"at_1": "1 point of accuracy lost", "at_5": "5 points of accuracy lost"}
saving = ranks.loc[places].rename(index=words, columns=points).reset_index()
saving = saving.melt("system", list(points.values()), "lost", "largest net saving of weight-read energy (%)")
said = "Largest net saving of weight-read energy at one and at five points of accuracy lost, by system."
bars(saving, "system", "largest net saving of weight-read energy (%)", "lost", alt=said, name="saving")

# %% tags=["hide-input"]
pairs = ranks.loc[fronts, "at_1"]
claim(
    pairs.max() < ranks.loc["alone", "at_1"] / 2,
    f"Where one point of accuracy may be lost, a full-size VGG11 of 12 epochs saves {ranks.loc['alone', 'at_1']:.0f} % of the energy "
    f"of weight reads at a slightly higher voltage, without a generator, and {pairs.max():.0f} % behind the best of "
    f"{len(pairs)} generators, all trained by distillation ([more](tradeoff.ipynb)).",
)

# %% [markdown]
# ## With the voltage fixed, other changes can recover more

# %% tags=["hide-input"]
(low, low_se, other), (gap, error, name) = (some(page("tradeoff", shorter)["gaps"]) for some in (min, max))
claim(
    gap > 2 * error and abs(low) < 2 * low_se,
    f"At 1 % bit errors, distilled {name} in front of a full-size VGG11 trained without weight decay is {gap:.1f} ± {error:.1f} points "
    "more accurate than the best change of the memory or the stored codes; in front of one trained with weight decay, where "
    f"{name} was not measured, {other} is not ({low:.1f} ± {low_se:.1f}; [more](tradeoff.ipynb)).",
)
norm = vgg11(narrow, kind="mitigation", mitigation="batch_norm", error_model="ReleaseMap").iloc[0]
gap, error = paired(norm["accuracies"], best["accuracies"])
wide = desk[desk["generator"] == "ConvL, twice as wide"].iloc[0]
claim(
    gap > 2 * error and wide["perturbed"] > norm["perturbed"],
    "In a narrow VGG11, where we measured it, a small change of the classifier helps more than 7,000 steps of training any of the "
    "six generators: new batch-norm statistics, taken on each chip from 1,000 images without labels, give "
    f"{norm['perturbed']:.1f} % accuracy, {gap:.1f} ± {error:.1f} points above the best ([more](tradeoff_desk.ipynb)). A ConvL twice as "
    f"wide, which computes more than the classifier, has {wide['perturbed']:.1f} %, one trained four times as long "
    f"{longer['perturbed']:.1f} %.",
)
front, beside = (some[some["generator"] == name].iloc[0] for some, name in ((loss, "ConvL"), (desk, "ConvL encoder in parallel")))
half = vgg11(narrow, base_model="ConvL encoder", base_recipe="modern", kind="accuracy").iloc[0]
gap, error = paired(beside["accuracies"], front["accuracies"])
claim(
    gap > 2 * error and beside["clean"] > front["clean"] and half["clean"] > beside["perturbed"],
    "And the input is not the best place for the added network: half of ConvL beside the same classifier, their outputs added, "
    f"trained equally long, gives {beside['perturbed']:.1f} % under errors, {gap:.1f} ± {error:.1f} points more than ConvL in front, "
    f"and {beside['clean']:.1f} instead of {front['clean']:.1f} % without errors. Trained as a classifier of its own, that half is "
    f"{half['clean']:.1f} % accurate at nominal voltage ([more](variants.ipynb)).",
)

# %% [markdown]
# ## Where to go
#
# * **Students** start with [what happens when the voltage falls](explainer.ipynb) and the [method](../method.md), then
#   see [why it works](mechanism.ipynb); the [glossary](../glossary.md) has the terms.
# * **Engineers** read [does it pay](tradeoff.ipynb), [energy](energy.ipynb), [time](overhead.ipynb) and
#   [which bits and layers matter](sensitivity.ipynb).
# * **Reviewers** open the [scoreboard](scoreboard.ipynb), [what reviewers asked](questions.ipynb) and
#   [the official code](../official_code.md); every number has its [provenance](provenance.ipynb).
# * **Researchers** [re-run](../rerun.md) any page with other parameters, load [trained models](published.ipynb), or
#   [add something of their own](../extend.md).
#
# **The paper:** Sun et al., [NeuralFuse](https://arxiv.org/abs/2306.16869) (arXiv 2306.16869), NeurIPS 2024. **Official
# code:** [github.com/IBM/NeuralFuse](https://github.com/IBM/NeuralFuse). **Licence and citation** of this study
# (Apache-2.0, `CITATION.cff`): [how to cite](../cite.md).
