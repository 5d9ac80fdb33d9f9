"""Page "base_recipe": how much there is to recover under each recipe of the base model, and what in the damaged model goes
with it."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown
from matplotlib.ticker import LogLocator

from nflib import figures, recipes, report, show
from nflib.recipes import AGAINST, CHANCE, FEW, GOES, GROUP, NEVER, STATISTICS, after_cuts, changes, correlations, groups
from nflib.recipes import frame as frame  # what `derive` asks a page for
from nflib.training import VARIED

NAME = "base_recipe"
SURE = 2.0  # standard errors beyond which a difference is called one
CLEAR = 1.15  # factor of noise from which on its cause is named
MATTERS = 5.0  # points of CA - PA between recipes from which on the recipe is said to matter
SHOWN = report.SHOWN | {
    "recipe": "recipe", "base_recipe": "name", "weight_decay": "weight decay", "bit_errors_percent": "training on bit errors %", "to_recover": "CA − PA",
    "silent_percent": "silent %", "range_over_rms": "range / rms", "weight_noise": "weight noise", "own_noise": "own noise",
    "shift_percent": "common offset %", "logit_noise": "noise in logits", "margin_over_noise": "margin / noise", "precision": "trained in",
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- pictures


def _ladder(title: str, some: pd.DataFrame) -> figures.Picture:
    """PA under each error model of each recipe, the highest mean first; bars are standard deviations over patterns; |: CA."""
    names = list(some.groupby("recipe")["PA"].mean().sort_values(ascending=False, kind="stable").index)
    laws = [law for law in figures.COLOURS if law in set(some["error_model"])]
    laws += [law for law in dict.fromkeys(some["error_model"]) if law not in laws]
    figure, (axis,) = figures._figure(width=5.6, height=1.3 + 0.42 * len(names))
    for number, law in enumerate(laws):
        here = some[some["error_model"] == law]
        places = [names.index(name) + 0.26 * (number - (len(laws) - 1) / 2) for name in here["recipe"]]
        look = {"fmt": "o", "markersize": 5, "capsize": 2, "color": figures.COLOURS.get(law, "0.4"), "label": f"PA, {law}"}
        axis.errorbar(here["PA"], places, xerr=here["PA_std"], **look)
    clean = some.drop_duplicates("recipe")
    places = [names.index(name) for name in clean["recipe"]]
    axis.plot(clean["CA"], places, "|", color="black", markersize=14, markeredgewidth=2, label="CA")
    axis.set_yticks(range(len(names)), [name.replace(": ", ":\n") for name in names], fontsize=9)
    axis.set(xlim=(0, 102), ylim=(len(names) - 0.5, -0.5), xlabel="accuracy (%)")
    figure.suptitle(title, fontsize=9, **figures.TITLE)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    said = "; ".join(f"{row.recipe}: CA {row.CA:.0f}, {row.error_model} PA {row.PA:.0f} %" for row in some.itertuples())
    return figures.Picture(figure, f"Accuracy with and without errors by recipe, {title}. {said}.")


def ladders(rows: pd.DataFrame) -> HTML:
    """`_ladder` of each base model, its error models together."""
    made = []
    for key, some in rows.groupby([name for name in GROUP if name != "error_model"], sort=True):
        title = next(groups(some))[0].split(", ")
        made.append(_ladder(f"{title[0]}, {title[-1]}", some))
    return show.gallery(made)


def _layers(title: str, some: pd.DataFrame) -> figures.Picture:
    """Noise over signal in each layer: of its own errors (above), and of all errors (below); a line a recipe."""
    figure = figures._figure(width=5.6, height=5.2 + 0.19 * len(some))[0]
    figure.clear()
    axes = figure.subplots(2, 1, sharex=True)
    looks = zip(sns.color_palette("colorblind", 10) * 2, "osD^vPX*<>" * 2)
    for row, (colour, marker) in zip(some.to_dict("records"), looks):
        for axis, name in zip(axes, ("own_noise", "noise")):
            values = [np.nan if value is None else value for value in row["damage"][name]]
            axis.plot(range(1, len(values) + 1), values, marker=marker, color=colour, markersize=5, linewidth=1.2)
        axes[0].plot([], [], marker=marker, color=colour, label=f"{row['recipe']}: PA {row['PA']:.0f} %")
    for axis, words in zip(axes, ("own errors alone", "all errors")):
        axis.set(yscale="log", ylabel="noise over signal", title=words)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3) if np.ptp(np.log10(axis.get_ylim())) > 1 else (1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    axes[1].set(xlabel="layer, from the image to the logits", xticks=range(1, len(values) + 1))
    figure.suptitle(title, fontsize=9, **figures.TITLE)
    figure.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False)
    said = [f"{row.recipe}: {row.own_noise:.2g} a layer, {row.logit_noise:.2g} in the logits" for row in some.itertuples()]
    alt = f"Noise over signal by layer, {title}. Own errors, mean over layers, and all: {'; '.join(said)}."
    return figures.Picture(figure, alt)


def layers(records: Iterable[dict]) -> HTML:
    """`_layers` of each base model and error model whose damage is measured."""
    rows = recipes.whole(records)
    return show.gallery([_layers(title, some) for title, some in groups(rows[rows["damage"].notna()])])


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded."""
    exact = {name: rows[name].map("{:g}".format) for name in ("width", "weight_decay", "clipping", "bit_errors_percent")}
    return show.table(rows.assign(**exact).rename(columns=SHOWN), NAME, 2)


