"""The page "sensitivity": accuracy with errors in one bit, in one layer, and in the generator's memory too."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import figures, generators, report, show, tables
from nflib.cells import digest_of
from nflib.show import GROUP

EVERYWHERE, TOO = "everywhere", "generator too"
ABOUT = 0.8  # a loss of so much of the largest is named with it: a few chips do not tell the two apart
COLUMNS = [*GROUP, "patterns", "images", "generator", "imitation_steps", "steps", "hit", "weights", "clean", "accuracy", "std", "worst", "loss", "record"]
SHOWN = {
    **{name: report.SHOWN[name] for name in GROUP},
    "generator": "generator",
    "hit": "errors in",
    "weights": "weights",
    "clean": "without errors",
    "accuracy": "under errors",
    "std": "std",
    "worst": "worst chip",
    "loss": "loss",
}


def _place(hit: str) -> tuple[int, int]:
    """Order of rows: everywhere, bits, layers, generator too."""
    what, _, number = hit.partition(" ")
    return [EVERYWHERE, "bit", "layer", "generator"].index(what), int(number) if number.isdigit() else 0


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a system and place of errors.

    generator: "none" for the base model alone.  hit: "everywhere", "bit K" (of each code; bit 0 is the lowest), "layer K"
    (in the order of computing) or "generator too".  weights: of the layer.  clean: accuracy without errors; accuracy, std,
    worst: over error patterns; all in per cent; loss: clean - accuracy, in points.
    """
    rows = []
    for record in records:
        cell, after = record["cell"], np.array(record["metrics"]["perturbed"])
        setting, recipe, hit = tables.setting(record), cell["generator"], cell.get("hit") or EVERYWHERE
        row = {name: setting[name] for name in (*GROUP, "patterns", "images")} | {"hit": hit, "record": digest_of(cell)}
        row |= {"generator": generators.label(recipe["name"]) if recipe else "none", "steps": recipe["steps"] if recipe else 0}
        row["imitation_steps"] = recipe.get("imitation_steps", 0) if recipe else 0
        if hit.startswith("layer"):
            row["weights"] = record["metrics"]["layer_weights"][int(hit.split()[1]) - 1]
        row |= {"clean": record["metrics"]["clean"], "accuracy": after.mean(), "std": after.std(), "worst": after.min()}
        rows.append(row | {"loss": row["clean"] - row["accuracy"]})
    names = ["none", *generators.LABELS.values()]
    order = lambda row: (*(row[name] for name in GROUP), names.index(row["generator"]), row["steps"], _place(row["hit"]))  # noqa: E731
    return pd.DataFrame(sorted(rows, key=order), columns=COLUMNS)


def _groups(rows: pd.DataFrame):
    yield from rows.groupby(GROUP, sort=False)


def _systems(some: pd.DataFrame):
    """(words, rows) of each system that errors were limited in."""
    for (generator, _), rows in some.groupby(["generator", "steps"], sort=False):
        if (rows["hit"] != EVERYWHERE).any():
            yield "alone" if generator == "none" else f"behind {generator}", rows


def _bars(key: tuple, some: pd.DataFrame, what: str, xlabel: str) -> figures.Picture:
    """Points lost to errors in one bit or layer at a time, and everywhere at the right, a colour a system."""
    figure, (axis,) = figures._figure(height=3.6)
    systems = [(words, rows) for words, rows in _systems(some) if rows["hit"].str.startswith(what).any()]
    places = {hit for _, rows in systems for hit in rows["hit"] if hit.startswith(what) or hit == EVERYWHERE}
    places, said = sorted(places, key=lambda hit: (hit == EVERYWHERE, _place(hit))), []
    width, colours = 0.8 / max(1, len(systems)), figures.colours(words for words, _ in systems)
    for k, (words, rows) in enumerate(systems):
        here = rows[rows["hit"].isin(places)].sort_values("hit", key=lambda hits: hits.map(places.index), kind="stable")
        place = here["hit"].map(places.index) + (k - (len(systems) - 1) / 2) * width
        label = f"{words}, {here['clean'].iloc[0]:.1f} % without errors"
        axis.bar(place, here["loss"], width, yerr=here["std"], color=colours[words], label=label, error_kw={"linewidth": 1, "ecolor": "0.55"})
        said.append(f"{words}: " + ", ".join(f"{hit} {value:.1f}" for hit, value in zip(here["hit"], here["loss"])))
    axis.set_xticks(range(len(places)), [hit.removeprefix(f"{what} ").replace(EVERYWHERE, "all") for hit in places])
    axis.axhline(0, color="0.3", linewidth=1)
    axis.set(xlabel=xlabel, ylabel="points lost to errors")
    axis.set_title(f"{show.title(key)}\nthin lines: standard deviation over chips", fontsize=9)
    figure.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False)
    return figures.Picture(figure, f"Points lost to errors in one {what} only, {show.title(key)}. {'; '.join(said)}.")


