# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where should the added network stand?
#
# **Beside the classifier, not in front of it: ConvL's encoder there recovers 34 points of what bit errors take from a
# narrow VGG11, and all of ConvL in front 22. But that encoder alone, trained as a classifier, is more accurate at
# nominal voltage than both together under errors.** After the first block, ConvL's layers recover 2.6 ± 1.5 points less
# than in front, at a third of the cost. Twice as wide, ConvL in front reaches the mean accuracy of its encoder beside,
# with three times the spread over chips, and computes twice as much as the classifier. CIFAR-10, 1 % bit errors of the
# official code's error map.
#
# All networks here have what a generator has: a memory without errors, a frozen classifier, and training on the paper's
# loss while the path beside them fades in (*faded EOPM*, [method](../method.md)). An *adapter* after block 1 or 2 adds
# A(h) to the classifier's maps h where these are halved for the first or second time. *In parallel* stands a generator's
# encoder with a linear layer; its outputs are added to the classifier's. Reviewers asked for both.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper": full size
dataset: str = "digits"  # also cifar10, cifar100, gtsrb, or the name of your own file in data/
base_model: str = "vgg11"  # also resnet18, resnet50, vgg16, vgg19
network: str = "conv_l"  # what is moved; also conv_s, unet_l, unet_s
places: list[str] = ["block 1", "beside"]  # beside the input; also block 2
generators: list[str] = ["conv_l_shallow"]  # other forms, in front; also conv_l_deep, conv_l_narrow, conv_l_wide, conv_l_leaky
training: str = "faded_eopm"  # "eopm": the paper's loss at full brightness throughout
error_model: str = "release_map"  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate of training and of measurement, as a fraction
patterns: int = 10  # error patterns (chips)
images: int = 0  # test images, the first ones; 0: all
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from nflib.study import Cell, base, generator, selector

whole, errors = base(profile, dataset, base_model), (error_model, rate)
moved = [generator(profile, network, training, *errors, place=place) for place in ("", *places)]
built = [generator(profile, name, training, *errors) for name in generators]
cells = [Cell(whole, front, *errors, patterns, images) for front in (None, *moved, *built)]
cells.append(Cell(selector(profile, dataset, network), None, *errors, patterns, images))  # the encoder, a classifier alone

# %% tags=["hide-cell"]
from nflib.report import claim, ladder, measured, paired, show, span
from nflib.study.runner import macs

rows = measured(cells, profile, measure, device)
adds = {cell.digest: 100 * macs(cell.base, cell.generator) / macs(cell.base) for cell in cells if cell.generator}
rows["MACs added (%)"] = rows["digest"].map(adds)
behind = rows[rows["generator"] != "none"].set_index("generator", drop=False)
places, forms = (behind.loc[[r.label for r in some if r.label in behind.index]] for some in (moved, built))
front, encoder = places.iloc[0], rows[rows["base_model"].str.endswith("encoder")].iloc[0]


def gain(row):
    """What a row has under errors beyond the network in front of the classifier, and its standard error."""
    return paired(row["accuracies"], front["accuracies"])


# %% [markdown]
# ## Beside the classifier, half of the network recovers more than all of it in front
#
# Hollow: the classifier alone under errors; filled: with the added network; a bar is the standard deviation over chips. The
# red diamond is the paper's value for ConvL in front of a full-size VGG11.

# %% tags=["hide-input"]
ladder(behind, name="variants", alt="Accuracy under errors without the added network, and with it in each place and form.")

# %% tags=["hide-input"]
beside, within = (places[places["generator"].str.contains(word)] for word in ("in parallel", "after block"))
for row in beside.to_dict("records"):
    more, error = gain(row)
    claim(
        more > 2 * error and row["clean"] > front["clean"],
        f"{row['generator']}: {row['perturbed']:.1f} % under errors, {more:.1f} ± {error:.1f} points more than in front, and "
        f"{row['clean']:.1f} instead of {front['clean']:.1f} % without errors, for {row['MACs added (%)']:.0f} instead of "
        f"{front['MACs added (%)']:.0f} % more multiply-accumulates.",
    )
    claim(
        encoder["clean"] > row["perturbed"],
        f"But that encoder alone, trained as a classifier, is {encoder['clean']:.1f} % accurate at nominal voltage: more than "
        "both together under errors.",
    )
for row in [*within.to_dict("records"), *forms.to_dict("records")]:
    more, error = gain(row)
    claim(
        row["recovery"] > 2 * row["recovery_se"],
        f"{row['generator']}: {row['recovery']:.1f} points recovered, {more:+.1f} ± {error:.1f} against {front['generator']} in "
        f"front, for {row['MACs added (%)']:.0f} % more multiply-accumulates.",
    )
wide = forms[forms["generator"].str.endswith("twice as wide")]
for row, half in zip(wide.to_dict("records"), beside.to_dict("records")):
    claim(
        gain(row)[0] > 5 and half["perturbed"] - row["perturbed"] > -2 and row["MACs added (%)"] > 150,
        f"Of these forms width counts and costs most: twice as wide, the generator computes "
        f"{row['MACs added (%)'] / 100:.1f} times as much as the classifier, and accuracy under errors is {row['perturbed']:.1f} %, "
        f"with the half in parallel {half['perturbed']:.1f} %.",
    )

# %% [markdown]
# ## All of them

# %% tags=["hide-input"]
columns = ["generator", "MACs added (%)", "clean", "perturbed", "std", "recovery", "recovery_se", "training_minutes"]
caption = f"{front['base_model']} on {front['dataset']}, means over chips; everything was trained by {front['training']}. "
caption += "MACs: multiply-accumulates that are added to the classifier's, in per cent of these."
show(behind, columns, "variants", caption)

# %% [markdown]
# ## Limits
#
# One narrow classifier; trained four times as long, ConvL in front [reaches 70 %](cost.ipynb), as its encoder beside
# does here; whether that gains from longer training, too, was not measured. ± is the standard error over chips, not
# over trainings: each network was trained once and equally long, by a recipe that was chosen for ConvL in front of it.
# What stands within or beside a classifier needs access to it; a generator in front does not.
