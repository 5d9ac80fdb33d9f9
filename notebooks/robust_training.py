# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training against the worst case
#
# **Question.** Does it help to train against chosen errors in place of random ones, either the generator or the base model?
#
# Two trainings are tried, the paper's appendices I and J (Tables 25 and 26). Both are measured as everywhere in this study:
# on many random error patterns, without the generator (PA) and with it (PA(NF)); RP is the paired difference.
#
# **Adversarial bit flips (Table 25).** A generator is usually trained on random error patterns. Here each training step
# makes one pattern on purpose. The clean base model's loss on the batch of transformed images gives a gradient for each
# weight. One bit flips in each of the K weights with the largest gradients, over all layers: the leftmost bit whose flip
# moves the stored code in the direction in which the loss rises. The generator, always ConvL, takes its step against the
# clean and this one perturbed model. The authors' code lets a step size, which is printed nowhere, decide which bit it is,
# flips none where the step is too short, and also hits biases; ours flips exactly K bits, in weights only.
#
# **Adversarial weight perturbation, AWP (Table 26).** Here the base model is trained differently, and the generators as
# usual. Before each training step of the base model every layer's weights move up the gradient of the loss, by 0.5 % of
# their norm. The step's own gradient is taken there; then the weights move back and the step is made. The base model, a
# PreActResNet18, should end where small changes of its weights matter less. **The paper's AWP model is another one:** it
# is the AWP authors' robust model, trained on adversarial images. Ours is trained here, on ordinary images.

# %% tags=["parameters", "hide-input"]
profile: str = "smoke"  # "smoke": narrow models, minutes; "paper": full size
dataset: str = "digits"  # digits, cifar10, cifar100, gtsrb, or a file of your own in data/, of 32x32 images
base_model: str = "vgg11"  # of the first experiment; the second is about PreActResNet18
base_recipe: str = "release"  # "release": no weight decay, as the official code; "modern": weight decay
flips: list = [10, 100, 1000]  # K, the number of adversarially flipped bits; [] leaves ConvL on random patterns only
generator_names: list = ["conv_l", "unet_s"]  # behind the AWP base model; [] leaves the second experiment out
error_model: str = "release_map"  # also bit_flips, stuck_at
rates: list = [0.01]  # bit-error rates, fractions; the first experiment takes the first of them
patterns: int = 10  # error patterns (chips) per setting
device: str = "auto"
measure: bool = True  # False: show stored records only, of the profile's grid for the data set

# %% tags=["hide-input"]
from nflib import grids, profiles, study, tables
from nflib.pages import robust_training

cells = grids.robust_training(
    profile, dataset, base_model, base_recipe, flips, generator_names, error_model, rates, patterns
)
if measure:
    study.run(cells, profile, device)
else:
    cells = profiles.cells(profile, "robust_training")
records = [r for r in tables.stored(profile, cells) if r["cell"]["base"]["dataset"] == dataset]
rows = robust_training.frame(records, dataset)
robust_training.summary(rows, profile, 25)

# %% [markdown]
# ## Generators trained on adversarial bit flips
#
# RP is in percentage points, ± its standard error over error patterns. In the picture, bars and the grey band are two
# standard errors; what is crimson is the paper's, shown only under ReleaseMap.

# %% tags=["hide-input"]
robust_training.pictures(rows, 25)

# %% tags=["hide-input"]
robust_training.table(rows, 25)

# %% [markdown]
# ## A base model trained by adversarial weight perturbation

# %% tags=["hide-input"]
robust_training.summary(rows, profile, 26)

# %% [markdown]
# Black: PreActResNet18 alone, by base recipe. Coloured: behind a generator. Bars are the standard deviation over error
# patterns; a crimson diamond is the paper's.

# %% tags=["hide-input"]
robust_training.pictures(rows, 26)

# %% tags=["hide-input"]
robust_training.table(rows, 26)

# %% [markdown]
# ## What it means
#
# A chosen pattern and a random one are different things. The K flips sit where this batch's loss is most sensitive, and
# they follow the images from step to step; the errors of a chip sit anywhere, and are the same for all images. A generator
# that does well against the first need not do well against the second. Likewise, AWP prepares the base model for small
# changes of all weights at once, whereas a bit error changes few weights, some of them by about the largest weight of the
# layer. Whether either training carries over is what the numbers above say.
