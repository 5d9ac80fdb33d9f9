"""Pictures of the tidy frame: one house style, five shapes (ladder, curve, bars, heat map, scatter), SVG with alt text.

Every shape takes rows of `nflib.report.frame` and names of its columns, and gives a `Picture`.  What is special to one
experiment is drawn in its notebook, on axes of `panels`, and shown as a `Picture` too.
"""

import base64
import html
import io
import itertools
import textwrap
from collections.abc import Iterable

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nflib import generators
from nflib.report.show import PER_CENT, head, keep, values_of

STYLE = {
    "svg.hashsalt": "nflib",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib: equal letters on every machine
    "font.size": 10,  # all letters: 9 pixels on a phone of 390, 16 in a wide window (see nflib.css)
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
matplotlib.rcdefaults()  # a user's matplotlibrc changes no picture of the book
matplotlib.rcParams.update(STYLE)
PALETTE, DARK = (sns.color_palette(name, 10).as_hex() for name in ("colorblind", "dark"))
COLOURS = {  # one colour a thing, in the whole book
    "alone": "#222222", "none": "#222222",
    **dict(zip(generators.LABELS.values(), PALETTE)),
    "ReleaseMap": PALETTE[0], "BitFlips": PALETTE[1], "StuckAt": PALETTE[2],
    "distillation": "#01665e", "EOPM": "#a6762d", "faded EOPM": "#f07c00", "official EOPM": "#5b3000",
    "distillation, then EOPM": "#80cdc1", "published": "#c1121f",
    "the image": PALETTE[9], "the perturbation": "#5e3c99",
}  # fmt: skip
WIDTH = 5.5  # inches: a picture shrinks to a phone
LETTERS = 13  # in an inch of a line, about


class Picture:
    """A figure with its alternative text; notebooks show it as an SVG image that fits the column.

    name: also kept as NAME.svg among the results (see `show.keep`).
    """

    def __init__(self, figure: Figure, alt: str, name: str = ""):
        out = io.StringIO()
        _wrap(figure)
        figure.savefig(out, format="svg", metadata={"Date": None})
        self.svg, self.alt = out.getvalue(), alt
        if name:
            keep(f"{name}.svg", self.svg)

    def _repr_html_(self) -> str:
        source = base64.b64encode(self.svg.encode()).decode()
        return f'<img class="nflib-picture" src="data:image/svg+xml;base64,{source}" alt="{html.escape(self.alt)}"/>'


def _wrap(figure: Figure) -> None:
    """Give titles and labels of axes as many lines as it takes to stay beside their panel."""
    figure.draw_without_rendering()
    for axis in figure.axes:
        width, height = (max(8, int(inches * LETTERS)) for inches in axis.get_window_extent().size / figure.dpi)
        texts = {"title": axis.get_title("left"), "xlabel": axis.get_xlabel(), "ylabel": axis.get_ylabel()}
        for kind, text in texts.items():
            room = height if kind == "ylabel" else width
            axis.set(**{kind: "\n".join(textwrap.fill(line, room) for line in text.split("\n"))})


def _legend(figure: Figure, handles: Iterable, labels: Iterable) -> None:
    """A legend below the panels, in as many columns as there is room for; the figure grows with its lines."""
    labels = [str(label) for label in labels]
    room = int(figure.get_figwidth() * LETTERS / (max(map(len, labels)) + 8))  # 8: the sign and the space around
    columns = min(max(room, 1), 4)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, len(labels) / columns - 2))
    figure.legend(list(handles), labels, loc="outside lower center", ncols=columns)


def colours(values: Iterable) -> dict:
    """The colour of each value: the book's own where it has one, else others of the palette in order."""
    values = list(dict.fromkeys(values))
    taken = {COLOURS.get(value) for value in values}
    others = itertools.cycle([c for c in PALETTE[6:] + PALETTE[:6] + DARK if c not in taken] or PALETTE)
    return {value: COLOURS.get(value) or next(others) for value in values}


