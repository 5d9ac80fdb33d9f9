# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where should the added network stand, and how should it be built?
#
# **TODO**
#
# Everything here has the generator's lot: its memory has no errors, the classifier is frozen, and it is trained on the
# paper's loss (EOPM) while the path beside it fades in. An *adapter* after block 1 or 2 adds A(h) to the classifier's maps
# h where they are halved for the first or second time; *beside* the classifier stands the generator's encoder with a
# linear layer, whose outputs are added to the classifier's. Reviewers asked for both, and for depth, width and activation.

# %% tags=["parameters"]
profile: str = "smoke"  # "smoke": digits, minutes; "desk": real images, narrow networks; "paper": full size
dataset: str = "digits"  # also cifar10, cifar100, gtsrb, or the name of your own file in data/
base_model: str = "vgg11"  # also resnet18, resnet50, vgg16, vgg19
network: str = "conv_l"  # what is moved; also conv_s, unet_l, unet_s
places: list[str] = ["block 1", "beside"]  # beside the input; also block 2
generators: list[str] = ["conv_l_shallow"]  # also conv_l_deep, conv_l_narrow, conv_l_wide, conv_l_leaky, conv_l_silu
training: str = "faded_eopm"  # "eopm": the paper's loss at full brightness throughout
error_model: str = "release_map"  # also bit_flips, stuck_at
rate: float = 0.01  # bit-error rate of training and of measurement, as a fraction
patterns: int = 10  # error patterns (chips)
images: int = 0  # test images, the first ones; 0: all
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

# %% tags=["cells"]
from nflib.study import Cell, base, generator

whole, errors = base(profile, dataset, base_model), (error_model, rate)
moved = [generator(profile, network, training, *errors, place=place) for place in ("", *places)]
built = [generator(profile, name, training, *errors) for name in generators]
cells = [Cell(whole, front, *errors, patterns, images) for front in (None, *moved, *built)]

# %% tags=["hide-cell"]
from nflib.report import claim, ladder, measured, say, show, span
from nflib.study.runner import macs

rows = measured(cells, profile, measure, device)
