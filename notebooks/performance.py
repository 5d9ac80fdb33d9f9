# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How fast is the code?
#
# **A training step of a generator is 3 to 8 times as fast as the official code's loop in our rewriting; our goal was 12
# times. Up to half of that is bf16 arithmetic.** We timed full-size networks with random weights on two cores each of two
# machines, one with bf16 arithmetic and one without. `make bench` runs all sides of a comparison in turn, in one process,
# round after round; times are medians over rounds, and compare within a machine only.
#
# * **Injection.** A new error pattern at 1 % is put into the 8-bit weights of a ResNet18 and removed. *Dense sampling*
#   draws a number for each stored bit. The *official path* builds the error map as the official code does. *MRFI* is a
#   fault injector from PyPI; its default selector is approximate, its classic one exact.
# * **Training.** One optimiser step of a generator. The *official loop*, our rewriting of the official code's, runs
#   generator and clean model again for each perturbed model and differentiates with respect to all weights.
# * **Evaluation.** Clean and perturbed accuracy with and without a generator. The *official way* computes transformed
#   images and clean accuracies again for each error pattern.

# %% tags=["parameters"]
hardware: list[str] = ["cpu", "cpu_fp32", "cuda"]  # whose measurements; one that was not measured is left out

# %% tags=["hide-cell"]
import json

import numpy as np
import pandas as pd

from nflib.names import UserError
from nflib.report import bars, claim, show, span
from nflib.study.records import results

FIRST = {"official path": "ours, ReleaseMap"}  # what a side is compared with, where it is not the first of ours
GOALS = {"dense sampling": 15, "MRFI": 2, "official loop": 12}  # times as fast; set before anything was measured
rows = []
for name, part in ((h, p) for h in hardware for p in ("injection", "training", "evaluation")):
    path = results() / "bench" / f"{part}{name.removeprefix('cpu').replace('cuda', '_cuda')}.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else {"comparisons": []}
    for comparison in record["comparisons"]:
        seconds, origin = comparison["seconds"], record["provenance"]
        where = f"{origin['device']}, {origin['threads']} threads, {origin['precision']}"
        for side, times in seconds.items():
            ours = seconds[FIRST.get(side, next(iter(seconds)))]
            ratios = np.array(times) / np.array(ours)
            row = {"part": part, "work": comparison["name"], "side": side, "hardware": where, "rounds": len(times)}
            row |= {"median_ms": 1000 * np.median(times), "times_ours": np.median(times) / np.median(ours)}
            low, high = np.percentile(ratios, [25, 75])
            rows.append(row | {"low": low, "high": high, "commit": origin["commit"]})
if not rows:
    raise UserError(f"no speeds of {', '.join(hardware)} in {results() / 'bench'}; make bench measures those of this machine")
rows = pd.DataFrame(rows)
others = rows[~rows["side"].str.startswith("ours")].copy()
others["what"] = others["side"].where(others["part"] == "injection", others["part"] + ": " + others["work"])

# %% [markdown]
# ## Other ways take two to thirty times as long
#
# Ratios of medians: the time of another way over ours. Diamonds are our goals; the table has quartiles.

# %% tags=["hide-input"]
others["goal"] = others["side"].map(GOALS)
said = "Time of other ways of doing the same work over ours."
bars(others, "what", "times_ours", "hardware", None, "goal", alt=said, name="performance")

# %% tags=["hide-input"]
step = others[others["side"] == "official loop"]
claim(
    3 < step["times_ours"].min() and step["times_ours"].max() < 8,
    f"A training step is {span(step['times_ours'])} times as fast as the official loop ({len(step)} comparisons), below "
    f"the goal of {GOALS['official loop']} times.",
)
for side in ("dense sampling", "MRFI"):
    some = others[others["side"] == side]
    claim(
        some["times_ours"].min() > 1.5,
        f"Injection is {span(some['times_ours'])} times as fast as {side}; the goal was {GOALS[side]} times.",
    )
evaluation = others[others["part"] == "evaluation"]["times_ours"]
claim(evaluation.min() > 2, f"Evaluation is {span(evaluation)} times as fast as the official way.")

# %% [markdown]
# ## The table

# %% tags=["hide-input"]
columns = ["part", "work", "side", "hardware", "median_ms", "times_ours", "low", "high"]
caption = "Medians over rounds; times ours: time over ours; low and high: quartiles of that ratio within a round."
show(rows, columns, "performance", caption)

# %% [markdown]
# ## Limits
#
# The official loop computes in fp32, as the official code does; without bf16 arithmetic a training step gains less. We
# did not measure ratios on a GPU. Times belong to the commit that the table's file names.