def _narrow(some: pd.DataFrame) -> pd.DataFrame:
    """A table with its setting split, so that what all rows share is said once, and the error model stands alone."""
    parts = [title.split(", ") for title in some["setting"]]
    some = some.assign(setting=[f"{words[0]}, {words[-1]}" for words in parts])
    some.insert(1, "error model", [", ".join(words[1:-1]) for words in parts])
    return some


def change_table(records: Iterable[dict]) -> HTML:
    """`changes` as a table."""
    names = {"PA_change": "PA change", "PA_error": "± error", "CA_change": "CA change"}
    names |= {"own_noise": "own noise ×", "weight_noise": "in weights ×", "gain": "made of it ×"}
    return show.table(_narrow(changes(records)).rename(columns=names), f"{NAME}_changes", 2)


def cut_table(records: Iterable[dict]) -> HTML:
    """`recipes.after_cuts` as a table."""
    names = {"cut": "cut at × rms", "CA_change": "CA change", "PA_change": "PA change"}
    return show.table(_narrow(after_cuts(records)).rename(columns=names), f"{NAME}_cuts", 2)


def correlation_table(rows: pd.DataFrame) -> HTML:
    """`correlations` as a table."""
    found = correlations(rows)
    if found.empty:
        return HTML(f"<p>No setting has {recipes.MODELS} recipes whose layers were looked at; fewer say nothing.</p>")
    some = _narrow(found).drop(columns="column")
    return show.table(some.rename(columns={"expected": "expected sign"}), f"{NAME}_why", 2)


