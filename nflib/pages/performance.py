"""Performance: what `make bench` measured, ours beside the usual ways of doing the same work."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import HTML, Markdown

from nflib import faults, figures, show
from nflib.names import UserError, choose
from nflib.store import results
from nflib.training import precision

PARTS = {"injection": "Injection of one error pattern", "training": "One training step", "evaluation": "Evaluation"}
HARDWARE = {"cpu": "", "cpu_fp32": "_fp32", "cuda": "_cuda"}  # a CPU that computes in bf16, one that cannot, a GPU: how names of files end
GOALS = {"dense sampling": 15.0, "MRFI": 2.0}  # times as fast as these, at least
STEP_GOAL = 12.0  # times as fast as the official loop a training step should be, at least
OFFICIAL_PASSES, OUR_PASSES = 7, 2  # see `_operations`
SAME_LAW = {"official path": "ours, ReleaseMap"}  # what a side is compared with, where it is not the first of ours
MISSING = "not measured yet; `make bench` measures it."
SAME_GRADIENT = 1e-9
SHOWN = {
    "comparison": "work", "side": "who", "rounds": "rounds", "median_ms": "median ms", "low_ms": "quartile 1",
    "high_ms": "quartile 3", "ratio": "times ours", "ratio_low": "from", "ratio_high": "to",
    "changed_percent": "bits changed %", "peak_mb": "peak memory MB", "device_mb": "GPU memory MB",
}  # fmt: skip


def path(part: str, hardware: str = "cpu") -> Path:
    """Where `make bench` writes a part's record."""
    return results() / "bench" / f"{part}{HARDWARE[hardware]}.json"


def kind(device: torch.device) -> str:
    """The one of HARDWARE that a device is."""
    return "cuda" if device.type == "cuda" else "cpu" if precision(device) == "bf16" else "cpu_fp32"


def stored(hardware: str = "cpu") -> dict[str, dict]:
    """The records of a kind of hardware, by part; parts not measured are left out.

    Raises UserError for unknown hardware and for a damaged file.
    """
    choose("hardware", hardware, HARDWARE)
    found = {}
    for part in PARTS:
        if path(part, hardware).exists():
            try:
                record = json.loads(path(part, hardware).read_text())
                record["provenance"]["device"], record["comparisons"][0]["seconds"]
            except (OSError, ValueError, KeyError, IndexError, TypeError):
                raise UserError(f"{path(part, hardware)} is damaged; `make bench` measures it again") from None
            found[part] = record
    return found


def frame(records: dict[str, dict]) -> pd.DataFrame:
    """A row a comparison and side.

    median_ms, low_ms, high_ms: median and quartiles over rounds.  ratio: this side's median over ours (over that of the
    same error model where several of ours run); ratio_low, ratio_high: quartiles of the ratio within a round.
    """
    rows = []
    for part, record in records.items():
        for comparison in record["comparisons"]:
            seconds, first = comparison["seconds"], next(iter(comparison["seconds"]))
            for side, found in comparison["seconds"].items():
                low, middle, high = 1000 * np.percentile(found, [25, 50, 75])
                ours = np.array(seconds[SAME_LAW.get(side, first)])
                within = np.percentile(np.array(found) / ours, [25, 75])
                memory = comparison.get("memory", {}).get(side, {})
                rows.append({
                    "part": part, "comparison": comparison["name"], "side": side, "rounds": len(found),
                    "median_ms": middle, "low_ms": low, "high_ms": high,
                    "ratio": middle / 1000 / np.median(ours), "ratio_low": within[0], "ratio_high": within[1],
                    "changed_percent": 100 * comparison.get("changed_bits", {}).get(side, np.nan),
                    "peak_mb": memory.get("peak_mb", np.nan), "device_mb": memory.get("device_mb", np.nan),
                })  # fmt: skip
    return pd.DataFrame(rows, columns=["part", *SHOWN])


