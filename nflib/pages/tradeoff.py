"""The page "tradeoff": accuracy against net energy saving over the voltage, with generators, mitigations, and without either."""

import functools
import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import data, energy, figures, generators, models, show, tables
from nflib.cells import cell_of
from nflib.mitigations import MITIGATIONS
from nflib.pages import mechanism
from nflib.study import network

ALONE, INSTEAD = "alone", "instead"  # kinds: the base model; a small classifier in its place
ROBUST = "robust"  # kind: the same network, trained to resist errors, alone
GENERATOR, TOLD = "generator", "told"  # the paper's generators; this study's class patterns, told the class by an encoder
FRONTS = (GENERATOR, TOLD)
TOLERANCES = (1.0, 3.0)  # points of accuracy that may be lost
FEWEST_RATES = 4  # bit-error rates from which on points are a curve
TRAINED = {"clipped": "alone, trained with clipped weights", "randbet": "alone, trained on bit errors"}
SHOWN_LOSS = 15.0  # points of accuracy that the picture of savings shows
NEAR = 5.0  # a chip is good when it is at most so many points below the base model without errors
GROUP = ["dataset", "base_model", "base_recipe", "base_epochs", "error_model"]
MEASURED = ["ber_percent", "system", "kind", "patterns", "images", "CA", "clean", "accuracy", "std", "worst", "loss", "good_chips"]
COLUMNS = [*GROUP, *MEASURED, "voltage", "saving", "record"]
SHOWN = {
    "system": "system",
    **{name: name.replace("_", " ") for name in GROUP[1:]},  # without them rows of several base models look alike
    "ber_percent": "BER %",
    "voltage": "V/Vmin",
    "accuracy": "under errors",
    "worst": "worst chip",
    "good_chips": "good chips %",
    "saving": "net saving %",
    "clean": "without errors",
    "dataset": "data set",
}


def near(chips: np.ndarray, whole: float) -> np.ndarray:
    """Which chips are good, by their accuracies in per cent: at most NEAR points below `whole`, the base model without errors."""
    return chips >= whole - NEAR


@functools.cache
def _reads(kind: str, name: str, width: float, size: int) -> int:
    return energy.weight_reads(network(kind, name, width, size), size, proxy=False)


def front_reads(cell) -> float:
    """64-bit weight reads of what stands in front of a cell's base model, relative to the base model's own."""
    size = data.image_size(cell.base.dataset)
    if cell.generator is None:
        return 0.0
    pattern = 3 * size * size / energy.WEIGHTS_PER_WORD  # of one byte a number
    if cell.teller:
        reads = pattern + _reads("base", cell.teller.model, cell.teller.width, size)
    elif cell.generator.name in generators.CONTROLS:
        reads = pattern
    else:
        reads = _reads("generator", cell.generator.name, cell.generator.width, size)
    return reads / _reads("base", cell.base.model, cell.base.width, size)


def saving(cell, safe_ber: float = energy.SAFE_BER, ratio: float = energy.ENERGY_RATIO) -> float:
    """Net saving of weight-read energy in per cent of the base model's at Vmin: what stands in front reads at Vmin, a
    mitigation's further bits are read too."""
    low = energy.read_energy(cell.rate, safe_ber, ratio)
    if cell.mitigation:
        chosen = MITIGATIONS[cell.mitigation]
        low = (chosen.low * low + chosen.nominal) / 8
    return 100 * (1 - low - front_reads(cell))


def _system(cell) -> tuple[str, str]:
    """What is measured, and its kind: "alone", "robust", "mitigation", "generator", "told" or "instead"."""
    if cell.base.model in models.ENCODERS:
        return f"{models.label(cell.base.model)} alone, at Vmin", INSTEAD
    if cell.mitigation:
        return MITIGATIONS[cell.mitigation].label, "mitigation"
    if cell.generator is None and cell.base.recipe.name in TRAINED:
        return TRAINED[cell.base.recipe.name], ROBUST
    if cell.generator is None:
        return ALONE, ALONE
    if cell.teller:
        return f"class patterns, {models.label(cell.teller.model)}", TOLD
    return generators.label(cell.generator.name), GENERATOR


