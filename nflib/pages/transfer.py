"""Restricted access: generators trained on surrogates, measured on targets that they never saw (Tables 1 and 16 to 21)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown
from matplotlib.patches import Patch, Rectangle

from nflib import data, figures, generators, grids, models, report, tables
from nflib.cells import Cell, digest_of
from nflib.store import Store

ORIGINS = ("table01", "table16", "table17", "table18", "table19", "table20", "table21")
RELAXED = ("table12", "table13", "table15")  # a surrogate on itself, where training and measurement share a rate
WHOLE = ["base_epochs", "patterns", "images", "steps", "models_per_step"]
TEXT = {"dataset", "base_model", "base_recipe", "error_model", "generator", "trained_for", "target", "record"}
GROUP = ["dataset", "base_recipe", "error_model", "ber_percent", "train_ber_percent"]
COLUMNS = [*tables.SETTING, "generator", "trained_for", "train_ber_percent", "target", "steps", "models_per_step"]
COLUMNS += [*tables.MEASURED, "own_RP", "own_RP_error", "own_difference", "own_difference_error"]
COLUMNS += ["singles_difference", "singles_difference_error", *(f"published_{metric}" for metric in tables.METRICS)]
COLUMNS += ["published_own_RP", "published_singles_difference", "RP_difference", "record"]
SHOWN = {
    "base_model": "target", "generator": "generator", "trained_for": "trained on", "train_ber_percent": "at BER %",
    "target": "the target is", "error_model": "error model", "ber_percent": "BER %", "CA": "CA", "PA": "PA",
    "CA_NF": "CA(NF)", "PA_NF": "PA(NF)", "PA_NF_std": "± std", "RP": "RP", "RP_error": "± error",
    "own_RP": "RP, relaxed access", "own_difference": "difference", "own_difference_error": "± error ",
    "published_PA": "paper PA", "published_PA_NF": "paper PA(NF)", "published_RP": "paper RP",
    "published_own_RP": "paper RP, relaxed access", "RP_difference": "RP, ours − paper",
}  # fmt: skip


def grid(profile: str) -> list[Cell]:
    """The cells of the page: the grid "transfer", and relaxed access of the same targets, which is in "accuracy"."""
    return [cell for name in ("transfer", "accuracy") for cell in grids.cells(profile, name)]


def progress(profile: str, name: str) -> str:
    """A sentence: how many cells of the profile's grid `name` are measured, and what measures the others."""
    store, cells = Store(profile), dict.fromkeys(grids.cells(profile, name))
    done = sum(store.has(cell) for cell in cells)
    rest = "." if done == len(cells) else f"; `nflib sweep {name} --profile {profile}` measures the others."
    return f"Of the {len(cells):,} cells of this page at {profile} scale, for all data sets, {done:,} are measured{rest}"


def with_printed(rows: pd.DataFrame, origins: tuple[str, ...], dataset: str | None) -> pd.DataFrame:
    """Generators' `rows` of `tables.recoveries`; then, with dashes for ours, what else the printed tables `origins` have.

    Printed settings are those of `dataset`, or of the data sets in `rows`.  Printed numbers stand only where base recipe
    and error model are the official code's: release, ReleaseMap.
    """
    comparable = (rows["base_recipe"] == "release") & (rows["error_model"] == "ReleaseMap")
    beside = [name for name in rows if name.startswith("published_") or name.endswith("_difference")]
    rows = rows.assign(**{name: rows[name].where(comparable) for name in beside})
    index, have = tables.published_index(), {tables.published_key(row, "RP") for row in rows[comparable].to_dict("records")}
    wanted = {data.LABELS.get(dataset, dataset)} if dataset else set(rows["dataset"])
    fields = ["dataset", "base_model", "bits", "ber_percent", "generator", "trained_for", "train_ber_percent", "loss_weight"]
    printed = []
    for key, lines in index.items():
        if key[0] == "RP" and key[1] in wanted and key not in have and any(x["origin"].startswith(origins) for x in lines):
            row = {**dict(zip(fields, key[1:])), "base_recipe": "release", "error_model": "ReleaseMap", "flips": key[-1]}
            found = {metric: index.get(tables.published_key(row, metric)) for metric in tables.METRICS}
            printed.append(row | {f"published_{metric}": lines[0]["mean"] for metric, lines in found.items() if lines})
    return pd.DataFrame([*rows.to_dict("records"), *printed], columns=rows.columns)


