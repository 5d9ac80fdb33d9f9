"""What the training objective is made of: N perturbed models per step (Figure 7), lambda (Table 10), and whether a
perturbation that is the same for every image would do (Table 11)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown

from nflib import figures, generators, grids, models, show, tables
from nflib.cells import digest_of

ORIGINS = ("table10", "table11")
UIP = generators.label(generators.UNIVERSAL)
PAPER_N = 10  # perturbed models per step behind every printed number
GROUP = ["dataset", "base_recipe", "error_model", "ber_percent"]
SERIES = [*GROUP, "base_model", "generator", "steps"]
TEXT = {"dataset", "base_model", "base_recipe", "error_model", "generator", "ablation", "record"}
WHOLE = ["base_epochs", "patterns", "images", "steps", "models_per_step"]
COLUMNS = [*tables.SETTING, "generator", "ablation", "models_per_step", "loss_weight", "steps", *tables.MEASURED]
COLUMNS += ["difference", "difference_error", *(f"published_{metric}" for metric in tables.METRICS), "RP_difference", "record"]
SHOWN = {
    "base_model": "base model", "generator": "generator", "error_model": "error model", "ber_percent": "BER %",
    "models_per_step": "N", "loss_weight": "lambda", "CA": "CA", "PA": "PA", "CA_NF": "CA(NF)", "PA_NF": "PA(NF)",
    "PA_NF_std": "± std", "RP": "RP", "RP_error": "± error", "published_CA_NF": "paper CA(NF)", "published_PA": "paper PA",
    "published_PA_NF": "paper PA(NF)", "published_RP": "paper RP", "RP_difference": "RP, ours − paper",
}  # fmt: skip


def frame(records: Iterable[dict], dataset: str | None = None) -> pd.DataFrame:
    """A row a generator, ours beside the paper (Tables 10 and 11; Figure 7 prints no numbers, and its N is 10 elsewhere).

    ablation: "N", "lambda" or both, whose series a row belongs to; "UIP" for the universal input perturbation; "one
    setting" for a row without a series.  difference: PA(NF) minus that of the row with lambda 5 and the same N or, where
    lambda is 5, of the series' smallest N; paired over error patterns, with its standard error over patterns.  Accuracies
    in per cent, recoveries and differences in percentage points.  dataset: only this data set (a name), whose printed
    settings are there even where nothing is measured.
    """
    records = [record for record in records if dataset in (None, record["cell"]["base"]["dataset"])]
    after = {digest_of(record["cell"]): np.array(record["metrics"].get("perturbed")) for record in records}
    rows = tables.recoveries(records)
    own = (rows["generator"] != "none") & (rows["trained_for"] == rows["base_model"]) & (rows["flips"] == 0)
    own &= (rows["trained_under"] == rows["error_model"]) & (rows["train_ber_percent"] == rows["ber_percent"])
    own &= (rows["bits"] == 8) & rows["base_recipe"].isin(grids.RECIPES)
    listed = tables.with_printed(rows[own], ORIGINS, dataset).to_dict("records")
    series: dict[tuple, list[dict]] = {}
    for row in listed:
        series.setdefault(tuple(repr(row[name]) for name in (*tables.KEYS, "generator", "steps")), []).append(row)
    for some in series.values():
        for row in some:
            row |= _place(row, some, after)
    types = {name: "Int64" if name in WHOLE else float for name in COLUMNS if name not in TEXT}
    return pd.DataFrame(sorted(listed, key=_order), columns=COLUMNS).astype(types)


def _place(row: dict, some: list[dict], after: dict[str, np.ndarray]) -> dict:
    """Which ablation a row of the series `some` belongs to, and its difference from the row that it is compared with."""
    numbers = {other["models_per_step"] for other in some if other["loss_weight"] == 5.0}
    weights = {other["loss_weight"] for other in some if repr(other["models_per_step"]) == repr(row["models_per_step"])}
    parts = ["N"] if row["loss_weight"] == 5.0 and len(numbers) > 1 else []
    parts += ["lambda"] if len(weights) > 1 or not isinstance(row["record"], str) else []  # printed ones are Table 10's
    found = {"ablation": UIP if row["generator"] == UIP else " and ".join(parts) or "one setting"}
    if found["ablation"] == "N" and row["models_per_step"] != PAPER_N:
        found |= dict.fromkeys(("published_CA_NF", "published_PA_NF", "published_RP", "RP_difference"), np.nan)
    against = min(numbers, default=None) if row["loss_weight"] == 5.0 else row["models_per_step"]
    others = [o["record"] for o in some if o["loss_weight"] == 5.0 and o["models_per_step"] == against and o is not row]
    return found | dict(zip(("difference", "difference_error"), tables.paired(after, row["record"], others)))


def _order(row: dict) -> tuple:
    names = [*models.LABELS.values(), *models.EXTRA_LABELS.values()]
    kinds = [*generators.LABELS.values(), UIP]
    place = (names.index(row["base_model"]), kinds.index(row["generator"]), -row["loss_weight"])
    number = -1 if pd.isna(row["models_per_step"]) else row["models_per_step"]
    return (row["dataset"], row["base_recipe"], row["error_model"], -row["ber_percent"], *place, number, str(row["record"]))


def part(rows: pd.DataFrame, ablation: str) -> pd.DataFrame:
    """The rows of a frame that belong to an ablation: "N", "lambda" or "UIP"."""
    return rows[np.array([ablation in name.split(" and ") for name in rows["ablation"]], bool)]


def _lines(rows: pd.DataFrame) -> list[tuple]:
    """(label, colour, rows) of each base model and generator."""
    pairs = list(rows.groupby(["base_model", "generator"], sort=False))
    colours = sns.color_palette("colorblind", len(pairs))
    return [(f"{base} + {generator}", colour, some) for colour, ((base, generator), some) in zip(colours, pairs)]


DOTS = {"fmt": "o-", "capsize": 3, "markersize": 5}


def _picture(axes, figure, first: pd.Series, alt: str) -> figures.Picture:
    """A picture of two panels, finished: title, legend, alternative text."""
    setting = f"{first['dataset']}, base recipe {first['base_recipe']}, {first['error_model']}, BER {first['ber_percent']:g} %"
    figure.suptitle(setting, fontsize=9, **figures.TITLE)
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    for axis in axes:
        axis.xaxis.label.set_size(10), axis.yaxis.label.set_size(10)
        axis.tick_params(labelsize=9)
    return figures.Picture(figure, f"{alt} {setting}.")


def by_number(rows: pd.DataFrame) -> figures.Picture:
    """Figure 7 for one data set, base recipe, error model and rate: PA(NF) with its standard deviation over error
    patterns against N, and RP with its standard error."""
    figure, axes = figures._figure(2, height=3.2)
    said = ""
    for label, colour, some in _lines(rows):
        some = some.sort_values("models_per_step")
        number = some["models_per_step"].astype(float)
        for axis, name, error in zip(axes, ("PA_NF", "RP"), ("PA_NF_std", "RP_error")):
            axis.errorbar(number, some[name], yerr=some[error], color=colour, label=label, **DOTS)
        values = ", ".join(f"{p:.1f} % with N = {n:g}" for n, p in zip(number, some["PA_NF"]))
        said += f" {label}: PA(NF) {values}."
    numbers = sorted(set(rows["models_per_step"]))
    for axis, name in zip(axes, ("PA(NF) (%), ± std over patterns", "RP (points), ± standard error")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(numbers, [str(number) for number in numbers])
        axis.minorticks_off()
        axis.set(xlabel="perturbed models per step, N", ylabel=name)
    return _picture(axes, figure, rows.iloc[0], f"Accuracy and recovery against the number of perturbed models.{said}")


def by_weight(rows: pd.DataFrame) -> figures.Picture:
    """Table 10 for one data set, base recipe, error model and rate: CA(NF) and PA(NF) against lambda; filled circles are
    ours, with the standard deviation over error patterns, hollow diamonds the paper's."""
    figure, axes = figures._figure(2, height=3.4, sharey=True)
    said, weights = "", sorted(set(rows["loss_weight"]))
    for label, colour, some in _lines(rows.sort_values("loss_weight", kind="stable")):
        for axis, name in zip(axes, ("CA_NF", "PA_NF")):
            ours, paper = some[some[name].notna()], some[some[f"published_{name}"].notna()]
            errors = ours["PA_NF_std"] if name == "PA_NF" else None
            if len(ours):
                axis.errorbar(ours["loss_weight"], ours[name], yerr=errors, color=colour, label=label, **DOTS)
                axis.axhline(ours[name[:2]].iloc[0], color=colour, linewidth=1, linestyle=":")
            if len(paper):
                style = {"color": colour, "markerfacecolor": "white", "label": f"{label}, paper"}
                axis.plot(paper["loss_weight"], paper[f"published_{name}"], "D--", markersize=5, **style)
            for source, column in ((ours, name), (paper, f"published_{name}")):
                if len(source):
                    ends = f"{source[column].iloc[0]:.1f} % at lambda {source['loss_weight'].iloc[0]:g}"
                    ends += f" to {source[column].iloc[-1]:.1f} % at {source['loss_weight'].iloc[-1]:g}"
                    said += f" {label}{'' if source is ours else ', paper'}: {name[:2]}(NF) from {ends}."
    for axis, name in zip(axes, ("CA(NF)", "PA(NF)")):
        least = min((weight for weight in weights if weight), default=1.0)
        axis.set_xscale("symlog", linthresh=least)  # logarithmic, and lambda may be 0
        axis.set_xlim(-0.3 * least if 0.0 in weights else 0.6 * least, 1.6 * max(weights))
        axis.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axis.minorticks_off()
        axis.set(title=name, xlabel="weight of the perturbed models, lambda", ylim=(0, 102))
    axes[0].set_ylabel("accuracy (%)")
    return _picture(axes, figure, rows.iloc[0], f"Accuracy with the generator against lambda.{said}")


