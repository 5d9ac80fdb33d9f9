"""Pictures of the tables: one house style, SVG, alt text."""

import base64
import io
import itertools
from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from nflib import generators, tables

COLOURS = dict(zip(["ReleaseMap", "BitFlips", "StuckAt"], sns.color_palette("colorblind", 3)))
OTHER_COLOUR = sns.color_palette("colorblind")[4]  # of other error models, such as a profiled chip's
GENERATORS = dict(zip(generators.LABELS.values(), sns.color_palette("colorblind", 6)))  # colour of each, where all six may be in a picture
DARK = sns.color_palette("dark", 10)  # of what is no generator
STYLE = {
    "svg.hashsalt": "nflib",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",  # a phone shows a picture's left part first
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
}
TITLE = {"x": 0.01, "ha": "left"}  # where a picture's title begins


def _figure(columns: int = 1, width: float = 7.0, height: float = 3.2, **options):
    sns.set_theme(style="whitegrid", rc=STYLE)
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False, **options)[0]


def colours(systems: Iterable[str]) -> dict:
    """The colour of each system: with or without "behind" before it, a generator has its own in every picture; the base model
    alone is black; what else there is has dark ones, in the order given."""
    others = itertools.cycle(DARK)
    known = {"alone": "black", "none": "black"} | GENERATORS
    return {system: known.get(system.removeprefix("behind ")) or next(others) for system in dict.fromkeys(systems)}


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same bytes for the same content."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


class Picture:
    """A figure with its alternative text, as notebooks show it: an SVG image that fits the column."""

    def __init__(self, figure: Figure, alt: str):
        axes = figure.axes
        if len(axes) == 1 and (title := axes[0].get_title("left")) and not figure.get_suptitle():  # wide labels leave it no room above the panel
            axes[0].set_title("", loc="left")
            figure.suptitle(title, fontsize=9, **TITLE)
        self.text, self.alt = svg(figure), alt

    def _repr_html_(self) -> str:
        encoded = base64.b64encode(self.text.encode()).decode()
        alt = self.alt.replace('"', "'")
        return f'<div class="nflib-picture"><img src="data:image/svg+xml;base64,{encoded}" alt="{alt}"/></div>'


def chips(records: list[dict], ber_percent: float = 1.0) -> Picture:
    """Accuracy of each perturbed model, a dot per error pattern, of one base model without a generator, by error model.

    Raises ValueError where the records are of several base models or data sets.
    """
    rows, names = [], set()
    for record in records:
        where = tables.setting(record)
        if record["cell"]["generator"] is None and where["ber_percent"] == ber_percent:
            names.add(f"{where['dataset']} {where['base_model']}")
            same = {"recipe": where["base_recipe"], "epochs": where["base_epochs"], "law": where["error_model"]}
            rows += [same | {"PA": value} for value in record["metrics"]["perturbed"]]
    (name,) = names
    frame = pd.DataFrame(rows, columns=["recipe", "epochs", "law", "PA"])
    order = _laws(frame["law"])
    recipes = [r for r in ("release", "modern") if r in set(frame["recipe"])]
    frame = frame[frame["recipe"].isin(recipes)]
    figure, axes = _figure(max(1, len(recipes)), height=3.0, sharey=True)
    for axis, recipe in zip(axes, recipes):
        here = frame[frame["recipe"] == recipe]
        _dots(axis, here, order)
        epochs = " and ".join(f"{count}" for count in sorted(here["epochs"].unique()))
        axis.set(title=f"{name}, {recipe}, {epochs} epochs", xlabel="", ylabel="PA (%)" if axis is axes[0] else "", ylim=(0, 100))
    means = frame.groupby(["recipe", "law"], sort=False)["PA"].mean()
    said = "; ".join(f"{recipe}, {law}: mean {value:.0f} %" for (recipe, law), value in means.items())
    return Picture(figure, f"{name}: perturbed accuracy of each error pattern at {ber_percent:g} % bit-error rate. {said}.")


def _laws(found: pd.Series) -> list[str]:
    """Error models in the order in which they are drawn: those with a colour of their own, then others by name."""
    return sorted(set(found), key=lambda law: (law not in COLOURS, list(COLOURS).index(law) if law in COLOURS else 0, law))