def _gap(after: dict, one: str, others: list[str]) -> tuple[float, float]:
    """Mean of PA(NF) of record `one` minus the mean of `others` on the same patterns, and its standard error, in points."""
    if one not in after or not others:
        return np.nan, np.nan
    gap = after[one] - np.mean([after[other] for other in others], axis=0)
    return gap.mean(), gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan


def _key(row: dict, trained_for: str, train_ber_percent: float) -> tuple:
    """What rows share that differ in nothing but what the generator was trained on, and at which rate."""
    same = [repr(row[name]) for name in (*tables.KEYS, "generator", "steps", "models_per_step")]
    return (trained_for, train_ber_percent, *same)


def _references(row: dict, known: dict[tuple, dict], after: dict[str, np.ndarray]) -> dict:
    """What a row is compared with: relaxed access at the rate of the measurement, and each of several surrogates alone."""
    names, target = row["trained_for"].split("+"), row["base_model"]
    unseen = "one of the surrogates" if target in names else "unseen"
    own = known.get(_key(row, target, row["ber_percent"]), {})
    singles = [known.get(_key(row, name, row["train_ber_percent"]), {}).get("record") for name in names]
    singles = singles if len(names) > 1 and all(isinstance(name, str) for name in singles) else []
    found = {"target": "own model" if names == [target] else unseen, **{f"own_{name}": own.get(name, np.nan) for name in ("RP", "RP_error")}}
    measured = [own["record"]] if isinstance(own.get("record"), str) else []
    found["own_difference"], found["own_difference_error"] = _gap(after, row["record"], measured)
    found["singles_difference"], found["singles_difference_error"] = _gap(after, row["record"], singles)
    if row["base_recipe"] == "release" and row["error_model"] == "ReleaseMap":
        found["published_own_RP"] = _printed_recovery(row, target, row["ber_percent"])
        alone = [_printed_recovery(row, name, row["train_ber_percent"]) for name in names]
        found["published_singles_difference"] = row["published_RP"] - np.mean(alone) if len(names) > 1 else np.nan
    return found


def _printed_recovery(row: dict, trained_for: str, train_ber_percent: float) -> float:
    other = {**row, "trained_for": trained_for, "train_ber_percent": train_ber_percent}
    lines = tables.published_index().get(tables.published_key(other, "RP"))
    return lines[0]["mean"] if lines else np.nan


def frame(records: Iterable[dict], dataset: str | None = None) -> pd.DataFrame:
    """A row a target, generator and what the generator was trained on, ours beside the paper (Tables 1, 16 to 21).

    Rows are those of each surrogate (or set of surrogates) that is measured, here or in the paper, on another target.
    target: "own model" (relaxed access), "one of the surrogates", or "unseen".  own_RP: recovery in relaxed access, by the
    generator trained on the target itself at the bit-error rate of the measurement; own_difference: PA(NF) minus that
    generator's PA(NF).  singles_difference: for several surrogates, PA(NF) minus the mean PA(NF) of the generators trained
    on each alone.  Differences are paired over error patterns, errors are standard errors over patterns.  Accuracies in
    per cent, recoveries and differences in percentage points.  dataset: only this data set (a name), whose printed
    settings are there even where nothing is measured.
    """
    records = [record for record in records if dataset in (None, record["cell"]["base"]["dataset"])]
    after = {digest_of(record["cell"]): np.array(record["metrics"]["perturbed"]) for record in records}
    rows = tables.recoveries(records)
    plain = rows["generator"].isin(generators.LABELS.values()) & (rows["flips"] == 0) & (rows["loss_weight"] == 5.0)
    plain &= (rows["bits"] == 8) & (rows["trained_under"] == rows["error_model"]) & rows["base_recipe"].isin(grids.RECIPES)
    listed = with_printed(rows[plain], ORIGINS + RELAXED, dataset).to_dict("records")
    known = {_key(row, row["trained_for"], row["train_ber_percent"]): row for row in listed}
    made = [row | _references(row, known, after) for row in listed]
    used = {_teacher(row) for row in made if row["target"] != "own model"}
    made = sorted((row for row in made if _teacher(row) in used), key=_order)
    types = {name: "Int64" if name in WHOLE else float for name in COLUMNS if name not in TEXT}
    return pd.DataFrame(made, columns=COLUMNS).astype(types)