def pictures(rows: pd.DataFrame, ablation: str) -> HTML:
    """`by_number` ("N") or `by_weight` ("lambda") for each data set, base recipe, error model and rate of a frame."""
    draw = {"N": by_number, "lambda": by_weight}[ablation]
    return show.gallery([draw(some) for _, some in part(rows, ablation).groupby(GROUP, sort=False)])


def table(rows: pd.DataFrame, ablation: str) -> HTML:
    """An ablation's rows, or all ("all"): the columns that have any content, names in words."""
    shown = rows if ablation == "all" else part(rows, ablation)
    shown = shown[list(SHOWN)].rename(columns=SHOWN).dropna(axis=1, how="all")
    if shown.empty:
        return show.gallery([])
    return show.table(shown.assign(**{"lambda": shown["lambda"].map("{:g}".format)}), f"ablations_{ablation}")


def _series(rows: pd.DataFrame, ablation: str, sort: str) -> list[tuple]:
    """(words, rows sorted) of each series of an ablation that has numbers of ours."""
    found = part(rows, ablation).dropna(subset=["RP"]).groupby(SERIES, sort=False)
    words = "{0}, base recipe `{1}`, {2} at {3:g} %, {4} with {5}"
    return [(words.format(*key), some.sort_values(sort, kind="stable")) for key, some in found if len(some) > 1]


