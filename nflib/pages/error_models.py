"""Page "error_models": what a bit-error rate means under each error model, and how much of the damage and of the recovery
goes with the official code's error map."""

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Markdown
from torch import Tensor

from nflib import data, faults, figures, generators, grids, models, report, show, tables
from nflib.cells import FIRST_SEED, Cell, digest_of, plain
from nflib.quantize import weighted_layers

FLOOR = 5.0  # points below the clean accuracy that a chip may lie and still counts in the yield
SURE = 2.0  # standard errors beyond which a difference is called one
GROUP = ["dataset", "base_model", "base_recipe", "base_epochs", "patterns", "images"]
PUBLISHED = ["published_PA", "published_PA_NF", "published_RP", "PA_difference", "RP_difference"]
COLUMNS = [*GROUP, "error_model", "ber_percent", "changed_bits_percent", "generator", "imitation_steps", "steps", "CA", "PA", "PA_std"]
COLUMNS += ["PA_worst", "PA_q05", "yield_percent", "CA_NF", "PA_NF", "PA_NF_std", "PA_NF_worst", "PA_NF_q05"]
COLUMNS += ["yield_NF_percent", "RP", "RP_error", *PUBLISHED, "largest_layer", "record"]
SHOWN = report.SHOWN | {"images": "test images", "changed_bits_percent": "changed bits %", "PA_q05": "5 % quantile"}
SHOWN |= {"PA_NF_q05": "5 % quantile ", "yield_percent": "yield %", "yield_NF_percent": "yield % "}
SHOWN |= {"PA_difference": "PA, ours − paper", "mean": "changed signs in a filter, mean", "variance_to_mean": "variance / mean", "worst_filter": "most in one of 64 filters"}
LAWS = [faults.LABELS[law] for law in grids.ATTRIBUTION]
PARTS = ("tiling slip", "one map for all layers", "map reused within a layer", "stuck cells, not flips")
RECIPES = (*grids.RECIPES, *grids.ROBUST_RECIPES)
_RANK = {name: k for names in (LAWS, RECIPES, models.LABELS.values()) for k, name in enumerate(names)}
BLUE, ORANGE, GREY = "#0173b2", "#d55e00", "#767676"
FILTERS, WEIGHTS = 64, 576  # of the convolution 64 x 64 x 3 x 3 that shows the layout


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    by = ["dataset", "base_model", "base_recipe", "base_epochs", "error_model", "ber_percent", "generator", "record"]
    return rows.sort_values(by, key=lambda column: column.map(lambda value: _RANK.get(value, value)), kind="stable")


@functools.cache
def _largest_layer(model: str, image_size: int, width: float) -> int:
    return max(layer.weight.numel() for layer in weighted_layers(models.build(model, 10, image_size, width)).values())


def _unmeasured(cell: Cell) -> dict:
    """A record full of dashes, so that the paper's numbers for the cell are shown."""
    metrics = {"clean": np.nan, "perturbed": [np.nan] * cell.patterns, "changed_bits": [np.nan]}
    return {"cell": plain(cell), "metrics": metrics, "provenance": {"device": None}}


