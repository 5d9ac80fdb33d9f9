# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How much time does a generator cost?
#
# **On a CPU, a small generator adds about a tenth to the latency of a large base model, a large one about a quarter.** These
# are full-size ResNet18 and VGG19 with one image at a time and untrained weights (they do not change the time), on two cores
# of a CPU; the paper measured a GPU.
#
# The base model, the generator and both are called by turns, so that a machine that slows down slows all of them. This is
# the paper's Table 9.

# %% tags=["parameters"]
profile: str = "smoke"  # "paper": what the paper measured
datasets: list[str] = ["cifar10"]  # sizes of images: cifar10 (32 pixels), imagenette224
base_models: list[str] = ["vgg11"]
generators: list[str] = ["conv_s"]  # also conv_l, deconv_l, deconv_s, unet_l, unet_s
batches: list[int] = [1]  # images at a time
devices: list[str] = ["cpu"]  # also cuda
measure: bool = True  # False: stored records only
device: str = "auto"

# %% tags=["cells"]
from itertools import product

from nflib.eopm import GeneratorRecipe
from nflib.study import Cell
from nflib.study.cells import Base
from nflib.training import BaseRecipe

cells = [
    Cell(
        Base(dataset, model, BaseRecipe(epochs=0)), GeneratorRecipe(name, steps=0),
        patterns=1, images=batch, kind="latency", device=on,
    )
    for dataset, model, name, batch, on in product(datasets, base_models, generators, batches, devices)
]  # fmt: skip

# %% tags=["hide-cell"]
from nflib import simulate
from nflib.report import bars, claim, measured, published, show

rows = measured(cells, profile, measure, device)
known = published.select(origin="table09_latency", metric="latency_ms")
both = known[known["generator"] != "none"].drop_duplicates(["dataset", "base_model", "generator"])
alone = known[known["generator"] == "none"].drop_duplicates(["dataset", "base_model"])
alone = alone.set_index(["dataset", "base_model"])["mean"]
both = both.set_index(["dataset", "base_model", "generator"])["mean"]
setting = rows.set_index(["dataset", "base_model"]).index
rows["published_overhead"] = 100 * (rows.set_index(["dataset", "base_model", "generator"]).index.map(both) / setting.map(alone) - 1)
rows["overhead"] = 100 * (rows["both_eager_ms"] / rows["base_eager_ms"] - 1)
rows["overhead_compiled"] = 100 * (rows["both_compiled_ms"] / rows["base_compiled_ms"] - 1)
cycles = simulate.cycle_overhead(32).set_index(["base_model", "generator"])["true_cycles"]
rows["overhead_cycles"] = rows.set_index(["base_model", "generator"]).index.map(cycles)
rows["pair"] = rows["base_model"] + " + " + rows["generator"]

# %% [markdown]
# ## Small generators are cheap, large ones are not

# %% tags=["hide-input"]
bars(rows, "pair", "overhead", name="overhead", alt="Latency that a generator adds, in per cent of the base model's.")

# %% tags=["hide-input"]
large, small = (rows[rows["generator"].isin(names)] for names in (["ConvL", "DeConvL", "UNetL"], ["ConvS", "DeConvS", "UNetS"]))
claim(
    large["overhead"].median() > 1.5 * small["overhead"].median(),
    f"A large generator adds {large['overhead'].median():.0f} % to the base model's latency, a small one "
    f"{small['overhead'].median():.0f} % (medians; PyTorch without compilation).",
)
order = rows["overhead"].corr(rows["overhead_cycles"], method="spearman")
claim(
    0 < order < 0.8,
    f"Simulated cycles of a 32 x 32 array predict the order only in part (rank correlation {order:.2f}, {len(rows)} pairs).",
)

# %% [markdown]
# ## All pairs, beside the paper

# %% tags=["hide-input"]
show(
    rows,
    ["base_model", "generator", "base_eager_ms", "both_eager_ms", "overhead", "overhead_compiled", "overhead_cycles", "published_overhead"],
    "overhead",
    "Medians for one image. overhead: what the generator adds, in per cent of the base model's latency; compiled by "
    "torch.compile; by simulated cycles; published: by the paper on a GPU.",
)

# %% [markdown]
# ## Limits
#
# One CPU; a GPU is bound by the launching of kernels for single images, so that ratios differ there. Images of 224 pixels and
# batches of 16 have no stored record yet.