def _instead(base, record: dict) -> dict:
    """The row of an encoder, the base model of `record`, in the place of `base`."""
    cell, clean = cell_of(record["cell"]), record["metrics"]["clean"]
    size = data.image_size(base.dataset)
    reads = [_reads("base", model.model, model.width, size) for model in (cell.base, base)]
    system, kind = _system(cell)
    row = {"ber_percent": 0.0, "patterns": 0, "images": record["metrics"]["images"], "system": system, "kind": kind, "clean": clean}
    row |= {"accuracy": clean, "std": 0.0, "worst": clean, "voltage": 1.0, "saving": 100 * (1 - reads[0] / reads[1])}
    return row | {"record": cell.digest}


def frame(records: Iterable[dict], safe_ber: float = energy.SAFE_BER, ratio: float = energy.ENERGY_RATIO) -> pd.DataFrame:
    """A row a system and bit-error rate.

    system: the base model alone, with a mitigation, or behind a generator; in its place the same network, trained to resist
    errors, for as long, and measured on as many chips and images; or, at Vmin and without errors, the encoder of a generator,
    as a classifier of its own.  CA: of the base model alone, without errors; clean: of the system, without errors.
    accuracy, std, worst: over error patterns, in per cent; loss: CA - accuracy, in points; good_chips: per cent of the
    patterns under which the system is at most NEAR points below CA.  voltage: over Vmin.  saving: see `saving`.  Of systems that
    differ in training only, the one that was trained longest.
    """
    rows, clean, encoders, robust, settings = {}, {}, {}, [], {}
    alike = lambda base, row: (base.dataset, base.model, base.width, base.recipe.epochs, base.recipe.seed, row["patterns"], row["images"])  # noqa: E731
    length = lambda recipe: (recipe.get("imitation_steps", 0), recipe.get("steps", 0))  # noqa: E731
    for record in sorted(records, key=lambda record: length(record["cell"]["generator"] or {})):
        cell, setting, after = cell_of(record["cell"]), tables.setting(record), np.array(record["metrics"]["perturbed"])
        system, kind = _system(cell)
        if kind == INSTEAD:
            encoders[cell.base, cell.law] = record
            continue
        if kind == ALONE:
            clean[cell.base] = record["metrics"]["clean"]
        row = {name: setting[name] for name in (*GROUP, "ber_percent", "patterns", "images")} | {"system": system, "kind": kind}
        row |= {"clean": record["metrics"]["clean"], "accuracy": after.mean(), "std": after.std(), "worst": after.min(), "record": cell.digest}
        row |= {"voltage": energy.voltage(cell.rate, safe_ber), "saving": saving(cell, safe_ber, ratio)}
        if kind == ROBUST:
            robust.append((cell, after, row))
            continue
        settings[cell.base, cell.law] = {name: setting[name] for name in GROUP}
        rows[cell.base, cell.law, cell.rate, system] = (cell.base, after, row)
    for (base, law, rate), row in [(key[:3], row) for key, (_, _, row) in rows.items() if key[3] == ALONE]:
        for cell, after, other in robust:
            if (cell.law, cell.rate) == (law, rate) and alike(cell.base, other) == alike(base, row):
                rows[base, law, rate, other["system"]] = (base, after, other | settings[base, law])
    for (base, law), setting in settings.items():
        for (encoder, under), record in encoders.items():
            if (encoder.dataset, under) == (base.dataset, law):
                row = setting | _instead(base, record)
                rows[base, law, 0.0, row["system"]] = (base, np.array([row["clean"]]), row)
    found = []
    for base, after, row in rows.values():
        whole = clean.get(base, np.nan)
        good = 100 * near(after, whole).mean() if base in clean else np.nan
        found.append(row | {"CA": whole, "loss": whole - row["accuracy"], "good_chips": good})
    order = [ALONE, *TRAINED.values(), *(m.label for m in MITIGATIONS.values()), *generators.LABELS.values()]  # others last
    rank = lambda column: column.map(lambda s: (order.index(s) if s in order else len(order)) if column.name == "system" else s)  # noqa: E731
    return pd.DataFrame(found, columns=COLUMNS).sort_values([*GROUP, "system", "ber_percent"], key=rank, kind="stable").reset_index(drop=True)