def panels(count: int = 1, height: float = 3.2, columns: int = 0, **options) -> tuple[Figure, list[Axes]]:
    """A figure in house style with `count` axes side by side (or in `columns` columns); height: of one row, in inches."""
    columns = columns or max(1, min(count, 2))
    rows = -(-max(count, 1) // columns)
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[:count]:
        axis.grid(True, color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes[:count]


def _groups(rows: pd.DataFrame, by: str | None) -> list[tuple[str, pd.DataFrame]]:
    """Panels: (title, rows)."""
    return [(str(name), some) for name, some in rows.groupby(by, sort=False)] if by else [("", rows)]


def ladder(
    rows: pd.DataFrame, by: str = "generator", panel: str | None = None, alt: str = "", name: str = "", hue: str | None = None
) -> Picture:
    """From the base model alone (hollow) to the system (filled), a line a row; bar: standard deviation over chips.

    A red diamond is the paper's number.  by: what names a line; panel: a column with a panel for each value, side by side
    where all have the same lines, else one below the other; hue: a column with a colour for each value (else a line has one).
    """
    groups, paint = _groups(rows[rows["recovery"].notna()], panel), colours(rows[hue or by])
    lines = [list(dict.fromkeys(some[by])) for _, some in groups]
    labels = list(dict.fromkeys(label for some in lines for label in some))
    if alike := all(len(some) == len(labels) for some in lines):
        lines, layout = [labels] * len(lines), {"height": 1.2 + 0.32 * len(labels), "sharey": True}
    else:
        heights = [len(some) + 0.2 for some in lines]
        layout = {"height": 0.36 + 0.3 * sum(heights) / len(lines), "columns": 1, "sharex": True, "height_ratios": heights}
    figure, axes = panels(len(groups), **layout)
    for (title, some), axis, names in zip(groups, axes, lines):
        for row in some.to_dict("records"):
            y = names.index(row[by])
            axis.plot([row["perturbed_alone"], row["perturbed"]], [y, y], color="0.75", linewidth=3, zorder=1)
            axis.plot(row["perturbed_alone"], y, "o", color="white", markeredgecolor="black", zorder=2)
            axis.errorbar(row["perturbed"], y, xerr=row["std"], fmt="o", color=paint[row[hue or by]], zorder=3)
            axis.plot(row["published_perturbed"], y, "D", color="none", markeredgecolor=COLOURS["published"], markersize=8, zorder=4)
        axis.set(title=title, xlim=(0, 102), xlabel="accuracy under errors (%)" if alike or axis is axes[-1] else "")
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.4, -0.6)
    best = rows.loc[rows["recovery"].idxmax()]
    said = alt or f"Accuracy under errors without and with each of {', '.join(map(str, labels))}."
    return Picture(figure, f"{said} Largest recovery: {best[by]}, {best['recovery']:.1f} points.", name)


def curve(
    rows: pd.DataFrame, x: str, y: str, hue: str, panel: str | None = None, error: str | None = None,
    alt: str = "", name: str = "", **limits,
) -> Picture:  # fmt: skip
    """Lines of y over x, one for each value of `hue`; error: column whose values (±) are shaded.

    limits: xlim, ylim and other properties of the axes.
    """
    groups, paint = _groups(rows, panel), colours(rows[hue])
    figure, axes = panels(len(groups), 3.4, sharey=True)
    for (title, some), axis in zip(groups, axes):
        for label, line in some.groupby(hue, sort=False):
            line = line.sort_values(x)
            places, heights = values_of(line, x), values_of(line, y)
            axis.plot(places, heights, "o-", color=paint[label], markersize=4, label=str(label))
            if error:
                axis.fill_between(places, heights - line[error], heights + line[error], color=paint[label], alpha=0.15)
        axis.set(title=title, xlabel=head(x), ylabel=head(y) if axis is axes[0] else "", **limits)
    handles = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels())))
    _legend(figure, handles.values(), handles)
    return Picture(figure, alt or f"{head(y)} over {head(x)} for {', '.join(map(str, paint))}.", name)


