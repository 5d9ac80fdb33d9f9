# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How much time does a generator cost?
#
# **With one image of 32×32 pixels at a time, a generator adds between a tenth and a third to a classifier's latency on a
# CPU. At 224×224 pixels the classifier decides: VGG19 takes up to a fifth longer, ResNet18 more than twice as long
# behind ConvL, which then takes more time than the classifier itself.** We measured full-size networks on two cores of a
# server CPU; the paper used a V100 GPU (its Table 9). Weights are untrained, which does not change the time.
#
# The *overhead* is what the generator adds, in per cent of the base model's time. *Simulated cycles* are those of the
# simulator SCALE-Sim for the paper's accelerator, a 32×32 systolic array that never waits for its memory.

# %% tags=["parameters"]
profile: str = "smoke"  # where records go; networks have full size in every profile
datasets: list[str] = ["cifar10"]  # decides the image size: 224 pixels for imagenet10 and imagenette224, else 32
base_models: list[str] = ["vgg11"]  # the paper has resnet18 and vgg19
generators: list[str] = ["conv_s"]  # also conv_l, deconv_l, deconv_s, unet_l, unet_s
batches: list[int] = [1]  # images at a time; the paper has 1
devices: list[str] = ["cpu"]  # also cuda
measure: bool = True  # False: stored records only
device: str = "auto"  # "auto": a GPU where there is one; "cpu"; "cuda"

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
import numpy as np
import pandas as pd

from nflib import data
from nflib.report import bars, claim, measured, published, show, span
from nflib.study import simulate

OVERHEADS = ["overhead", "overhead compiled", "published overhead"]
rows = measured(cells, profile, measure, device)
rows["pixels"] = rows["dataset"].map({data.LABELS.get(name, name): data.image_size(name) for name in datasets})
rows["overhead"] = 100 * (rows["both_eager_ms"] / rows["base_eager_ms"] - 1)
base_ms, both_ms = (rows.get(f"{name}_compiled_ms", np.nan) for name in ("base", "both"))  # none without a compiler
rows["overhead compiled"] = 100 * (both_ms / base_ms - 1)
known = published.select(origin="table09_latency").pivot_table("mean", ["base_model", "dataset", "generator"], "metric")
known = known.reset_index().assign(pixels=lambda table: table["dataset"].map({"CIFAR-10": 32, "ImageNet-10": 224}))
alone = known[known["generator"] == "none"].set_index(["base_model", "pixels"])["latency_ms"]
keys = ["base_model", "pixels", "generator"]
known["published overhead"] = 100 * known["extra_latency_ms"] / known.set_index(keys[:2]).index.map(alone)
rows = rows.merge(known[[*keys, "published overhead"]], how="left", on=keys)
cycles = pd.concat([simulate.cycle_overhead(size).assign(pixels=size) for size in rows["pixels"].unique()])
cycles = cycles.rename(columns={"true_cycles": "simulated cycles"})
rows = rows.merge(cycles[[*keys, "simulated cycles"]], how="left", on=keys)
rows["setting"] = rows["base_model"] + ", " + rows["pixels"].astype(str) + " pixels, " + rows["device"]
single, many = rows[rows["batch"] == min(batches)], rows[rows["batch"] == max(batches)]
small, large = single[single["pixels"] == 32], single[single["pixels"] > 32]

# %% [markdown]
# ## For small images the overhead is larger than the accelerator's cycles suggest
#
# Diamonds are the paper's overhead, on a GPU, with one image at a time.

# %% tags=["hide-input"]
parts = [some.assign(by=f"measured, batch {batch}") for batch, some in rows.groupby("batch")]
parts.append(single.assign(overhead=single["simulated cycles"], by="simulated cycles"))
drawn = pd.concat(parts).rename(columns={"overhead": "added to the base model (%)"})
drawn["published overhead"] = drawn["published overhead"].where(drawn["by"] == "measured, batch 1")
said = "What each generator adds to the base model's time, measured and by simulated cycles."
bars(drawn, "generator", "added to the base model (%)", "by", None, "published overhead", "setting", said, "overhead")

# %% tags=["hide-input"]
claim(
    small["overhead"].between(10, 33).all() and many["overhead"].max() < 20,
    f"With one image of 32×32 pixels at a time, a generator adds {span(small['overhead'], 0)} % to the latency; with "
    f"{max(batches)} images {span(many['overhead'], 0)} % ({', '.join(many['base_model'].unique())}).",
)
claim(
    (small["overhead"] > small["simulated cycles"]).all() and (small["published overhead"] > small["overhead"]).all(),
    f"That is more than on the simulated accelerator ({span(small['simulated cycles'], 0)} % more cycles), and less than on the "
    f"paper's GPU ({span(small['published overhead'], 0)} %), for each of {len(small)} pairs.",
)
slowest = large.loc[large.groupby("base_model")["overhead"].idxmax()]
said = [
    f"{row.base_model} takes {span(large.loc[large['base_model'] == row.base_model, 'overhead'], 0)} % longer; {row.generator} "
    f"alone takes {row.generator_eager_ms:.0f} ms, {row.base_model} {row.base_eager_ms:.0f} ms"
    for row in slowest.itertuples()
]
if len(large):
    claim(
        slowest["overhead"].max() > 100 and slowest["overhead"].min() < 20,
        f"At 224×224 pixels {'. '.join(said)}. On the paper's GPU it is {span(large['published overhead'], 0)} % for both.",
    )

# %% [markdown]
# ## Small single images hide how much a generator computes
#
# Each call of a layer takes time, however little it computes. The time of a generator therefore follows its arithmetic
# for batches and for large images, but less so for single small ones.

# %% tags=["hide-input"]
unets = [small.pivot_table(name, "setting", "generator") for name in ("generator_eager_ms", "simulated cycles")]
unets = [table.reindex(columns=["UNetS", "UNetL"]) for table in unets]
time, work = (table["UNetL"] / table["UNetS"] for table in unets)
claim(
    time.max() < 1.3 < work.min(),
    f"For one image of 32×32 pixels UNetL takes {span(time, 2)} times as long as UNetS, which is half as wide; on the "
    f"simulated accelerator it takes {span(work, 2)} times as many cycles.",
)
one, several, big = (some["overhead"].corr(some["simulated cycles"], "spearman") for some in (small, many, large))
claim(
    min(several, big) > max(0.85, one),
    f"Measured overheads follow simulated cycles closely for {max(batches)} images (rank correlation {several:.2f}) and for "
    f"large ones ({big:.2f}), for single small ones less so ({one:.2f}).",
)

# %% tags=["hide-input"]
columns = ["setting", "generator", "batch", "base_eager_ms", "both_eager_ms", *OVERHEADS]
caption = "Medians of one call, in milliseconds; overhead in per cent, in PyTorch's eager mode and by torch.compile. "
caption += "The published overhead is that of a V100 with one image at a time (Table 9)."
show(rows, columns, "overhead", caption)

# %% [markdown]
# ## Limits
#
# Latencies belong to the machine that they were measured on; this one is no accelerator with low-voltage memory. A GPU was
# not measured, and batches for ResNet18 and small images only.

# %% tags=["hide-input"]
apart = rows.groupby(["setting", "batch"])["base_eager_ms"].agg(lambda ms: 100 * (ms.max() / ms.min() - 1)).max()
claim(
    apart < 20,
    f"Base model, generator and both were timed in turn. The base model's time varies from row to row by up to "
    f"{apart:.0f} %, so compare overheads across rows, not milliseconds.",
)
