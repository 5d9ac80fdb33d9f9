"""The page "shift": recovery on test images that are shifted in a way that nothing was trained on."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import figures, generators, models, report, show, tables
from nflib.cells import digest_of
from nflib.shifts import SHIFTS
from nflib.show import GROUP

ALONE, NONE = "alone", "as they are"
SURE = 2.0  # standard errors beyond which a recovery is called one
LABELS = {"": NONE, **{name: name.replace("_", " ") for name in SHIFTS}}
COLUMNS = [*GROUP, "patterns", "images", "system", "generator", "imitation_steps", "steps", "shift", "clean", "accuracy", "std", "worst"]
COLUMNS += ["gain", "gain_error", "record"]
SHOWN = {
    **{name: report.SHOWN[name] for name in GROUP},
    "system": "system",
    "shift": "test images",
    "clean": "without errors",
    "accuracy": "under errors",
    "std": "± std",
    "worst": "worst chip",
    "gain": "recovery",
    "gain_error": "± error",
}


def _system(cell: dict) -> str:
    if cell["generator"] is None:
        return ALONE
    if cell.get("teller"):
        return f"class patterns, {models.label(cell['teller']['model'])}"
    return f"behind {generators.label(cell['generator']['name'])}"


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a system and shift.

    system: the base model "alone", "behind" a generator, or with class patterns that an encoder tells the class.  shift: one of
    LABELS.  clean: accuracy without errors; accuracy, std, worst: over error patterns; all in per cent.  gain, gain_error:
    mean of accuracy less that of the base model alone under the same shift on the same chips, and its standard error, in points.
    """
    records = [record for record in records if record["cell"]["table"] in ("accuracy", "shift")]
    rows, alone, after = [], {}, {digest_of(record["cell"]): np.array(record["metrics"]["perturbed"]) for record in records}
    key = lambda record: (*(tables.setting(record)[name] for name in tables.KEYS), record["cell"].get("shift", ""))  # noqa: E731
    for record in records:
        if record["cell"]["generator"] is None:
            alone[key(record)] = digest_of(record["cell"])
    for record in records:
        cell, setting, recipe = record["cell"], tables.setting(record), record["cell"]["generator"] or {}
        row = {name: setting[name] for name in (*GROUP, "patterns", "images")} | {"record": digest_of(cell)}
        chips = after[row["record"]]
        row |= {"system": _system(cell), "generator": generators.label(recipe["name"]) if recipe else "none"}
        row |= {"steps": recipe.get("steps", 0), "imitation_steps": recipe.get("imitation_steps", 0)}
        row |= {"shift": LABELS[cell.get("shift", "")], "clean": record["metrics"]["clean"]}
        row |= {"accuracy": chips.mean(), "std": chips.std(), "worst": chips.min()}
        if recipe and key(record) in alone:
            row["gain"], row["gain_error"] = tables.paired(after, row["record"], [alone[key(record)]])
        rows.append(row)
    places, names = list(LABELS.values()), [ALONE, *(f"behind {name}" for name in generators.LABELS.values())]
    order = lambda row: (*(row[name] for name in GROUP), (names.index(row["system"]) if row["system"] in names else 9, row["system"]),
                         row["imitation_steps"], row["steps"], places.index(row["shift"]), row["record"])  # noqa: E731  # fmt: skip
    return pd.DataFrame(sorted(rows, key=order), columns=COLUMNS)


def _groups(rows: pd.DataFrame):
    """(setting, rows) of each base model that was measured under a shift."""
    for key, some in rows.groupby(GROUP, sort=False):
        if (some["shift"] != NONE).any():
            yield key, some