def _weights(some: pd.DataFrame, prefix: str = "") -> str:
    """What lambda does between its ends; `some` is sorted by it."""
    low, high = some.iloc[0], some.iloc[-1]
    clean, perturbed = (f"from {low[name]:.1f} to {high[name]:.1f} %" for name in (f"{prefix}CA_NF", f"{prefix}PA_NF"))
    return f"from lambda {low['loss_weight']:g} to {high['loss_weight']:g}, CA(NF) goes {clean} and PA(NF) {perturbed}"


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured; then what N, lambda and the universal input perturbation do, ours and the paper's.

    Where the frame's data sets are not in the paper, its CIFAR-10 stands for it.
    """
    lines = [show.progress(rows, profile, "ablations"), ""]
    for words, some in _series(rows, "N", "models_per_step"):
        values = ", ".join(f"{show.points(r.RP, r.RP_error)} with N = {r.models_per_step}" for r in some.itertuples())
        first, last = some.iloc[0], some.iloc[-1]
        change = show.points(last["difference"], last["difference_error"])
        clear = "more" if abs(last["difference"]) > 2 * last["difference_error"] else "not more"
        lines.append(
            f"* {words}: recovery {values}. The last differs from the first by {change} points, {clear} than two standard "
            f"errors; the standard deviation of PA(NF) over patterns goes from {first['PA_NF_std']:.1f} to "
            f"{last['PA_NF_std']:.1f} points. The paper plots this in Figure 7 and prints no numbers."
        )
    lines += [f"* {words}: {_weights(some)}." for words, some in _series(rows, "lambda", "loss_weight")]
    printed = rows if rows["published_RP"].notna().any() else frame((), "cifar10")
    sweep = part(printed, "lambda").dropna(subset=["published_PA_NF"]).sort_values("loss_weight", kind="stable")
    for (name, base), some in sweep.groupby(["dataset", "base_model"]):
        lines.append(f"* The paper, {name}, {base} (Table 10): {_weights(some, 'published_')}.")
    for (name, recipe, law, rate), some in part(rows, UIP).dropna(subset=["RP"]).groupby(GROUP, sort=False):
        up, down = (some["RP"] > 2 * some["RP_error"]).sum(), (some["RP"] < -2 * some["RP_error"]).sum()
        count, ends = show.count(len(some), "base model"), f"from {show.points(some['RP'].min())} to {show.points(some['RP'].max())}"
        lines.append(
            f"* {name}, base recipe `{recipe}`, {law} at {rate:g} %, UIP: recovery {ends} points over {count}, more than two "
            f"standard errors above zero in {up}, below in {down}."
        )
    for (name, rate), some in part(printed, UIP).dropna(subset=["published_RP"]).groupby(["dataset", "ber_percent"]):
        values = some["published_RP"]
        ends = f"from {values.min():+.1f} to {values.max():+.1f} points"
        lines.append(f"* The paper, {name} at {rate:g} %, UIP (Table 11): {ends}.")
    return show.prose("\n".join(lines))


def meaning(rows: pd.DataFrame) -> Markdown:
    """What the numbers of ours say; differences count where they are more than two standard errors."""
    said = []
    ends = pd.DataFrame([some.iloc[-1] for _, some in _series(rows, "N", "models_per_step")], columns=COLUMNS)
    if len(ends):
        clear = ends["difference"].abs() > 2 * ends["difference_error"]
        better, worse = (clear & (ends["difference"] > 0)).sum(), (clear & (ends["difference"] < 0)).sum()
        said.append(
            f"The largest N is clearly better than the smallest in {better} of {show.count(len(ends), 'series')}, clearly "
            f"worse in {worse}. A step costs N + 1 passes through the base model, so N = 1 is the cheapest choice wherever "
            "more models bring nothing clear."
        )
    sweeps = [some for _, some in _series(rows, "lambda", "loss_weight")]
    sweeps = [some for some in sweeps if some["loss_weight"].min() < 5 and 5 in set(some["loss_weight"])]
    if sweeps:
        least = pd.DataFrame([some.iloc[0] for some in sweeps])
        lower = (least["difference"] < -2 * least["difference_error"]).sum()
        clean = sum(some["CA_NF"].iloc[0] > some.loc[some["loss_weight"] == 5.0, "CA_NF"].max() for some in sweeps)
        said.append(
            f"With the smallest lambda PA(NF) is lower than with 5, by more than two standard errors, in {lower} of "
            f"{show.count(len(sweeps), 'sweep')}, and CA(NF) is higher in {clean}; in the paper's sweeps both hold."
        )
    universal = part(rows, UIP).dropna(subset=["RP"])
    if len(universal):
        helped = (universal["RP"] > 2 * universal["RP_error"]).sum()
        said.append(
            f"A perturbation that is the same for every image recovers accuracy, by more than two standard errors, in {helped} "
            f"of {show.count(len(universal), 'setting')}, at most {show.points(universal['RP'].max())} points; the paper finds no "
            "use in it."
        )
    end = " Each generator was trained once: standard errors do not cover the chance of training."
    return show.prose(" ".join(said) + end if said else "There is nothing to conclude yet.")