def stage_frame(records: dict[str, dict]) -> pd.DataFrame:
    """A row an error model and rate: medians in ms of drawing, applying and undoing one of our patterns, and weights hit."""
    rows = []
    for row in records.get("injection", {}).get("stages", []):
        parts = {stage: 1000 * np.median(row[stage]) for stage in ("draw", "apply", "undo")}
        whole = {"all": sum(parts.values()), "weights_hit": row["weights_hit"]}
        rows.append({"error_model": faults.LABELS[row["law"]], "ber_percent": 100 * row["rate"], **parts, **whole})
    return pd.DataFrame(rows, columns=["error_model", "ber_percent", "draw", "apply", "undo", "all", "weights_hit"])


def _where(record: dict) -> str:
    origin = record["provenance"]
    return f"{origin['device']}, {show.count(origin['threads'], 'thread')}, {origin['precision']}, PyTorch {origin['torch']}, commit {origin['commit'][:7]}"


def goals(rows: pd.DataFrame) -> list[str]:
    """A line a goal: met, not met, or not measured."""
    lines, injection = [], rows[rows["part"] == "injection"].set_index("side")
    for rival, goal in GOALS.items():
        asked = f"at least {goal:g} times as fast as {rival}"
        if rival not in injection.index:
            why = "MRFI was not installed" if rival == "MRFI" and len(injection) else "there is no record"
            lines.append(f"* Goal: {asked}. **Not measured**: {why}.")
            continue
        row = injection.loc[rival]
        verdict = "Met" if row["ratio"] >= goal else "Not met"
        lines.append(
            f"* Goal: {asked}. **{verdict}**: {row['ratio']:.1f} times (half of the rounds between {row['ratio_low']:.1f} and "
            f"{row['ratio_high']:.1f}); ours {injection.iloc[0]['median_ms']:.1f} ms, {rival} {row['median_ms']:.1f} ms."
        )
    for row in rows[(rows["part"] == "training") & (rows["side"] == "official loop")].itertuples():
        verdict = "Met" if row.ratio >= STEP_GOAL else "Not met"
        asked = f"a training step at least {STEP_GOAL:g} times as fast as the official loop, with as many perturbed models"
        lines.append(f"* Goal: {asked}. **{verdict}** ({row.comparison}): {row.ratio:.1f} times.")
    return lines


def _operations(models_per_step: int) -> float:
    """How many times as many operations on base models the official loop needs for a step with N perturbed models.

    In forward passes (a gradient to the images costs one, one to the weights another): the official loop needs for each
    perturbed model the clean model, forward and both gradients (3), a forward for a log line (1) and the perturbed model,
    forward and both gradients (3); ours the clean model once and each perturbed one, forward and gradient to the images (2).
    """
    return OFFICIAL_PASSES * models_per_step / (OUR_PASSES * (models_per_step + 1))


def _injection(record: dict, rows: pd.DataFrame) -> list[str]:
    work, sides = record["comparisons"][0]["work"], rows.set_index("side")
    lines = [
        f"From a seed to perturbed weights and back, {work['model']}'s {work['bits'] / 1e6:.1f} Mbit at {100 * work['rate']:g} %: "
        + "; ".join(f"{side} {row['median_ms']:.1f} ms" for side, row in sides.iterrows())
        + "."
    ]
    if "official path" in sides.index:
        row = sides.loc["official path"]
        lines.append(f"The official code's map costs it {row['ratio']:.1f} times as long as ours, for the very same pattern.")
    far = sides[(sides["changed_percent"] / (100 * work["rate"]) - 1).abs().between(0.02, 0.25)]
    for side, row in far.iterrows():
        lines.append(f"{side} changes {row['changed_percent']:.3f} % of the bits, not {100 * work['rate']:g} %.")
    return lines