def bits(rows: pd.DataFrame) -> HTML:
    """Points lost to errors in one bit of each code only."""
    label = "bit of the code that has errors (0: lowest; the highest is the sign)"
    return show.gallery([_bars(key, some, "bit", label) for key, some in _groups(rows) if some["hit"].str.startswith("bit").any()])


def layers(rows: pd.DataFrame) -> HTML:
    """Points lost to errors in one layer only."""
    label = "layer that has errors, in the order of computing"
    return show.gallery([_bars(key, some, "layer", label) for key, some in _groups(rows) if some["hit"].str.startswith("layer").any()])


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN)
    return show.table(shown.dropna(axis=1, how="all") if len(shown) else shown, "sensitivity")


# ------------------------------------------------------------------------------------------------------------ sentences


def most(parts: pd.DataFrame) -> pd.DataFrame:
    """The places whose errors cost most, and about as much (ABOUT), the dearest first."""
    ranked = parts.sort_values("loss", ascending=False, kind="stable")
    return ranked[ranked["loss"] >= ABOUT * ranked["loss"].iloc[0]]


def _largest(rows: pd.DataFrame, what: str) -> str:
    """Which bit or layer costs most, beside what errors everywhere cost."""
    parts, whole = rows[rows["hit"].str.startswith(what)], rows[rows["hit"] == EVERYWHERE]
    if parts.empty:
        return ""
    top = most(parts)
    first = top.iloc[0]
    if first["loss"] < 2 * first["std"] / np.sqrt(first["patterns"]):
        text = f" Errors in one {what} only cost nothing clear, at most {first['loss']:.1f} points"
    else:
        text = f" Errors in one {what} only cost most in {show.listed(top['hit'])}: {show.listed(f'{loss:.1f}' for loss in top['loss'])} points"
        if what == "layer":
            share = 100 * top["weights"].sum() / parts["weights"].sum()
            text += f" ({share:{'.0f' if share > 10 else '.2g'}} % of the weights)"
    return text + f"; those of the {len(parts)} {what}s measured, one by one, add up to {parts['loss'].sum():.1f}" + (
        f", errors everywhere cost {whole['loss'].iloc[0]:.1f}." if len(whole) else "."
    )


def _system(words: str, rows: pd.DataFrame) -> str:
    whole, too = rows[rows["hit"] == EVERYWHERE], rows[rows["hit"] == TOO]
    text = f"**{words[0].upper()}{words[1:]}**: {rows['clean'].iloc[0]:.1f} % without errors"
    text += f", {whole['accuracy'].iloc[0]:.1f} % with errors everywhere." if len(whole) else "."
    text += _largest(rows, "bit") + _largest(rows, "layer")
    if len(too) and len(whole):
        text += (
            f" If the generator's memory has them too: {too['accuracy'].iloc[0]:.1f} % (worst chip {too['worst'].iloc[0]:.1f} %), "
            f"{too['accuracy'].iloc[0] - whole['accuracy'].iloc[0]:+.1f} points."
        )
    return text


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and where errors cost most."""
    groups = [(key, some, list(_systems(some))) for key, some in _groups(rows)]
    shown = pd.concat([rows[:0], *(here for _, _, systems in groups for _, here in systems)])
    lines = [show.progress(shown, profile, "sensitivity")]
    for key, _, systems in groups:
        said = [f"* {_system(words, here)}" for words, here in systems]
        lines += [f"{show.title(key)}:", "\n".join(said)] if said else []
    return show.prose("\n\n".join(lines))