def _dots(axis, frame: pd.DataFrame, order: list[str]) -> None:
    """A dot per pattern, spread sideways evenly (no chance in a picture), and a bar at the mean."""
    for place, law in enumerate(order):
        values = np.sort(frame.loc[frame["law"] == law, "PA"].to_numpy())
        side = place + 0.22 * ((np.arange(len(values)) * 0.618) % 1 * 2 - 1)
        axis.plot(side, values, "o", color=COLOURS.get(law, OTHER_COLOUR), alpha=0.7, markersize=4)
        if len(values):
            axis.hlines(values.mean(), place - 0.3, place + 0.3, color="black", linewidth=1.5)
    axis.set_xticks(range(len(order)), order)
    axis.set_xlim(-0.6, len(order) - 0.4)


def under_errors_and_without(axis, row, y: float, colour) -> None:
    """A row with accuracy, std and clean: filled under errors, with the standard deviation over chips; hollow without errors."""
    axis.errorbar(row.accuracy, y, xerr=row.std, fmt="o", color=colour, markersize=5, linewidth=1)
    axis.plot(row.clean, y, "o", color="white", markeredgecolor=colour, markersize=5)


def recovery(frame: pd.DataFrame, title: str = "") -> Picture:
    """From PA to PA(NF), a line a generator, a panel an error model; bars are the standard deviation over patterns.

    frame: rows of `tables.accuracy` of one data set, base recipe and bit-error rate.  Hollow diamonds: published PA(NF),
    drawn where error model and base recipe are the official code's.
    """
    rows = frame[frame["generator"] != "none"]
    laws = _laws(rows["error_model"])
    labels = list(dict.fromkeys(rows["base_model"] + " + " + rows["generator"]))
    figure, axes = _figure(max(1, len(laws)), height=1.1 + 0.24 * max(3, len(labels)), sharey=True)
    for axis, law in zip(axes, laws):
        for row in rows[rows["error_model"] == law].itertuples():
            y = labels.index(f"{row.base_model} + {row.generator}")
            axis.plot([row.PA, row.PA_NF], [y, y], color="0.6", linewidth=2, zorder=1)
            axis.plot(row.PA, y, "o", color="white", markeredgecolor="black", markersize=5, zorder=2)
            axis.errorbar(
                row.PA_NF, y, xerr=row.PA_NF_std, fmt="o", color=COLOURS.get(law, OTHER_COLOUR), markersize=6, linewidth=1, zorder=3
            )
            if not np.isnan(row.published_PA_NF):
                axis.plot(row.published_PA_NF, y, "D", color="none", markeredgecolor="crimson", markersize=6, zorder=4)
        axis.set(title=law, xlim=(0, 102), xlabel="accuracy (%)")
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    if title:
        figure.suptitle(title, fontsize=10, **TITLE)
    best = rows.sort_values("RP").tail(1)
    said = "".join(f" Largest recovery {r.RP:.1f} points: {r.base_model} with {r.generator}." for r in best.itertuples())
    return Picture(figure, f"Perturbed accuracy without (hollow) and with (filled) each generator.{said}")


def energy_scatter(saving: pd.DataFrame, gain: pd.DataFrame, x: str, xlabel: str) -> Picture:
    """Recovery against energy saving (Figures 1b, 5 and 6): published points, and ours where measured.

    saving: `tables.energy_saving()`; gain: columns base_model, generator, published (RP) and measured (RP, may be missing);
    x: column of `saving`.
    """
    rows = saving.merge(gain, on=["base_model", "generator"])
    markers = dict(zip(rows["base_model"].unique(), "osD^v"))
    figure, (axis,) = _figure(height=3.8)
    for row in rows.itertuples():
        place, colour = getattr(row, x), GENERATORS[row.generator]
        axis.plot(place, row.published, markers[row.base_model], color=colour, alpha=0.75, markersize=7)
        if not np.isnan(row.measured):
            axis.plot(place, row.measured, markers[row.base_model], color=colour, markeredgecolor="black", markeredgewidth=2, markersize=11)
    for name, colour in GENERATORS.items():
        axis.plot([], [], "s", color=colour, label=name)
    for name, marker in markers.items():
        axis.plot([], [], marker, color="0.4", label=name)
    if rows["measured"].notna().any():
        axis.plot([], [], "s", color="0.8", markeredgecolor="black", markeredgewidth=2, markersize=11, label="measured here")
    axis.axvline(0, color="0.5", linewidth=1)
    axis.set(xlabel=xlabel, ylabel="recovery RP (points)")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    best = rows.loc[rows["published"].idxmax()]
    said = f"Largest published recovery: {best['base_model']} with {best['generator']}, {best['published']:g} points."
    return Picture(figure, f"Recovery against {xlabel}, 30 pairs of base model and generator. {said}")