def frame(records: Iterable[dict], wanted: Iterable[Cell] = ()) -> pd.DataFrame:
    """A row for each base model, recipe, error model, rate and generator; Tables 12 to 15 have the first error model only.

    In per cent: PA and PA(NF) over error patterns: mean, std (ddof 0), worst, q05 (the 5 % quantile); yield, the share of
    patterns whose accuracy lies at most FLOOR points below CA (of the base model alone, in both columns); changed_bits, of
    the stored bits.  In points: RP, RP_error, differences (ours minus the paper's).  largest_layer in weights.  published_*
    only for ReleaseMap and base recipe `release`, which the paper has.  `wanted` cells without a record give a row of dashes
    where the paper has a number.
    """
    records = list(records)
    have = {digest_of(record["cell"]) for record in records}
    records += [_unmeasured(cell) for cell in dict.fromkeys(wanted) if cell.digest not in have]
    by_digest = {digest_of(record["cell"]): record for record in records}
    rows = tables.recoveries(records)
    rows = rows[rows["error_model"].isin(LAWS) & rows["base_recipe"].isin(RECIPES)]
    rows.loc[(rows["error_model"] != LAWS[0]) | (rows["base_recipe"] != "release"), PUBLISHED] = np.nan
    rows = rows[rows[["PA", "PA_NF", "published_PA"]].notna().any(axis=1)]
    alone = rows.loc[rows["generator"] == "none", [*tables.KEYS, "record"]].rename(columns={"record": "alone"})
    rows = rows.merge(alone, how="left", on=tables.KEYS)
    behind = rows["record"].where(rows["generator"] != "none")
    for digests, name, passed in ((rows["alone"], "PA", "yield_percent"), (behind, "PA_NF", "yield_NF_percent")):
        chips = [by_digest[key]["metrics"]["perturbed"] if key in by_digest else [np.nan] for key in digests]
        rows[f"{name}_q05"] = [float(np.quantile(values, 0.05)) for values in chips]
        least = [ca - FLOOR - 1e-9 if known else np.nan for ca, known in zip(rows["CA"], rows[name].notna())]
        rows[passed] = [v if np.isnan(v) else 100 * float(np.mean(np.array(c) >= v)) for v, c in zip(least, chips)]
    bases = [by_digest[key]["cell"]["base"] for key in rows["record"]]
    rows["largest_layer"] = [_largest_layer(b["model"], data.image_size(b["dataset"]), b["width"]) for b in bases]
    rows = rows[(rows["generator"] != "none") | ~rows["record"].isin(rows.loc[behind.notna(), "alone"])]
    return _ordered(rows)[COLUMNS].reset_index(drop=True)


def accuracy_table(rows: pd.DataFrame) -> HTML:
    """`frame` as a table that can be downloaded."""
    return show.table(show.named(rows, SHOWN).dropna(axis=1, how="all"), "error_models")


def _laws(rows: pd.DataFrame) -> list[tuple[str, pd.Series | None]]:
    """(name, row or None) for the chain: each error model at the highest rate p, bit flips at p/2, bit flips at p."""
    top, found = rows["ber_percent"].max(), []
    for law, rate in [*((law, top) for law in LAWS[:-1]), (LAWS[-1], top / 2), (LAWS[-1], top)]:
        here = rows[(rows["error_model"] == law) & np.isclose(rows["ber_percent"], rate)]
        found.append((f"{law} at {rate:g} %", here.iloc[0] if len(here) else None))
    return found


def _damage(row: pd.Series | None) -> tuple[float, float]:
    """CA - PA and its standard error over patterns, in points."""
    if row is None:
        return np.nan, np.nan
    return row["CA"] - row["PA"], row["PA_std"] / np.sqrt(row["patterns"] - 1) if row["patterns"] > 1 else np.nan