def _teacher(row: dict) -> tuple:
    return tuple(row[name] for name in (*GROUP, "generator", "trained_for"))


def _order(row: dict) -> tuple:
    names, kinds = [*models.LABELS.values(), *models.EXTRA_LABELS.values()], list(generators.LABELS.values())
    places = [names.index(name) for name in row["trained_for"].split("+")]
    trained = (-row["train_ber_percent"], kinds.index(row["generator"]), len(places), places, names.index(row["base_model"]))
    return (row["dataset"], row["base_recipe"], row["error_model"], -row["ber_percent"], *trained, str(row["record"]))


def matrix(rows: pd.DataFrame) -> figures.Picture:
    """Recovery by target (columns) and by generator and what it was trained on (rows): ours, and the paper's beside it.

    rows: those of `frame` for one data set, base recipe, error model, bit-error rate and training rate.
    """
    first = rows.iloc[0]
    lines = list(dict.fromkeys(zip(rows["generator"], rows["trained_for"])))
    targets = [name for name in models.LABELS.values() if name in set(rows["base_model"])]
    sources = {"RP": "ours", "published_RP": "paper"}
    sources = {name: words for name, words in sources.items() if rows[name].notna().any()} or {"RP": "ours"}
    limit = max(1.0, np.nanmax(rows[list(sources)].abs().to_numpy(float), initial=0))
    figure, axes = figures._figure(len(sources), height=1.6 + 0.42 * len(lines), sharey=True)
    for axis, (name, words) in zip(axes, sources.items()):
        grid = np.full((len(lines), len(targets)), np.nan)
        texts = np.full(grid.shape, "", object)
        for row in rows.to_dict("records"):
            y, x = lines.index((row["generator"], row["trained_for"])), targets.index(row["base_model"])
            if pd.isna(row[name]):
                continue
            grid[y, x] = row[name]
            texts[y, x] = f"{row[name]:+.1f}" + (f"\n± {row['RP_error']:.1f}" if name == "RP" and row["RP_error"] >= 0 else "")
            if row["target"] != "unseen":
                style = "-" if row["target"] == "own model" else ":"
                axis.add_patch(Rectangle((x + 0.05, y + 0.05), 0.9, 0.9, fill=False, edgecolor="black", linewidth=2, linestyle=style))
        sns.heatmap(
            grid, ax=axis, annot=texts, fmt="", cmap="RdBu", vmin=-limit, vmax=limit, linewidths=1, cbar=False,
            annot_kws={"fontsize": 8}, mask=np.isnan(grid), xticklabels=targets,
            yticklabels=[f"{generator} on {trained.replace('+', ' + ')}" for generator, trained in lines],
        )  # fmt: skip
        axis.set(title=words, xlabel="target", facecolor="0.88")
        axis.grid(False)
        axis.tick_params(axis="x", rotation=35 if len(sources) > 1 else 0, labelsize=9)
        axis.tick_params(axis="y", rotation=0, labelsize=9)
    figure.suptitle(
        f"RP in percentage points: {first['dataset']}, base recipe {first['base_recipe']}, {first['error_model']}, "
        f"BER {first['ber_percent']:g} %, generators trained at {first['train_ber_percent']:g} %",
        fontsize=9,
    )
    frames = {"own model": "-", "one of the surrogates": ":"}
    shown = [Patch(fill=False, edgecolor="black", linewidth=2, linestyle=v, label=k) for k, v in frames.items() if (rows["target"] == k).any()]
    shown += [Patch(fill=False, edgecolor="0.8", label="unseen target"), Patch(color="0.88", label="no number")]
    figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), fontsize=8, frameon=False)
    said = ""
    for name, words in sources.items():
        for target in ("own model", "unseen"):
            some = rows.loc[rows["target"] == target, name].dropna()
            said += f" {words}, {target}: {some.min():+.1f} to {some.max():+.1f}." if len(some) else ""
    return figures.Picture(figure, f"Recovery in percentage points by target and by what the generator was trained on.{said}")