# ------------------------------------------------------------------------------------------------------------ sentences


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and how far recipes are apart."""
    lines = [show.progress(rows, profile, NAME)]
    for title, some in groups(rows):
        best, worst = some.iloc[0], some.iloc[-1]
        text = f"**{title}.** {show.count(len(some), 'recipe')}, {'each ' if len(some) > 1 else ''}trained once: PA "
        text += f"from {worst['PA']:.1f} % ({worst['recipe']}) to " if len(some) > 1 else ""
        text += f"**{best['PA']:.1f} %** ({best['recipe']}), CA {_span(some['CA'])} %. "
        text += f"What there is to recover, CA − PA: {_span(some['to_recover'])} points"
        named = some[some["base_recipe"] != VARIED].sort_values("base_recipe")
        said = [f"{row.to_recover:.1f} with `{row.base_recipe}`" for row in named.itertuples()]
        text += f", {show.listed(said)}." if said and len(some) > 1 else "."
        kinds = some["precision"].value_counts().sort_index()
        text += f" Trained in {show.listed(f'{kind} ({count})' for kind, count in kinds.items())}, see the table." if len(kinds) > 1 else ""
        lines.append(text)
    return show.prose("\n\n".join(lines))


def _span(values: pd.Series) -> str:
    """ "1.0 to 2.0", or the one value."""
    low, high = f"{values.min():.1f}", f"{values.max():.1f}"
    return low if low == high else f"{low} to {high}"


def _changed(row: pd.Series) -> str:
    """One row of `changes` in words, and which of the two factors of the noise does more."""
    sure = "" if abs(row["PA_change"]) > SURE * row["PA_error"] else ", within two standard errors"
    text = f"**{row['changed']} {row['from']} → {row['to']}** ({row['at']}): PA "
    text += f"{show.points(row['PA_change'], row['PA_error'])} points{sure}; CA {row['CA_change']:+.1f}"
    if np.isnan(row["own_noise"]):
        return text
    parts = {"in the weights": row["weight_noise"], "by what a layer makes of it": row["gain"]}
    more = max(parts, key=lambda part: abs(np.log(parts[part])))
    said = ", ".join(f"{value:.2g} {part}" for part, value in parts.items())
    clear = abs(np.log(row["own_noise"])) > np.log(CLEAR)
    return f"{text}. Own noise × {row['own_noise']:.2g} ({said})" + (f": mostly {more}" if clear else "")


def single(records: Iterable[dict]) -> Markdown:
    """Of each value of a recipe the change that does most, for each base model and error model."""
    lines = []
    for title, some in changes(records).groupby("setting", sort=False):
        lines.append(f"**{title}.** Of each value the change that moves PA most (± over patterns, both trainings fixed):\n")
        for _, alike in some.groupby("changed", sort=False):
            lines.append(f"* {_changed(alike.loc[alike['PA_change'].abs().idxmax()])}.")
        lines.append("")
    return show.prose("\n".join(lines) or "Nothing is measured yet that could be compared.")


def cuts(records: Iterable[dict]) -> Markdown:
    """What cutting trained weights, which narrows their range and nothing else, does to PA and CA."""
    lines = []
    for title, some in after_cuts(records).groupby("setting", sort=False):
        parts, best = [], 0.0
        for multiple, all_models in some.groupby("cut", sort=False):
            here = all_models[(all_models["PA_change"] != 0) | (all_models["CA_change"] != 0)]  # the others have no weight beyond
            text, left = f"at {multiple:g} × rms ", len(all_models) - len(here)
            if len(here):
                text += f"PA rises in {int((here['PA_change'] > 0).sum())} of {show.count(len(here), 'model')}, "
                text += f"on average by {here['PA_change'].mean():+.1f} points, and CA changes by {here['CA_change'].mean():+.1f}"
                best = max(best, here["PA_change"].mean())
            if left:
                text += f"{' (' if len(here) else ''}nothing changes in {show.count(left, 'model')}{')' if len(here) else ''}"
            parts.append(text)
        said = "So the range of the weights is a cause." if best > MATTERS else "So the range alone does little."
        chips, images = some["patterns"].max(), some["images"].max()
        lines.append(f"* **{title}.** {show.count(chips, 'chip')}, {images:,} images. Cut {'; '.join(parts)}. {said}")
    return show.prose("\n".join(lines) or "Nothing is measured yet that could tell.")


def _hypotheses(some: pd.DataFrame) -> str:
    """The verdicts on possible causes, in words; `some`: rows of `correlations`."""
    parts = []
    for words in (GOES, AGAINST, CHANCE, NEVER, FEW):
        here = some[some["verdict"] == words]
        rho = [f"{row.statistic}" + ("" if np.isnan(row.rho) else f" (ρ {row.rho:+.2f})") for row in here.itertuples()]
        parts += [f"{words}: {show.listed(rho)}"] if rho else []
    return "; ".join(parts)


def meaning(rows: pd.DataFrame) -> Markdown:
    """Which hypotheses the recipes speak for, and what follows for conclusions about generators."""
    lines, found = [], correlations(rows)
    causes = found[found["column"].isin([name for name, (_, _, cause) in STATISTICS.items() if cause])]
    if not len(causes) and len(rows):
        lines.append(f"* No setting has {recipes.MODELS} recipes whose layers were looked at, so nothing is said of what goes with PA.")
    for title, some in causes.groupby("setting", sort=False):
        lines.append(f"* **{title}**, over {show.count(int(some['models'].max()), 'model')}: {_hypotheses(some)}.")
    if len(causes):
        lines.append("* So few models, each trained once, give a hint and no proof; several statistics move together.")
    for title, some in groups(rows):
        low, high, best = some["to_recover"].min(), some["to_recover"].max(), some.loc[some["to_recover"].idxmin()]
        if high - low > MATTERS:
            lines.append(
                f"* {title}: the same network leaves {low:.1f} or {high:.1f} points to recover, so no conclusion about "
                f"generators may rest on one recipe. The one that leaves least ({best['recipe']}) has a PA of "
                f"{best['PA']:.1f} % without any generator, at a CA of {best['CA']:.1f} %, and costs nothing when the chip runs."
            )
        elif len(some) > 1:
            lines.append(f"* {title}: what these {len(some)} recipes leave to recover differs by {high - low:.1f} points; between them it hardly matters.")
    return show.prose("\n".join(lines) or "Nothing is measured yet that could tell.")