def _groups(rows: pd.DataFrame):
    """(setting, rows) of each base model that was measured over the voltage: at FEWEST_RATES bit-error rates, or as many as any."""
    rates = {key: some.loc[some["kind"] == ALONE, "ber_percent"].nunique() for key, some in rows.groupby(GROUP, sort=False)}
    enough = min(FEWEST_RATES, max(rates.values(), default=0))
    for key, some in rows.groupby(GROUP, sort=False):
        if some["CA"].notna().any() and rates[key] >= enough:
            yield key, some


def _title(key: tuple) -> str:
    dataset, model, recipe, epochs, law = key
    return f"{dataset} {model}, base recipe {recipe} ({epochs} epochs), {law}"


# ------------------------------------------------------------------------------------------------------------- pictures


def _looks(some: pd.DataFrame) -> dict[str, dict]:
    """Colour and mark of each system, the same in every picture: black alone, dash-dotted trained otherwise, dashed with mitigations,
    coloured behind generators."""
    others = [*(m.label for m in MITIGATIONS.values()), *(f"class patterns, {models.label(name)}" for name in models.ENCODERS), *TRAINED.values()]
    palette = figures.colours([*figures.GENERATORS, *others])
    looks = {}
    for system, kind in some[["system", "kind"]].drop_duplicates().itertuples(index=False):
        line, mark = {"mitigation": ("--", "s"), ROBUST: ((0, (3, 1, 1, 1)), "^")}.get(kind, ("-", "o"))
        looks[system] = {"color": palette.get(system, "black"), "linestyle": line, "marker": mark}
    return looks