def picture(key: tuple, some: pd.DataFrame) -> figures.Picture:
    """Accuracy of each system by shift: filled under errors, with the standard deviation over chips; hollow without errors."""
    systems, places = list(dict.fromkeys(some["system"])), [name for name in LABELS.values() if name in set(some["shift"])]
    figure, (axis,) = figures._figure(height=1.4 + 0.16 * len(systems) * len(places))
    said = []
    for k, (system, colour) in enumerate(figures.colours(systems).items()):
        for row in some[some["system"] == system].itertuples():
            y = places.index(row.shift) + 0.8 * ((k + 0.5) / len(systems) - 0.5)
            figures.under_errors_and_without(axis, row, y, colour)
            said.append(f"{row.shift}, {system}: {row.accuracy:.0f} % (without errors {row.clean:.0f} %)")
        axis.plot([], [], "o", color=colour, label=system)
    axis.plot([], [], "o", color="white", markeredgecolor="0.3", label="without errors")
    for y in range(len(places) - 1):
        axis.axhline(y + 0.5, color="0.85", linewidth=1)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="accuracy (%)", xlim=(0, 101), ylim=(len(places) - 0.5, -0.5))
    axis.set_yticks(range(len(places)), places)
    axis.set_title(show.title(key), fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figures.Picture(figure, f"Accuracy on shifted test images, {show.title(key)}. {'; '.join(said)}.")


def pictures(rows: pd.DataFrame) -> HTML:
    """`picture` of each base model."""
    return show.gallery([picture(key, some) for key, some in _groups(rows)])


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN)
    return show.table(shown.dropna(axis=1, how="all") if len(shown) else shown, "shift")


# ------------------------------------------------------------------------------------------------------------ sentences


def _kept(here: pd.DataFrame) -> str:
    """What one system recovers on images as they are and under each shift, and what shifts cost it without errors."""
    here = here.set_index("shift")
    moved = here.drop(index=NONE, errors="ignore")
    parts = [f"{row.Index} {show.points(row.gain, row.gain_error)}" for row in here.itertuples() if not np.isnan(row.gain)]
    sure = int((moved["gain"] > SURE * moved["gain_error"]).sum())
    text = f"recovery in points: {'; '.join(parts) or 'not known, for the base model alone is missing'}. More than {SURE:g} standard errors above zero under {sure} of {show.count(len(moved), 'shift')}."
    if NONE in here.index and len(moved):
        worst = moved["clean"].idxmin()
        text += f" Without errors the hardest shift, {worst}, costs it {here.loc[NONE, 'clean'] - moved.loc[worst, 'clean']:.1f} points"
        return f"{text}, to {moved.loc[worst, 'clean']:.1f} %."
    return text


def answer(some: pd.DataFrame) -> str | None:
    """In two sentences what shifts do to the recovery of one base model's systems; None without any."""
    behind = some[(some["system"] != ALONE) & some["gain"].notna()]
    moved = behind[behind["shift"] != NONE]
    if moved.empty:
        return None
    sure = (moved["gain"] > SURE * moved["gain_error"]).sum()
    best = behind[behind["system"] == behind.loc[behind["accuracy"].idxmax(), "system"]].set_index("shift")
    said = [f"{row.accuracy:.1f} % ({row.Index})" for row in best.itertuples()]
    alone = some[some["system"] == ALONE].set_index("shift").loc[best.index]
    also = [f"{row.accuracy:.1f}" for row in alone.itertuples()]
    return (
        f"In {sure} of {show.count(len(moved), 'pair')} of shift and system the recovery stays more than {SURE:g} standard errors above zero. "
        f"{alone['base_model'].iloc[0]} behind {best['system'].iloc[0]} under errors: {', '.join(said)}; alone: {', '.join(also)} %."
    )


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and how much of the recovery each shift leaves."""
    lines = [show.progress(rows, profile, "shift")]
    for key, some in _groups(rows):
        alone = some[some["system"] == ALONE]
        words = "; ".join(f"{row.shift} {row.accuracy:.1f} ({row.clean:.1f})" for row in alone.itertuples())
        said = [f"* **Alone**, in per cent under errors, in brackets without: {words}."] if words else []
        for system, here in some[some["system"] != ALONE].groupby("system", sort=False):
            said.append(f"* **{system[0].upper()}{system[1:]}**: {_kept(here)}")
        lines += [f"{show.title(key)}:", "\n".join(said)]
    return show.prose("\n\n".join(lines))