def kept(rows: pd.DataFrame) -> figures.Picture:
    """Recovery on unseen targets against that of relaxed access to the same target: ours by error model, and the paper's."""
    unseen = rows[rows["target"] == "unseen"]
    panels = [(law, some, "RP", "own_RP") for law, some in unseen.dropna(subset=["RP", "own_RP"]).groupby("error_model")]
    printed = unseen.dropna(subset=["published_RP", "published_own_RP"])
    panels += [("paper", printed, "published_RP", "published_own_RP")] if len(printed) else []
    trained = list(dict.fromkeys(unseen["trained_for"]))
    colours, said = sns.color_palette("colorblind", len(trained)), ""
    figure, axes = figures._figure(max(1, len(panels)), height=3.4, sharex=True, sharey=True)
    for axis, (title, some, mine, own) in zip(axes, panels):
        for name, colour, marker in zip(trained, colours, "osD^v<>"):
            here = some[some["trained_for"] == name]
            errors = {"xerr": 2 * here["own_RP_error"], "yerr": 2 * here["RP_error"]} if mine == "RP" else {}
            label = f"trained on {name.replace('+', ' + ')}"
            axis.errorbar(here[own], here[mine], **errors, fmt=marker, color=colour, markersize=5, linewidth=1, label=label)
        axis.axline((0, 0), slope=1, color="0.4", linewidth=1, linestyle="--")
        axis.axhline(0, color="0.4", linewidth=1)
        axis.set(title=title, xlabel="RP, relaxed access (points)")
        said += f" {title}: {len(some)} pairs, mean {some[mine].mean():+.1f} against {some[own].mean():+.1f} points."
    axes[0].set_ylabel("RP, unseen target (points)")
    if panels:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figures.Picture(
        figure,
        "Recovery on unseen targets against recovery in relaxed access to the same target; on the dashed line nothing is "
        f"lost; bars are two standard errors over error patterns.{said}",
    )


def pictures(rows: pd.DataFrame) -> HTML:
    """`matrix` for each setting of a frame, then `kept` where there is something to compare."""
    made = [matrix(some) for _, some in rows.groupby(GROUP)]
    comparable = rows[["RP", "own_RP"]].notna().all(axis=1) | rows[["published_RP", "published_own_RP"]].notna().all(axis=1)
    return report._gallery([*made, *([kept(rows)] if (comparable & (rows["target"] == "unseen")).any() else [])])