def _curves(key: tuple, some: pd.DataFrame, x: str, label: str, low: float | None = None, **axes) -> figures.Picture:
    """Accuracy against a column x.  low: points below the base model without errors at which the picture ends."""
    figure, (axis,) = figures._figure(height=4.2)
    whole, instead, some = some["CA"].iloc[0], some[some["kind"] == INSTEAD], some[some["kind"] != INSTEAD]
    axis.axhline(whole, color="0.45", linestyle=":", linewidth=1)
    for tolerance in TOLERANCES:
        axis.axhspan(whole - tolerance, whole, color="0.5", alpha=0.12, linewidth=0)
    for row, line in zip(instead.itertuples(), itertools.cycle(["-.", (0, (1, 1))])):
        said = f"{row.system}: {row.accuracy:.1f} %, saves {row.saving:.0f} %"
        axis.axhline(row.accuracy, color=mechanism.PINK, linestyle=line, linewidth=1.5, label=said, zorder=3)  # class patterns that it tells run along it
    for system, look in _looks(some).items():
        here = some[some["system"] == system].sort_values("ber_percent")
        axis.plot(here[x], here["accuracy"], label=system, markersize=5, **look)
        axis.plot(here[x], here["worst"], color=look["color"], marker="_", linestyle="none", alpha=0.6)
    limits = (0, 102) if low is None else (max(0, whole - low), max(whole, some["accuracy"].max()) + low / 10)
    axis.set(xlabel=label, ylabel="accuracy (%)", ylim=limits, **axes)
    axis.set_title(f"{_title(key)}\ndotted: the base model without errors; grey: 1 and 3 points below; small bars: the worst chip", fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    said = [f"{r.system}: {r.accuracy:.0f} %, saving {r.saving:.0f} %" for r in instead.itertuples()]
    said += [
        f"{r.system} at BER {r.ber_percent:g} %: {r.accuracy:.0f} %, saving {r.saving:.0f} %"
        for _, here in some.groupby("system", sort=False)
        for r in [here.loc[here["ber_percent"].idxmin()], here.loc[here["ber_percent"].idxmax()]]
    ]
    return figures.Picture(figure, f"Accuracy against {label}, {_title(key)}. {'; '.join(said)}.")


def against_saving(rows: pd.DataFrame) -> HTML:
    """Accuracy against net saving; each line follows a system from high voltage (left) to low."""
    return show.gallery([_curves(key, some, "saving", "net saving of weight-read energy (%)", SHOWN_LOSS) for key, some in _groups(rows)])


def against_rate(rows: pd.DataFrame) -> HTML:
    """Accuracy against the bit-error rate."""
    return show.gallery([
        _curves(key, some, "ber_percent", "bit-error rate (%)", some["CA"].iloc[0] - some["worst"].min(), xscale="log") for key, some in _groups(rows)
    ])  # fmt: skip


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded."""
    return show.table(rows[list(SHOWN)].rename(columns=SHOWN), "tradeoff", 2)


# ------------------------------------------------------------------------------------------------------------ sentences


def bargain(some: pd.DataFrame, kind: str, tolerance: float) -> dict | None:
    """The system of a kind with the largest net saving at a loss of at most `tolerance` points: {"system", "saving",
    "ber_percent"}; None where none loses so little and saves anything.

    Between two measured bit-error rates the saving is linear in the loss, the rate's logarithm too; beyond the last nothing
    is assumed.
    """
    found = []
    for system, points in some[some["kind"] == kind].groupby("system", sort=False):
        points = points.sort_values("ber_percent")
        fits = np.flatnonzero(points["loss"] <= tolerance)
        if len(fits):
            ends = points.iloc[fits[-1] : fits[-1] + 2]
            saving, rate = (np.interp(tolerance, ends["loss"], values) for values in (ends["saving"], np.log(ends["ber_percent"].clip(lower=1e-9))))
            found.append({"system": system, "saving": float(saving), "ber_percent": float(np.exp(rate))})
    best = max(found, key=lambda row: row["saving"], default=None)
    return best if best and best["saving"] > 0 else None


KINDS = {
    ALONE: "alone, at a higher voltage",
    ROBUST: "alone, trained to resist errors",
    "mitigation": "with a mitigation",
    GENERATOR: "behind a generator",
    TOLD: "behind class patterns that are told the class by a generator's encoder",
}


def _offers(some: pd.DataFrame, tolerance: float) -> list[tuple[str, str]]:
    """(kind in words, its largest net saving at a loss of at most `tolerance` points, in words) of each kind measured."""
    found = []
    for kind, words in KINDS.items():
        if (some["kind"] == kind).any():
            row = bargain(some, kind, tolerance)
            what = "" if kind == ALONE or row is None else f"{row['system'].removeprefix('alone, ')}, "
            if kind == GENERATOR:
                words += f" ({show.listed(some.loc[some['kind'] == kind, 'system'])})"
            found.append((words, f"**{row['saving']:.1f} %** ({what}BER {row['ber_percent']:.2g} %)" if row else "none"))
    return found


def _at_most(tolerance: float) -> str:
    return f"at most {tolerance:g} {'point' if tolerance == 1 else 'points'}"


def bargains(some: pd.DataFrame, tolerance: float) -> str:
    """The largest net saving of each kind at a loss of at most `tolerance` points, in a sentence."""
    offers = "; ".join(f"{words} {offer}" for words, offer in _offers(some, tolerance))
    return f"If {_at_most(tolerance)} of accuracy may be lost, the largest net saving is: {offers}."


def replaced(some: pd.DataFrame) -> str:
    """What a small classifier in the place of the base model would give, in words; "" where none is measured."""
    return " ".join(
        f"The {row.system}, in the place of the base model, without errors and without a generator: {row.accuracy:.1f} % and **{row.saving:.1f} %** saved."
        for row in some[some["kind"] == INSTEAD].itertuples()
    )


def beaten(some: pd.DataFrame, kinds: Iterable[str] = (ALONE,)) -> pd.DataFrame:
    """The rows behind generators, or class patterns in their place, for which another system, of one of `kinds`, is at least as
    accurate and saves at least as much at some measured voltage, be it the same."""
    others, front = some[some["kind"].isin(list(kinds))], some[some["kind"].isin(FRONTS)]
    worse = [((others["accuracy"] >= row.accuracy) & (others["saving"] >= row.saving)).any() for row in front.itertuples()]
    return front[np.array(worse, bool)]


def _said(key: tuple, some: pd.DataFrame) -> str:
    """The largest net savings as a table, and how many points with a generator are beaten."""
    text = f"**{_title(key)}.** Without errors {some['CA'].iloc[0]:.1f} %. The largest net saving, if accuracy may fall by\n\n"
    text += f"| | {' | '.join(map(_at_most, TOLERANCES))} |\n|---|{'---|' * len(TOLERANCES)}\n"
    for offers in zip(*(_offers(some, tolerance) for tolerance in TOLERANCES)):
        text += f"| {offers[0][0]} | {' | '.join(offer for _, offer in offers)} |\n"
    text += f"\n{replaced(some)}"
    front = some[some["kind"].isin(FRONTS)]
    if len(front):
        text += (
            f" Of the {show.count(len(front), 'point')} with a generator or class patterns (system and bit-error rate), {len(beaten(some))} are "
            "beaten by the base model alone at some voltage that was measured, in accuracy and in saving"
        )
        if (some["kind"] == "mitigation").any():
            text += f"; by that or a mitigation, {len(beaten(some, (ALONE, 'mitigation')))}"
        if (some["kind"] == ROBUST).any():
            text += f"; by the same network trained to resist errors, {len(beaten(some, (ROBUST,)))}"
        text += "."
    return text


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and what the largest savings are at a small loss."""
    groups = list(_groups(rows))
    shown = pd.concat([rows[:0], *(some for _, some in groups)])
    lines = [_said(key, some) for key, some in groups]
    others = [*(m.label for m in MITIGATIONS.values()), *TRAINED.values()]
    missing = [label.replace("alone,", "the same network") for label in others if label not in set(shown["system"])]
    if missing and lines:
        lines.append(f"Not measured here: {show.listed(missing)}.")
    return show.prose("\n\n".join([show.progress(shown[shown["kind"] != INSTEAD].assign(generator="none"), profile, "tradeoff"), *lines]))


def assumptions(records: list[dict], ratio: float = energy.ENERGY_RATIO) -> HTML:
    """The largest net saving at the smallest of TOLERANCES, for other bit-error rates that may be assumed at Vmin."""
    rows = []
    for safe in (1e-7, 1e-6, 1e-5, 1e-4):
        for key, some in _groups(frame(records, safe, ratio)):
            row = {**dict(zip((SHOWN[name] for name in GROUP), key)), "BER at Vmin": f"{safe:.0e}"}
            row["saved at BER 0.1 %"] = 100 * (1 - energy.read_energy(0.001, safe, ratio))
            for kind in KINDS:
                found = bargain(some, kind, TOLERANCES[0])
                none = "none" if (some["kind"] == kind).any() else "not measured"
                row[f"{'class patterns' if kind == TOLD else kind}, largest net saving"] = f"{found['saving']:.1f}" if found else none
            rows.append(row)
    return show.table(pd.DataFrame(rows), "tradeoff_assumptions")
