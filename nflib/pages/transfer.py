"""Restricted access: generators trained on surrogates, measured on targets that they never saw (Tables 1 and 16 to 21)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown
from matplotlib.patches import Rectangle

from nflib import figures, generators, grids, models, profiles, show, tables
from nflib.cells import Cell, digest_of

ORIGINS = ("table01", "table16", "table17", "table18", "table19", "table20", "table21")
RELAXED = ("table12", "table13", "table15")  # a surrogate on itself, where training and measurement share a rate
WHOLE = ["base_epochs", "patterns", "images", "imitation_steps", "steps", "models_per_step"]
TEXT = {"dataset", "base_model", "base_recipe", "error_model", "generator", "trained_for", "target", "record"}
GROUP = ["dataset", "base_recipe", "error_model", "ber_percent", "train_ber_percent"]
COLUMNS = [*tables.SETTING, "generator", "trained_for", "train_ber_percent", "target", "imitation_steps", "steps", "models_per_step"]
COLUMNS += [*tables.MEASURED, "own_RP", "own_RP_error", "own_difference", "own_difference_error"]
COLUMNS += ["singles_difference", "singles_difference_error", *(f"published_{metric}" for metric in tables.METRICS)]
COLUMNS += ["published_own_RP", "published_singles_difference", "RP_difference", "record"]
SHOWN = {
    "base_model": "target", "generator": "generator", "trained_for": "trained on", "train_ber_percent": "at BER %",
    "target": "the target is", "error_model": "error model", "ber_percent": "BER %", "CA": "CA", "PA": "PA",
    "CA_NF": "CA(NF)", "PA_NF": "PA(NF)", "PA_NF_std": "± std", "RP": "RP", "RP_error": "± error",
    "own_RP": "RP, relaxed access", "own_difference": "loss or gain", "own_difference_error": "± error ",
    "published_PA": "paper PA", "published_PA_NF": "paper PA(NF)", "published_RP": "paper RP",
    "published_own_RP": "paper RP, relaxed access", "RP_difference": "RP, ours − paper",
}  # fmt: skip


def grid(profile: str) -> list[Cell]:
    """The cells of the page: the grid "transfer", and relaxed access of the same targets, which is in "accuracy"."""
    return [cell for name in ("transfer", "accuracy") for cell in profiles.cells(profile, name)]


def _key(row: dict, trained_for: str, train_ber_percent: float) -> tuple:
    """What rows share that differ in nothing but what the generator was trained on, and at which rate."""
    same = [repr(row[name]) for name in (*tables.KEYS, "generator", "imitation_steps", "steps", "models_per_step")]
    return (trained_for, train_ber_percent, *same)


def _references(row: dict, known: dict[tuple, dict], after: dict[str, np.ndarray]) -> dict:
    """What a row is compared with: relaxed access at the rate of the measurement, and each of several surrogates alone."""
    names, relaxed = row["trained_for"].split("+"), (row["base_model"], row["ber_percent"])
    singles = [(name, row["train_ber_percent"]) for name in names] if len(names) > 1 else []

    def here(training: tuple) -> dict:
        return known.get(_key(row, *training), {"record": None})

    def printed(training: tuple) -> float:
        other = row | dict(zip(("trained_for", "train_ber_percent"), training))
        lines = tables.published_index().get(tables.published_key(other, "RP"))
        return lines[0]["mean"] if lines else np.nan

    seen = "one of the surrogates" if singles else "own model"
    found = {"target": seen if row["base_model"] in names else "unseen"}
    found |= {f"own_{name}": here(relaxed).get(name, np.nan) for name in ("RP", "RP_error")}
    for name, trainings in (("own", [relaxed]), ("singles", singles)):
        records = [here(training)["record"] for training in trainings]
        records = records if all(record in after for record in records) else []
        found[f"{name}_difference"], found[f"{name}_difference_error"] = tables.paired(after, row["record"], records)
    if tables.comparable(row):
        found["published_own_RP"] = printed(relaxed)
        alone = np.mean([printed(training) for training in singles]) if singles else np.nan
        found["published_singles_difference"] = row["published_RP"] - alone
    return found


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
    after = {digest_of(record["cell"]): np.array(record["metrics"].get("perturbed")) for record in records}
    rows = tables.recoveries(records)
    plain = rows["generator"].isin(generators.LABELS.values()) & (rows["flips"] == 0) & (rows["loss_weight"] == 5.0)
    plain &= (rows["trained_under"] == rows["error_model"]) & (rows["bits"] == 8) & rows["base_recipe"].isin(grids.RECIPES)
    listed = tables.with_printed(rows[plain], ORIGINS + RELAXED, dataset).to_dict("records")
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
    """Recovery by target and by what the generator was trained on, the target itself last: ours, and the paper's beside it, each
    with the targets that it has numbers of.

    rows: those of `frame` for one data set, base recipe, error model, bit-error rate and training rate.
    """
    first, itself = rows.iloc[0], rows.drop_duplicates(["generator", "base_model"])
    relaxed = {"RP": itself["own_RP"], "RP_error": itself["own_RP_error"], "published_RP": itself["published_own_RP"]}
    itself = itself.assign(trained_for="target itself", target="own model", **relaxed)
    rows = pd.concat([rows, itself]).sort_values("generator", kind="stable")
    lines = list(dict.fromkeys(zip(rows["generator"], rows["trained_for"].str.replace("+", " + "))))
    sources = {name: words for name, words in (("RP", "ours"), ("published_RP", "paper")) if rows[name].notna().any()}
    targets = {  # of each panel: those with a number
        source: [name for name in models.LABELS.values() if name in set(rows.loc[rows[source].notna(), "base_model"])]
        for source in sources
    }
    limit = 1.6 * max(1.0, rows[list(sources)].abs().to_numpy().max(initial=0, where=rows[list(sources)].notna().to_numpy()))
    ratios = [len(some) + 0.5 for some in targets.values()] or [1]
    figure, axes = figures._figure(max(1, len(sources)), height=1.5 + 0.36 * len(lines), sharey=True, width_ratios=ratios)
    said = ""
    for axis, (name, words) in zip(axes, sources.items()):
        values = np.full((len(lines), len(targets[name])), np.nan)
        texts = np.full(values.shape, "", object)
        for row in rows[rows[name].notna()].to_dict("records"):
            y, x = lines.index((row["generator"], row["trained_for"].replace("+", " + "))), targets[name].index(row["base_model"])
            values[y, x] = row[name]
            texts[y, x] = show.points(row[name], row["RP_error"] if name == "RP" and len(sources) == 1 else np.nan)
            if row["target"] != "unseen":
                style = {"linestyle": "-" if row["target"] == "own model" else ":", "linewidth": 2, "edgecolor": "black"}
                axis.add_patch(Rectangle((x + 0.06, y + 0.08), 0.88, 0.84, fill=False, zorder=3, **style))
        sns.heatmap(
            values, ax=axis, annot=texts, fmt="", cmap="RdBu", vmin=-limit, vmax=limit, linewidths=1, cbar=False,
            annot_kws={"fontsize": 8, "color": "black"}, mask=np.isnan(values), xticklabels=targets[name],
            yticklabels=[f"{generator} on {trained}" for generator, trained in lines],
        )  # fmt: skip
        axis.set(title=words, facecolor="0.88")
        axis.set_xlabel("target", fontsize=10)
        axis.grid(False)
        axis.tick_params(axis="x", rotation=35 if len(sources) > 1 else 0, labelsize=9)
        axis.tick_params(axis="y", rotation=0, labelsize=9)
        for target, some in rows.groupby("target")[name]:
            said += f" {words}, {target}: {some.min():+.1f} to {some.max():+.1f}." if some.notna().any() else ""
    setting = f"{first['dataset']}, base recipe {first['base_recipe']}, {first['error_model']}, BER {first['ber_percent']:g} %"
    title = f"RP in percentage points. {setting}, generators trained at {first['train_ber_percent']:g} %"
    figure.suptitle(title, fontsize=9, **figures.TITLE)
    return figures.Picture(figure, f"{title}; by target and by what the generator was trained on.{said}")


def pictures(rows: pd.DataFrame) -> HTML:
    """`matrix` for each setting of a frame."""
    return show.gallery([matrix(some) for _, some in rows.groupby(GROUP, sort=False)])


def table(rows: pd.DataFrame) -> HTML:
    """The frame with the columns that have any content, names in words; what was measured first, then the paper's alone."""
    shown = rows.sort_values("record", key=pd.Series.isna, kind="stable")[list(SHOWN)].rename(columns=SHOWN).dropna(axis=1, how="all")
    return show.table(shown, "transfer") if len(rows) else show.gallery([])