def _minus(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Difference of two means and its unpaired standard error, sqrt(var1/n1 + var2/n2)."""
    return a[0] - b[0], float(np.hypot(a[1], b[1]))


def _points(value: tuple[float, float], sign: str = "") -> str:
    return f"{round(value[0], 1) + 0.0:{sign}.1f} ± {value[1]:.1f}".replace("nan", "–").replace("-", "−")


def _groups(rows: pd.DataFrame) -> Iterator[tuple[tuple, pd.DataFrame]]:
    yield from rows[rows["PA"].notna()].groupby(GROUP, sort=False)


def attribution(rows: pd.DataFrame) -> pd.DataFrame:
    """The damage CA - PA of each base model in `frame`, step by step, from the official code's map to independent flips.

    kind "damage": points are CA - PA under an error model; "part": the points that one artefact adds (negative: takes away).
    error: standard error over patterns, unpaired for a part.  start: where its bar begins.  Four parts and the damage by
    flips at half the rate add up to that of the release map; the last part, the rate's definition, comes on top of it.
    """
    found = []
    for key, some in _groups(rows):
        names, laws = zip(*_laws(some))
        damage = [_damage(row) for row in laws]
        steps = [(f"damage: {names[0]}", "damage", 0.0, *damage[0])]
        steps += [(part, "part", damage[k + 1][0], *_minus(damage[k], damage[k + 1])) for k, part in enumerate(PARTS)]
        steps += [(f"damage: {names[4]}", "damage", 0.0, *damage[4])]
        steps += [("twice as many changed bits", "part", damage[4][0], *_minus(damage[5], damage[4]))]
        steps += [(f"damage: {names[5]}", "damage", 0.0, *damage[5])]
        found += [(*key, *step) for step in steps]
    return pd.DataFrame(found, columns=[*GROUP, "step", "kind", "start", "points", "error"])


# --------------------------------------------------------------------------------------------------------------- pictures


def _gallery(rows: pd.DataFrame, draw: Callable[[pd.DataFrame, str], figures.Picture]) -> HTML:
    """A picture for each base model and scale, its panels the base recipes."""
    groups = rows.groupby(["dataset", "base_model", "patterns", "images"], sort=False)
    title = "{} {}, {} error patterns, {:,.0f} test images"
    return show.gallery([draw(some, title.format(*key)) for key, some in groups])


def _panels(rows: pd.DataFrame, title: str, height: float):
    panels = list(rows.groupby(["base_recipe", "base_epochs"], sort=False))
    figure, axes = figures._figure(len(panels), width=7.4, height=height, sharex=True, sharey=True)
    figure.suptitle(title, fontsize=10, **figures.TITLE)
    for axis, ((recipe, epochs), _) in zip(axes, panels):
        axis.set(title=f"base recipe {recipe} ({epochs} epochs)")
        axis.grid(axis="y", visible=False)
    return figure, list(zip(axes, [some for _, some in panels]))


def waterfall(parts: pd.DataFrame, title: str) -> figures.Picture:
    """`attribution` of one base model: grey bars are damage under an error model, coloured ones what an artefact adds."""
    figure, panels = _panels(parts, title, 3.3)
    ends = [0.0, *parts["start"].dropna(), *(parts["start"] + parts["points"]).dropna()]
    low, span = min(ends), max(max(ends) - min(ends), 1.0)
    for axis, some in panels:
        for y, row in enumerate(some.itertuples()):
            if np.isnan(row.points):
                axis.text(0, y, " not measured", va="center", fontsize=8, color=GREY)
                continue
            colour = GREY if row.kind == "damage" else (ORANGE if row.points >= 0 else BLUE)
            error, sign = np.nan_to_num(row.error), "" if row.kind == "damage" else "+"
            axis.barh(y, row.points, 0.65, row.start, color=colour, xerr=error, error_kw={"linewidth": 1, "capsize": 2})
            right = max(row.start, row.start + row.points) + error + span / 60
            axis.text(right, y, _points((row.points, row.error), sign), va="center", fontsize=8)
        axis.axvline(0, color="black", linewidth=1)
        axis.axhline(4.5, color=GREY, linewidth=0.8, linestyle=":")
        axis.set(xlabel="damage CA − PA (points)", xlim=(low - span / 12, low + 1.6 * span), ylim=(len(some) - 0.4, -0.6))
        axis.set_yticks(range(len(some)), some["step"], fontsize=8)
    said = "; ".join(f"{r.base_recipe}, {r.step}: {r.points:.1f}" for r in parts.itertuples() if not np.isnan(r.points))
    return figures.Picture(figure, f"{title}. Damage in points, step by step, bars with standard errors. {said}.")


def attribution_pictures(rows: pd.DataFrame) -> HTML:
    """`waterfall` of each base model in `frame`."""
    return _gallery(attribution(rows), waterfall)


def recovery(rows: pd.DataFrame, title: str) -> figures.Picture:
    """From PA (hollow) to PA(NF) (filled), a line an error model and generator, of one base model; RP is written beside it."""
    rows = rows.assign(law=[f"{row.error_model.replace(', ', chr(10))} {row.ber_percent:g} %" for row in rows.itertuples()])
    laws, lanes = list(dict.fromkeys(rows["law"])), list(dict.fromkeys(rows["generator"]))
    figure, panels = _panels(rows, title, 1.3 + 0.36 * len(laws) * max(1, 0.6 * len(lanes)))
    colours, said = dict(zip(generators.LABELS.values(), [BLUE, "#029e73", ORANGE, "#cc78bc", "#ca9161", "black"])), []
    low = 10 * np.floor(rows[["PA", "PA_NF"]].min().min() / 10) - 5
    for axis, some in panels:
        for row in some.itertuples():
            y = laws.index(row.law) + 0.8 * ((lanes.index(row.generator) + 0.5) / len(lanes) - 0.5)
            axis.plot([row.PA, row.PA_NF], [y, y], color="0.6", linewidth=2, zorder=1)
            axis.plot(row.PA, y, "o", color="white", markeredgecolor="black", markersize=6, zorder=2)
            axis.plot(row.PA_NF, y, "o", color=colours[row.generator], markersize=6, zorder=3)
            axis.text(101.5, y, _points((row.RP, row.RP_error), "+"), va="center", fontsize=8)
            said.append(f"{row.base_recipe}, {row.error_model} {row.ber_percent:g} %, {row.generator}: {_points((row.RP, row.RP_error), '+')}")
        for clean in some["CA"].unique():
            axis.axvline(clean, color="black", linewidth=1, linestyle=":")
        axis.set(xlabel="accuracy (%)", xlim=(low, 101.5 + 0.42 * (100 - low)), ylim=(len(laws) - 0.45, -0.55))
        axis.set_xticks([x for x in range(0, 101, 20 if low < 40 else 10) if x >= low])
        axis.set_yticks(range(len(laws)), laws, fontsize=8)
    marks = [axis.plot([], [], "o", color="white", markeredgecolor="black", label="alone")[0]]
    marks += [axis.plot([], [], "o", color=colours[name], label=f"behind {name}")[0] for name in lanes]
    marks += [axis.plot([], [], "k:", label="clean accuracy")[0]]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), fontsize=8, frameon=False)
    return figures.Picture(figure, f"{title}: recovery in points under each error model. {'; '.join(said)}.")


def recovery_pictures(rows: pd.DataFrame) -> HTML:
    """`recovery` of each base model in `frame` that has a generator in front."""
    behind = rows[(rows["generator"] != "none") & rows["RP"].notna()]
    longest = tables.longest_trained(behind, [*GROUP, "error_model", "ber_percent", "generator"])["record"]
    return _gallery(behind[behind["record"].isin(longest)], recovery)


def chips(values: pd.DataFrame, title: str) -> figures.Picture:
    """Accuracy of every chip of one base model: rows of error_model, generator, clean and accuracy (per cent)."""
    lanes = sorted(values["generator"].unique(), key=["none", *generators.LABELS.values()].index)
    laws = list(dict.fromkeys(values["law"]))
    figure, panels = _panels(values, title, 0.9 + 0.5 * len(laws))
    colours, said = dict(zip(lanes, [GREY, BLUE, "#029e73", ORANGE, "#cc78bc", "#ca9161", "black"])), []
    for axis, some in panels:
        for (law, generator), lane in some.groupby(["law", "generator"], sort=False):
            y = laws.index(law) + 0.8 * ((lanes.index(generator) + 0.5) / len(lanes) - 0.5)
            dots = np.sort(lane["accuracy"].to_numpy())
            side = y + 0.3 / len(lanes) * ((np.arange(len(dots)) * 0.618) % 1 * 2 - 1)
            axis.plot(dots, side, "o", color=colours[generator], alpha=0.55, markersize=3, markeredgewidth=0)
            axis.vlines(np.median(dots), y - 0.4 / len(lanes), y + 0.4 / len(lanes), color="black", linewidth=2)
            axis.plot(dots[0], y, "x", color="black", markersize=5, markeredgewidth=1.2)
            said.append(f"{lane['base_recipe'].iloc[0]}, {law}, {generator}: median {np.median(dots):.1f}, worst {dots[0]:.1f}")
        for clean in some.loc[some["generator"] == "none", "clean"].unique():
            axis.axvline(clean, color="black", linewidth=1, linestyle=":")
        axis.set(xlabel="accuracy of a chip (%)", xlim=(0, 101), ylim=(len(laws) - 0.45, -0.55))
        axis.set_yticks(range(len(laws)), laws, fontsize=8)
    words = {name: "without generator" if name == "none" else f"with {name}" for name in lanes}
    marks = [axis.plot([], [], "o", color=colours[name], markersize=5, label=words[name])[0] for name in lanes]
    marks += [axis.plot([], [], "k|", markersize=9, markeredgewidth=2, label="median")[0]]
    marks += [axis.plot([], [], "kx", markersize=5, label="worst")[0], axis.plot([], [], "k:", label="clean accuracy")[0]]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), fontsize=8, frameon=False)
    return figures.Picture(figure, f"{title}: accuracy of each chip in per cent. {'; '.join(said)}.".replace("\n", " "))


def chip_pictures(records: Iterable[dict]) -> HTML:
    """`chips` of each base model that was measured."""
    found = []
    for record in records:
        here, recipe = tables.setting(record), record["cell"]["generator"]
        row = {**here, "generator": generators.label(recipe["name"]) if recipe else "none", "clean": record["metrics"]["clean"]}
        row |= {"law": here["error_model"].replace(", ", ",\n") + f" {here['ber_percent']:g} %", "record": ""}
        found += [row | {"accuracy": value} for value in record["metrics"]["perturbed"]]
    values = pd.DataFrame(found, columns=[*tables.KEYS, "generator", "clean", "law", "record", "accuracy"])
    return _gallery(_ordered(values), chips)


# ----------------------------------------------------------------------------------- the layout, which needs no training


def _changed_signs(law: str, rate: float, seed: int) -> Tensor:
    """Weights (ascending, of FILTERS x WEIGHTS with random codes) whose sign bit changes under one error pattern."""
    codes = torch.randint(-127, 128, (FILTERS * WEIGHTS,), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    hit = faults.error_model(law, rate).draw({"layer": len(codes)}, seed)["layer"]
    return hit.index[(hit.hit(codes[hit.index]) < 0) != (codes[hit.index] < 0)]


def layout(rate: float, patterns: int) -> pd.DataFrame:
    """Changed sign bits of each output filter of a convolution from 64 to 64 channels, 3 x 3, over error patterns.

    mean: a filter.  variance_to_mean: 1 where errors are independent.  worst_filter: mean over patterns of the largest of 64
    counts.  A single layer has a single map, so that a map per layer would be the tiling-corrected row again.
    """
    rows = []
    for law, p in (*((law, rate) for law in grids.ATTRIBUTION if law != "release_map_per_layer"), ("bit_flips", rate / 2)):
        signs = [_changed_signs(law, p, FIRST_SEED + k) // WEIGHTS for k in range(patterns)]
        counts = np.stack([torch.bincount(filters, minlength=FILTERS).numpy() for filters in signs])
        ratio = counts.var() / counts.mean() if counts.any() else np.nan
        rows.append((faults.LABELS[law], round(100 * p, 6), counts.mean(), ratio, counts.max(1).mean()))
    return pd.DataFrame(rows, columns=["error_model", "ber_percent", "mean", "variance_to_mean", "worst_filter"])


def comb(rate: float, seed: int = FIRST_SEED) -> figures.Picture:
    """Where one pattern changes sign bits in that convolution: the official code's map beside independent stuck-at cells."""
    figure, axes = figures._figure(2, width=7.4, height=3.6, sharex=True, sharey=True)
    said = []
    for axis, law in zip(axes, ("release_map", "stuck_at")):
        places = _changed_signs(law, rate, seed).numpy()
        axis.plot(places % WEIGHTS, places // WEIGHTS, "s", color=ORANGE if law == "release_map" else BLUE, markersize=2)
        counts = np.bincount(places // WEIGHTS, minlength=FILTERS)
        said.append(f"{faults.LABELS[law]}: {len(places)} changed signs,\nat most {counts.max()} in one filter, "
                    f"none in {np.sum(counts == 0)} of {FILTERS}")  # fmt: skip
        axis.set(title=said[-1], xlabel="weight within the filter", xlim=(-8, WEIGHTS + 8), ylim=(FILTERS, -1))
        axis.grid(visible=False)
    axes[0].set_ylabel("output filter")
    return figures.Picture(figure, f"Changed sign bits at a bit-error rate of {100 * rate:g} %. {'. '.join(said)}.".replace("\n", " "))


# -------------------------------------------------------------------------------------------------------------- sentences


def _verdict(gap: tuple[float, float], more: str, less: str, same: str) -> str:
    """The words that fit a difference, with its size: `same` unless it is beyond SURE standard errors."""
    words = same if not abs(gap[0]) > SURE * gap[1] else more if gap[0] > 0 else less
    return words.format(_points(gap, "+") if words == same else _points((abs(gap[0]), gap[1])))


def _damage_words(named: list[tuple[str, pd.Series | None]]) -> Iterator[str]:
    """What the base model alone suffers: the worst law, the map's share at equal changed bits, spread, yield, the paper."""
    laws = {name: row for name, row in named if row is not None}
    damage = {name: _damage(row) for name, row in laws.items()}
    most, least = (pick(damage, key=lambda name: damage[name][0]) for pick in (max, min))
    yield f"Most damage CA − PA: {most}, {_points(damage[most])} points. Least: {least}, {_points(damage[least])} points."
    first, release = named[0]
    if release is None:
        return
    if not np.isnan(release["published_PA"]):
        ours = f"{_points((release['PA'], release['PA_std']))} % (mean and standard deviation)"
        yield f"PA under {first}: {release['published_PA']:g} % in the paper, {ours} here."
    for name in [name for name, _ in (named[3], named[5]) if name in laws]:
        bits = [row["changed_bits_percent"] for row in (laws[name], release)]
        more, less = (f"{{}} points {word} damage" for word in ("more", "less"))
        words = _verdict(_minus(damage[name], damage[first]), more, less, "damage that does not clearly differ ({} points)")
        text = f"{name} changes {bits[0]:.2f} % of the bits, the release map {bits[1]:.2f} %, and does {words}"
        (rest, f), (whole, e) = damage[name], damage[first]
        if name == named[3][0] and whole > SURE * e:
            share, error = 100 * (1 - rest / whole), 100 * np.hypot(f / whole, rest * e / whole**2)
            text += f". The layout of the map accounts for {share:.0f} ± {error:.0f} % of the release map's damage"
        yield text + "."
    stuck = named[3][1]
    if stuck is not None:
        ratio = release["PA_std"] / stuck["PA_std"] if stuck["PA_std"] > 0 and stuck["patterns"] > 1 else np.nan
        yield (
            f"Release map and {named[3][0]} over chips: standard deviation {release['PA_std']:.1f} and "
            f"{stuck['PA_std']:.1f} points (ratio {_points((ratio, ratio / np.sqrt(max(1, stuck['patterns'] - 1))))} for a "
            f"normal spread), worst chip {release['PA_worst']:.1f} and {stuck['PA_worst']:.1f} %, yield {release['yield_percent']:.0f} and {stuck['yield_percent']:.0f} %."
        )


def _part_words(parts: pd.DataFrame) -> Iterator[str]:
    """Which artefacts add or take away damage, and which do not clearly."""
    parts = parts[(parts["kind"] == "part") & parts["points"].notna()]
    sure = parts["points"].abs() > SURE * parts["error"]
    for some, said in ((parts[sure], "Clear parts of the damage, in points"), (parts[~sure], "Not clear")):
        if len(some):
            yield f"{said}: " + ", ".join(f"{row.step} {_points((row.points, row.error), '+')}" for row in some.itertuples()) + "."


def _recovery_words(named: list[tuple[str, pd.Series | None]], generator: str) -> Iterator[str]:
    """What a generator brings back under the first two laws, where that differs under the others, and the paper's recovery."""
    laws = {name: row for name, row in named if row is not None}
    gain = {name: (row["RP"], row["RP_error"]) for name, row in laws.items()}
    (first, release), (second, corrected) = named[:2]
    if release is None:
        yield f"Recovery with {generator}, in points: {'; '.join(f'{name} {_points(gain[name], chr(43))}' for name in laws)}."
        return
    text = f"**{generator} brings back {_points(gain[first], '+')} points** under {first}"
    if corrected is not None:
        text += f"; **{_points(gain[second], '+')}** under the same map with its tiling corrected, and trained under that"
    yield text + "."
    differences = {name: _minus(gain[name], gain[first]) for name in laws if name != first}
    sides = {"Clearly less": [], "Clearly more": [], "Not clearly different": []}
    for name, gap in differences.items():
        side = "Not clearly different" if not abs(gap[0]) > SURE * gap[1] else "Clearly more" if gap[0] > 0 else "Clearly less"
        sides[side].append(f"{name} ({_points(gap, '+')})")
    for side, names in sides.items():
        if names:
            yield f"{side} than under the release map: {'; '.join(names)}.".replace("different than", "different from that")
    if not np.isnan(release["published_RP"]):
        yield f"The paper's RP in this setting is {release['published_RP']:g} points; ours differs by {release['RP_difference']:+.1f}."


def _caution(rows: pd.DataFrame, profile: str) -> str:
    """What these numbers cannot carry."""
    text = (
        f"**Caution.** ± is a standard error over error patterns; a difference is clear beyond {SURE:g} of them. Patterns of "
        "different error models are taken as unpaired. Each base model and generator was trained once: [the luck of training](seeds.ipynb) "
        "is not in the errors. Neighbouring seeds of the release map share random numbers. "
    )
    if rows["patterns"].min() < 10:
        text += "With so few patterns the standard errors are guesses themselves. "
    largest, words = rows["largest_layer"].max(), faults.MAP_ROWS * faults.MAP_COLUMNS // 8
    if largest <= words:
        text += f"No layer has more than {largest:,} weights and the map holds {words:,}, so *{PARTS[2]}* can only be chance here. "
    else:
        text += f"The largest layer has {largest:,} weights, {largest / words:.1f} times what the map holds. "
    behind = rows[rows["generator"] != "none"]
    if len(behind) and behind["steps"].max() < grids.OFFICIAL_GENERATOR["paper"].steps:
        text += f"Generators were trained for {show.trained(behind)}. {show.official()} "
    if profile == "smoke":
        text += "These are narrow models after a few epochs. "
    if "CIFAR-10" not in set(rows["dataset"]):
        text += f"Measured on {show.listed(rows['dataset'])}: not a conclusion about CIFAR-10. "
    return text + f"Only base recipe `release` under {LAWS[0]} is comparable with the paper."


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, what came out for each base model, whether it holds in both recipes, and how far it carries."""
    groups = list(_groups(rows))
    if not groups:
        return show.prose(show.progress(rows.iloc[:0], profile, "error_models"))
    measured = pd.concat([some for _, some in groups])
    lines = [show.progress(measured, profile, "error_models"), ""]
    clear = {}
    for (dataset, model, recipe, epochs, *_), some in groups:
        named = _laws(some)
        lines += [f"**{dataset} {model}, base recipe `{recipe}`** ({epochs} epochs, clean accuracy {some['CA'].iloc[0]:.1f} %)", ""]
        words = []
        for generator, behind in some[some["generator"] != "none"].groupby("generator", sort=False):
            words += _recovery_words(_laws(behind), generator)
        words += [*_damage_words(named), *_part_words(attribution(some))]
        lines += [*(f"* {word}" for word in words), ""]
        gap = _minus(_damage(named[0][1]), _damage(named[3][1]))
        if not np.isnan(gap[0]):
            clear.setdefault(recipe, []).append(gap[0] > SURE * gap[1])
    said = "; ".join(f"`{recipe}` in {sum(sure)} of {show.count(len(sure), 'base model')}" for recipe, sure in clear.items())
    both = "The other recipe is not measured" if len(clear) < 2 else "It holds in both recipes"
    both = both if all(all(sure) for sure in clear.values()) else "So it is not shown everywhere"
    if clear:
        lines += [f"**Both recipes?** The release map does clearly more damage than independent stuck-at cells: {said}. {both}.", ""]
    return show.prose("\n".join([*lines, _caution(measured, profile)]))
