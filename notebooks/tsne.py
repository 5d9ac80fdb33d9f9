# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Does a generator separate the classes that bit errors mix?

# %% [markdown] tags=["paper"]
# **Yes: ConvL undoes about nine tenths of the mixing, so that neighbours in the outputs agree on the class almost as
# often as without errors; ConvS undoes a third.** We looked at the outputs of a full-size ResNet18 for the first 500
# test images of CIFAR-10, under 1 % bit errors of the official code's error map. The generators were trained by
# distillation, not by the paper's algorithm: they learned to reproduce class-wise perturbations
# ([method](../method.md)).

# %% [markdown] tags=["desk"]
# **Partly: behind ConvL and UNetL, trained on the paper's loss while images faded in, neighbours in the outputs of a
# narrow VGG11 agree on the class more often than without a generator.** Neither undoes the whole loss. We looked at the
# first 500 test images of CIFAR-10, under 1 % bit errors of the official code's error map.

# %% [markdown]
# For each image the last layer gives one number per class. t-SNE places these outputs in a plane so that near
# neighbours stay near: this is the paper's Figure 15. We add a number, measured in the outputs themselves: *neighbour
# accuracy* is how often a vote of the five nearest other images gives an image's own class.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper12", "paper": full size
dataset: str = "digits"  # also cifar10, cifar100, gtsrb, imagenette224, or the name of your own file in data/
base_model: str = "vgg11"  # also resnet18, resnet50, vgg16, vgg19
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
generators: list[str] = ["conv_l"]  # also conv_s, deconv_l, deconv_s, unet_l, unet_s
training: str = "eopm"  # "eopm": the paper's loss; "distilled": class-wise perturbations; "distilled_eopm": both
error_model: str = "release_map"  # also bit_flips, stuck_at, chip_map:PATH
rate: float = 0.01  # bit-error rate of training and of measurement, as a fraction
patterns: int = 2  # error patterns (chips)
images: int = 200  # test images, the first ones
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from nflib.study import Cell, base, generator

whole, errors = base(profile, dataset, base_model, base_recipe), (error_model, rate)
fronts = [None, *(generator(profile, name, training, *errors) for name in generators)]
cells = [Cell(whole, front, *errors, patterns, images, kind="tsne") for front in fronts]

# %% tags=["hide-cell"]
import numpy as np

from nflib.report import Picture, arrays, claim, measured, metrics, paired, panels, show

rows = measured(cells, profile, measure, device)
found = [metrics(row) for _, row in rows.iterrows()]
chips = [np.array(one["output_neighbours"][1:]) for one in found]  # neighbour accuracy of each chip
alone, points = chips[0], arrays(rows)

# %% [markdown]
# ## Errors mix the classes; generators undo part of it
#
# A dot is an image, its colour the true class. Above without errors, below on the first chip. Each panel has axes of
# its own, without units.

# %% tags=["hide-input"]
count = min(len(rows), 4)
figure, axes = panels(2 * count, 2.7, columns=count)
for k, axis in enumerate(axes):
    one, errors_there = k % count, k // count
    name, accuracy = rows["system"].iloc[one], [found[one]["clean"], found[one]["perturbed"][0]][errors_there]
    place, labels = points[one]["points"][errors_there], points[one]["labels"]
    axis.scatter(*place.T, c=labels % 10, cmap="tab10", s=4, linewidths=0, rasterized=True)
    axis.set(title=f"{name}, {('no errors', 'errors')[errors_there]}\naccuracy {accuracy:.0f} %", xticks=[], yticks=[])
    axis.title.set_size(10)
figure.set_dpi(150)
Picture(figure, f"t-SNE of the outputs, by class: {', '.join(rows['system'])}, without and with errors.", "tsne")

# %% tags=["hide-input"]
bare = rows.iloc[0]
loss, loss_se = paired(np.full(len(alone), bare["output_neighbours_clean"]), alone)
claim(
    loss > 2 * loss_se,
    f"Bit errors lower the neighbour accuracy of {bare['base_model']} from {bare['output_neighbours_clean']:.1f} to "
    f"{alone.mean():.1f} %.",
)
claim(
    loss + 2 * loss_se < bare["clean"] - bare["perturbed"],
    f"Accuracy falls by {bare['clean'] - bare['perturbed']:.1f} points, more than neighbour accuracy ({loss:.1f}); "
    "images of a class that is no longer recognised still lie together to some extent.",
)
for name, behind in zip(rows["generator"][1:], chips[1:]):
    gain, gain_se = paired(behind, alone)
    claim(
        gain > 2 * gain_se,
        f"Behind {name}, neighbour accuracy under errors is {gain:.1f} ± {gain_se:.1f} points higher.",
    )
best = rows["output_neighbours"].idxmax()
share = (chips[best].mean() - alone.mean()) / loss
claim(
    0.6 < share < 0.95,
    f"{rows['generator'][best]} undoes most of that loss, {100 * share:.0f} %: behind it, neighbour accuracy under errors is "
    f"{chips[best].mean():.1f} %.",
)

# %% [markdown]
# ## The numbers

# %% tags=["hide-input"]
columns = ["system", "training", "clean", "perturbed", "output_neighbours_clean", "output_neighbours"]
columns += ["output_silhouette_clean", "output_silhouette"]
caption = "Accuracy and neighbour accuracy in per cent; clean: without errors; else means over chips. Silhouette: 1 "
caption += "where classes lie apart, 0 where they mix. The paper trained generators by EOPM."
show(rows, columns, "tsne", caption, digits=2)

# %% [markdown]
# ## Limits
#
# t-SNE keeps neighbours, not distances: the size of a cloud and the gap between two mean nothing. Neighbour accuracy is
# measured in the outputs, before t-SNE; on 500 images its standard error is about two points, whatever the chips. This is
# one base model, each network trained once.

# %% [markdown] tags=["paper"]
# A distilled generator adds a perturbation of the class that it found ([why it works](mechanism.ipynb)), so separation is
# what it was trained for.