def _training(record: dict, rows: pd.DataFrame) -> list[str]:
    lines = []
    for comparison in record["comparisons"]:
        sides = rows[rows["comparison"] == comparison["name"]].set_index("side")
        row = sides.loc["official loop"]
        line = (
            f"{comparison['name']}: {sides.loc['ours', 'median_ms'] / 1000:.2f} s a step against "
            f"{row['median_ms'] / 1000:.2f} s, {row['ratio']:.1f} times"
        )
        if "ours, fp32" in sides.index:
            line += f" ({row['median_ms'] / sides.loc['ours, fp32', 'median_ms']:.1f} times with ours in fp32 too)"
        if "model_images_per_second" in comparison:
            line += (
                f"; {comparison['model_images_per_second']:,.0f} images times perturbed models a second, "
                f"{100 * comparison['share_of_h200_bf16_peak']:.1f} % of an H200's dense bf16 peak"
            )
        if "N" in comparison["work"] and "ours, fp32" in sides.index:
            fewer, narrow = _operations(comparison["work"]["N"]), sides.loc["ours, fp32", "median_ms"] / sides.loc["ours", "median_ms"]
            line += f"; {fewer:.1f} times from fewer operations on base models, {narrow:.1f} from bf16, {row['ratio'] / fewer / narrow:.1f} from the rest"
        if "matrix_rate" in comparison:
            share = comparison["work"]["flops"] / (sides.loc["ours", "median_ms"] / 1000) / comparison["matrix_rate"]
            line += (
                f"; ours computes at {100 * share:.0f} % of the rate of a large matrix product here, "
                f"at all of it a step would be {row['ratio'] / share:.1f} times as fast as the official one"
            )
        gap = comparison["relative_difference"]
        same = "the same gradient" if gap <= SAME_GRADIENT else "NOT the same gradient"
        lines.append(f"{line}; {same} (relative difference {gap:.0e} in double precision).")
        if np.isfinite(sides["peak_mb"]).all():
            ours, theirs = sides.loc["ours", "peak_mb"], row["peak_mb"]
            lines.append(f"Its peak memory is {theirs:,.0f} MB, ours {ours:,.0f} MB, libraries included.")
    return lines


def _evaluation(record: dict, rows: pd.DataFrame) -> list[str]:
    lines = []
    for comparison in record["comparisons"]:
        row = rows[rows["comparison"] == comparison["name"]].set_index("side").loc["official way"]
        gap = comparison["largest_difference_in_images"]
        lines.append(
            f"{comparison['name']}: {row['ratio']:.1f} times as fast as the official way, which computes transformed images and "
            f"clean accuracies for each pattern; accuracies differ by {show.count(gap, 'image')} at most."
        )
    return lines


def summary(records: dict[str, dict]) -> Markdown:
    """Goals first, then a sentence or two for each part, and where it was measured."""
    rows, said = frame(records), {"injection": _injection, "training": _training, "evaluation": _evaluation}
    lines = goals(rows) + [""]
    for part, title in PARTS.items():
        if part in records:
            found = said[part](records[part], rows[rows["part"] == part])
            lines.append(f"**{title}** ({_where(records[part])})\n\n" + "\n".join(f"* {line}" for line in found) + "\n")
        else:
            lines.append(f"**{title}**: {MISSING}\n")
    return show.prose("\n".join(lines))


def elsewhere(hardware: str) -> Markdown:
    """The goals on other hardware than this, wherever some of it is measured."""
    lines = []
    for records in filter(None, (stored(other) for other in HARDWARE if other != hardware)):
        places = pd.Series({part: _where(record) for part, record in records.items()})
        said = "; ".join(f"{show.listed(some.index)} on {place}" for place, some in places.groupby(places, sort=False))
        lines.append(f"**{said[0].upper()}{said[1:]}**\n\n" + "\n".join(goals(frame(records))))
    return show.prose("\n\n".join(lines) or "No other hardware is measured yet; `make bench` on it does that.")