def bars(
    rows: pd.DataFrame, x: str, y: str, hue: str | None = None, error: str | None = None,
    published: str | None = None, panel: str | None = None, alt: str = "", name: str = "", **limits,
) -> Picture:  # fmt: skip
    """Horizontal bars of y for each value of x, side by side for each value of `hue`.

    error: column whose values (±) are drawn at the ends; published: column of the paper's numbers, red diamonds.
    """
    groups = _groups(rows, panel)
    places = list(dict.fromkeys(rows[x]))
    hues = list(dict.fromkeys(rows[hue])) if hue else [None]
    paint = colours(hues if hue else places)
    figure, axes = panels(len(groups), 1.2 + 0.26 * len(places) * len(hues), sharey=True)
    for (title, some), axis in zip(groups, axes):
        for row in some.to_dict("records"):
            k = hues.index(row[hue]) if hue else 0
            where = places.index(row[x]) + 0.8 * ((k + 0.5) / len(hues) - 0.5)
            axis.barh(where, row[y], 0.75 / len(hues), color=paint[row[hue] if hue else row[x]], xerr=row[error] if error else None)
            if row[y] == 0:  # measured, unlike a bar that is missing
                axis.text(0, where, " 0", va="center", fontsize="small")
            if published:
                axis.plot(row[published], where, "D", color="white", markeredgecolor=COLOURS["published"], markersize=6, zorder=4)
        axis.set(title=title, xlabel=head(y), **limits)
        texts = [f"{value:g} %" if x in PER_CENT else str(value) for value in values_of(pd.DataFrame({x: places}), x)]
        axis.set_yticks(range(len(places)), texts)
    axes[0].set_ylim(len(places) - 0.5, -0.5)
    if hue:
        boxes = [matplotlib.patches.Patch(color=paint[value]) for value in hues]
        _legend(figure, boxes, hues)
    return Picture(figure, alt or f"{head(y)} by {head(x)}{f' and {head(hue)}' if hue else ''}.", name)


def heatmap(
    rows: pd.DataFrame, index: str, columns: str, values: str, panel: str | None = None, alt: str = "", name: str = "",
    **options,
) -> Picture:  # fmt: skip
    """A coloured table of `values`, the mean where several rows share a place; options: of seaborn.heatmap."""
    groups = _groups(rows.assign(**{name: values_of(rows, name) for name in (index, columns, values)}), panel)
    tables = [some.pivot_table(index=index, columns=columns, values=values, sort=False) for _, some in groups]
    figure, axes = panels(len(groups), 1.4 + 0.35 * max(len(table) for table in tables))
    shown = {"annot": True, "fmt": ".0f", "cmap": "vlag", "center": 0, "cbar": False, "linewidths": 1} | options
    for (title, _), table, axis in zip(groups, tables, axes):
        axis.grid(False)
        sns.heatmap(table, ax=axis, **shown)
        axis.set(title=title, xlabel=head(columns), ylabel=head(index) if axis is axes[0] else "")
        axis.tick_params(axis="y", rotation=0, labelleft=axis is axes[0] or list(table.index) != list(tables[0].index))
        axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return Picture(figure, alt or f"{head(values)} by {head(index)} and {head(columns)}.", name)


def scatter(
    rows: pd.DataFrame, x: str, y: str, hue: str | None = None, label: str | None = None, alt: str = "", name: str = "",
    **limits,
) -> Picture:  # fmt: skip
    """Points of y over x, coloured by `hue`, each labelled with the column `label`; limits: properties of the axes."""
    figure, (axis,) = panels(1, 4.2)
    paint = colours(rows[hue]) if hue else {None: PALETTE[0]}
    for value, some in rows.groupby(hue, sort=False) if hue else [(None, rows)]:
        axis.plot(values_of(some, x), values_of(some, y), "o", color=paint[value], markersize=6, alpha=0.8, label=value)
    for row in rows.to_dict("records") if label else ():
        axis.annotate(str(row[label]), (row[x], row[y]), (5, 2), textcoords="offset points")
    if hue:
        _legend(figure, *axis.get_legend_handles_labels())
    axis.set(xlabel=head(x), ylabel=head(y), **limits)
    if axis.get_xscale() == "log":
        axis.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    return Picture(figure, alt or f"{head(y)} against {head(x)}, {len(rows)} points.", name)