def table(rows: pd.DataFrame) -> HTML:
    """The frame with the columns that have any content, names in words."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN).dropna(axis=1, how="all")
    return report.table(shown, "transfer") if len(rows) else report._gallery([])


def _unseen(some: pd.DataFrame, mine: str, own: str, gap: str) -> str:
    """Recovery on unseen targets, what relaxed access has there, and what several surrogates add; "" without numbers."""
    unseen = some[(some["target"] == "unseen") & some[mine].notna()]
    single, several = (unseen[unseen["trained_for"].str.contains("+", regex=False) == flag] for flag in (False, True))
    parts = []
    if len(single):
        parts.append(
            f"{single[mine].mean():+.1f} points on average over {report._count(len(single), 'pair')} of one surrogate and an "
            f"unseen target, generator by generator (from {single[mine].min():+.1f} to {single[mine].max():+.1f})"
        )
        if mine == "RP":
            up, down = (single["RP"] > 2 * single["RP_error"]).sum(), (single["RP"] < -2 * single["RP_error"]).sum()
            parts[-1] += f", more than two standard errors above zero in {up}, below in {down}"
    both = single.dropna(subset=[own])
    if len(both):
        ours, theirs = both[mine].mean(), both[own].mean()
        clear = theirs > 2 * (both["own_RP_error"].mean() if mine == "RP" else 0)
        share = f", so {max(0, 100 * ours / theirs):.0f} % of it is kept" if clear else ", too little to speak of a share"
        parts.append(f"relaxed access has {theirs:+.1f} for {'the same' if len(both) == len(single) else len(both)} of them{share}")
    own_model = some.loc[some["target"] == "own model", mine].dropna()
    if len(own_model):
        parts.append(f"on their own models the surrogates' generators have {own_model.mean():+.1f}")
    more = several[gap].dropna()
    if len(more):
        parts.append(
            f"generators trained on several surrogates together have {several[mine].mean():+.1f} on unseen targets, "
            f"{more.mean():+.1f} against the mean of the single surrogates (better in {(more > 0).sum()} of {len(more)}"
        )
        sure = (several[gap] > 2 * several[f"{gap}_error"]).sum() if mine == "RP" else None
        parts[-1] += ")" if sure is None else f", by more than two standard errors in {sure})"
    return "; ".join(parts)


OURS, PAPER = ("RP", "own_RP", "singles_difference"), ("published_RP", "published_own_RP", "published_singles_difference")


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured; then, for each setting of the frame, recovery on unseen targets, and the paper's beside it."""
    measured = rows[rows["RP"].notna()]
    text = f"**Not measured yet:** `nflib sweep transfer --profile {profile}` measures it."
    if len(measured):
        text = (
            f"**What was measured.** {report._list(measured['dataset'])}; targets {report._list(measured['base_model'])}; "
            f"generators {report._list(measured['generator'])}, trained on {report._list(measured['trained_for'])}; "
            f"{report._list(measured['patterns'])} error patterns per setting, {report._list(measured['images'])} test images."
        )
    lines = [f"{text} {progress(profile, 'transfer')}", ""]
    for (dataset, recipe, law, rate, train_rate), some in rows.groupby(GROUP, sort=False):
        ours, paper = _unseen(some, *OURS), _unseen(some, *PAPER)
        line = f"* {dataset}, base recipe `{recipe}`, {law} at {rate:g} %, generators trained at {train_rate:g} %: "
        lines.append(line + (f"recovery is {ours}." if ours else "not measured.") + (f" In the paper it is {paper}." if paper else ""))
    gap = rows["RP_difference"].dropna()
    if len(gap):
        lines += ["", f"In {report._count(len(gap), 'setting')} that the paper prints too, our recovery minus the paper's is "]
        lines[-1] += f"{gap.mean():+.1f} points on average, from {gap.min():+.1f} to {gap.max():+.1f}."
    if rows["published_RP"].isna().all():
        printed = frame((), "cifar10")
        for (rate, train_rate), some in printed[printed["ber_percent"] == 1.0].groupby(GROUP[-2:], sort=False):
            lines.append(f"* The paper, CIFAR-10, at {rate:g} %, generators trained at {train_rate:g} %: {_unseen(some, *PAPER)}.")
    return Markdown("\n".join(lines))


def meaning(rows: pd.DataFrame) -> Markdown:
    """What the numbers say: of ours where there are any, otherwise of the paper's, which come without standard errors."""
    ours = rows["RP"].notna().any()
    mine, own, gap = OURS if ours else PAPER
    unseen = rows[(rows["target"] == "unseen") & rows[mine].notna()]
    if unseen.empty:
        return Markdown("There is nothing to conclude yet.")
    error = 2 * unseen["RP_error"] if ours else 0.0
    up, down, number = (unseen[mine] > error).sum(), (unseen[mine] < -error).sum(), len(unseen)
    verdict = "mostly helps" if up > number / 2 else "mostly harms" if down > number / 2 else "is not to be relied on"
    sure = ", by more than two standard errors," if ours else ""
    text = f"{'Here' if ours else 'In the paper'}, a generator {verdict} where it meets a base model that it never saw: it recovers "
    text += f"accuracy{sure} in {up} of {number} cases and costs some in {down}."
    lost = unseen["own_difference"] + 2 * unseen["own_difference_error"] if ours else unseen[mine] - unseen[own]
    if lost.notna().any():
        text += f" It is worse than a generator trained on the target itself in {(lost < 0).sum()} of {lost.notna().sum()}."
    more = unseen[gap].dropna()
    if len(more):
        helps = "help" if more.mean() > 0 else "do not help"
        text += f" Several surrogates {helps} on average: {more.mean():+.1f} points against a single one on unseen targets."
    text += " Each generator was trained once, and standard errors are over error patterns only: they do not cover the chance of training."
    return Markdown(text if ours else text + " None of this has been measured here yet.")