def elsewhere(profile: str, dataset: str) -> HTML:
    """`table` of each other data set that the paper transfers generators on."""
    stored = tables.stored(profile, profiles.cells(profile, "transfer"))
    return show.elsewhere(dataset, ("cifar10", "gtsrb", "cifar100"), lambda name: table(frame(stored, name)))


def _averages(some: pd.DataFrame, words: str, prefix: str) -> list[str]:
    """A line of the summary's table, of the columns that begin with `prefix`; none without numbers."""
    mine, own, gap = (f"{prefix}{name}" for name in ("RP", "own_RP", "singles_difference"))
    some = some[some[mine].notna()]
    unseen, many = some["target"] == "unseen", some["trained_for"].str.contains("+", regex=False)
    single, several, itself = some[unseen & ~many], some[unseen & many], some.loc[some["target"] == "own model", mine]
    both = single.dropna(subset=[own])
    clear = len(both) and both[own].mean() > (0 if prefix else 2 * both["own_RP_error"].mean())
    cells = [f"{len(single)}", *(_mean(values) for values in (single[mine], both[own]))]
    cells += [f"{100 * both[mine].mean() / both[own].mean():.0f} %" if clear else "–", _mean(itself)]
    cells += [_mean(several[mine]), _mean(several[gap])]
    return [f"| {words} | " + " | ".join(cells) + " |"] if len(some) else []