def picture(rows: pd.DataFrame, title: str) -> figures.Picture:
    """How many times as long as ours each other way takes, on a logarithmic axis; bars end at the ratio of medians."""
    others = rows[~rows["side"].str.startswith("ours")]
    figure, (axis,) = figures._figure(height=1.2 + 0.32 * max(3, len(others)))
    colours = dict(zip(PARTS, sns.color_palette("colorblind", len(PARTS))))
    for place, row in enumerate(others.itertuples()):
        axis.barh(place, row.ratio - 1, left=1, color=colours[row.part], height=0.7)
        axis.plot([row.ratio_low, row.ratio_high], [place, place], color="0.2", linewidth=1)
        axis.annotate(f" {row.ratio:.1f}", (max(row.ratio, row.ratio_high), place), va="center", fontsize=8)
        if row.part == "injection" and row.side in GOALS:
            axis.plot(GOALS[row.side], place, "|", color="black", markersize=16, markeredgewidth=2)
    names = others["side"].where(others["part"] == "injection", others["side"] + ": " + others["comparison"])
    axis.set_yticks(range(len(others)), names, fontsize=8)
    axis.set(xscale="log", xlabel="time over ours (1: as fast as ours)", xlim=(0.8, 2 * max([20, *others["ratio_high"]])))
    axis.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axis.axvline(1, color="0.4", linewidth=1)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.plot([], [], "|", color="black", markersize=12, markeredgewidth=2, label="goal")
    for part in dict.fromkeys(others["part"]):
        axis.plot([], [], "s", color=colours[part], label=PARTS[part])
    axis.legend(fontsize=8, loc="lower right")
    axis.set_title(title, fontsize=9)
    said = "; ".join(f"{name} {ratio:.1f}" for name, ratio in zip(names, others["ratio"]))
    return figures.Picture(figure, f"Time of each other way over ours, {title}: {said}.")


def pictures(records: dict[str, dict]) -> HTML:
    """`picture`, one for each device that measured."""
    rows, groups = frame(records), {}
    for part, record in records.items():
        groups.setdefault(_where(record), []).append(part)
    return show.gallery([picture(rows[rows["part"].isin(parts)], where) for where, parts in groups.items()])


def table(records: dict[str, dict]) -> HTML:
    rows = frame(records).rename(columns=SHOWN).drop(columns="part")
    return show.table(rows.dropna(axis=1, how="all"), "performance", 2) if len(rows) else HTML("<p>Nothing measured yet.</p>")


def stage_summary(records: dict[str, dict]) -> Markdown:
    """Which stage takes how much of our time at 1 %, and how the time goes with the rate."""
    rows = stage_frame(records)
    if rows.empty:
        return show.prose(f"Stages: {MISSING}")
    lines = []
    for name, some in rows.groupby("error_model", sort=False):
        here = some.loc[(some["ber_percent"] - 1).abs().idxmin()]
        low, high = some.loc[some["ber_percent"].idxmin()], some.loc[some["ber_percent"].idxmax()]
        lines.append(
            f"* {name} at {here['ber_percent']:g} %: {here['all']:.1f} ms, of which drawing {100 * here['draw'] / here['all']:.0f} %, "
            f"applying {100 * here['apply'] / here['all']:.0f} %, undoing {100 * here['undo'] / here['all']:.0f} %. "
            f"From {low['ber_percent']:g} to {high['ber_percent']:g} % the time goes from {low['all']:.1f} to {high['all']:.1f} ms."
        )
    return show.prose("\n".join(lines))


def stage_table(records: dict[str, dict]) -> HTML:
    names = {"error_model": "error model", "ber_percent": "BER %", "draw": "draw ms", "apply": "apply ms", "undo": "undo ms"}
    rows = stage_frame(records).rename(columns={**names, "all": "all ms", "weights_hit": "weights hit"})
    return show.table(rows, "injection_stages", 2) if len(rows) else HTML("")