def _mean(values: pd.Series) -> str:
    return show.points(values.mean()) if values.notna().any() else "–"


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured; then averages of each setting of the frame, ours and the paper's.

    Where the frame's data sets are not in the paper, its CIFAR-10 stands for it.
    """
    measured = rows[rows["RP"].notna()]
    text = "\n\n".join(part for part in (show.progress(rows, profile, "transfer"), show.by_imitation(measured), "Averages of RP, in percentage points:") if part)
    printed = rows if rows["published_RP"].notna().any() else frame((), "cifar10")
    lines = [text, "", "| setting | pairs | one surrogate, unseen target | relaxed access, same targets | kept | own model | "]
    lines[-1] += "several surrogates, unseen target | against one of them |"
    lines += ["|---|---|---|---|---|---|---|---|"]
    sources = [(measured, "", "ours"), (measured, "published_", "paper, the same pairs"), (printed, "published_", "paper, all pairs")]
    for source, prefix, words in sources:
        for (dataset, recipe, law, rate, trained), some in source.groupby(GROUP, sort=False):
            setting = f"{words}: {dataset}, `{recipe}`, {law}, {rate:g} %, trained at {trained:g} %"
            lines += _averages(some, setting, prefix)
    lines += ["", "A dash under *kept* means that relaxed access is not measured, or recovers nothing clear itself (two standard errors)."]
    for own, whose in ((False, "targets that the generator never saw"), (True, "the generator's own base model")):
        gap = rows.loc[(rows["target"] == "own model") == own, "RP_difference"].dropna()
        if len(gap):
            lines[-1] += f" On {whose}, in {show.count(len(gap), 'setting')} that the paper prints too, our recovery minus the paper's is "
            lines[-1] += f"{gap.mean():+.1f} points on average, from {gap.min():+.1f} to {gap.max():+.1f}."
    seen = set(measured.loc[measured["target"] == "unseen", "base_model"])
    if 0 < len(seen) < 3:
        lines[-1] += f" Unseen targets measured so far: {show.listed(sorted(seen))} only."
    return show.prose("\n".join(lines))


def meaning(rows: pd.DataFrame) -> Markdown:
    """What the numbers say: of ours where there are any, otherwise of the paper's, which come without standard errors."""
    prefix = "" if rows["RP"].notna().any() else "published_"
    unseen = rows[(rows["target"] == "unseen") & rows[f"{prefix}RP"].notna()]
    if unseen.empty:
        return show.prose("There is nothing to conclude yet.")
    recovery, more = unseen[f"{prefix}RP"], unseen[f"{prefix}singles_difference"]
    own = unseen["published_RP"] - unseen["published_own_RP"] if prefix else unseen["own_difference"]
    errors = ("RP_error", "own_difference_error", "singles_difference_error")
    error, own_error, more_error = ((0.0 if prefix else 2 * unseen[name]) for name in errors)
    up, down, number = (recovery > error).sum(), (recovery < -error).sum(), len(unseen)
    verdict = "mostly helps" if up > number / 2 else "mostly harms" if down > number / 2 else "does not reliably help"
    sure = "" if prefix else " by more than two standard errors"
    text = f"{'In the paper' if prefix else 'Here'}, a generator {verdict} a base model that it never saw: it recovers "
    text += f"accuracy{sure} in {up} of {show.count(number, 'pair')} and costs some{sure} in {down}."
    if own.notna().any():
        text += f" It is worse than a generator trained on the target itself{sure} in {(own < -own_error).sum()} of "
        text += f"{own.notna().sum()}, better in {(own > own_error).sum()}."
    if more.notna().any():
        text += f" Several surrogates together change the recovery on unseen targets by {more.mean():+.1f} points on average "
        text += f"against a single one; they are better{sure} in {(more > more_error).sum()} of {more.notna().sum()}."
    end = "None of this has been measured here yet." if prefix else "Each generator was trained once: standard errors are over "
    return show.prose(f"{text} {end}" + ("" if prefix else "error patterns only, and do not cover [the chance of training](seeds.ipynb)."))
