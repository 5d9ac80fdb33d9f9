"""Base recipes compared: what errors leave of a base model under each recipe, what goes with it, and single changes."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from nflib import tables
from nflib.cells import digest_of
from nflib.training import VARIED, BaseRecipe

GROUP = ["dataset", "base_model", "width", "patterns", "images", "error_model", "ber_percent"]
SETTING = [*GROUP[:3], "recipe", "base_recipe", "weight_decay", "clipping", "bit_errors_percent", "schedule", "base_epochs", *GROUP[3:]]
STATISTICS = {  # column: (words, sign of what it should do to PA, whether it is a cause rather than the damage itself)
    "silent_percent": ("(a) silent channels", 1, True),
    "weight_noise": ("(c) errors in the weights, over the weights", -1, True),
    "gain": ("(c) what a layer makes of them", -1, True),
    "own_noise": ("(c) noise of a layer's own errors, over the signal", -1, True),
    "shift_percent": ("(d) noise that is a common offset of a channel", -1, True),
    "logit_noise": ("noise of all errors in the logits, over the signal", -1, False),
    "margin_over_noise": ("(b) margin over the logits' noise", 1, False),
}
COLUMNS = [*SETTING, "CA", "PA", "PA_std", "PA_worst", "to_recover", "range_over_rms", *STATISTICS, "precision", "record"]
VALUES = ["weight_decay", "clipping", "bit_errors_percent", "schedule", "base_epochs"]  # what a recipe can differ in
ADDED = ("clipping", "bit_errors_percent")  # of these, what a recipe does without: 0
CHANGES = ["setting", "changed", "at", "from", "to", "PA_change", "PA_error", "CA_change", "own_noise", "weight_noise", "gain"]
MODELS = 5  # fewer models than these say nothing about a correlation
GOES, AGAINST, CHANCE = "goes with PA", "goes the other way", "not told from chance"  # verdicts on a rank correlation
NEVER, FEW = "never changes, so cannot be why", "too few models"
LIMIT = 1.96  # of |rho| * sqrt(models - 1): beyond it, chance alone gives such a rank correlation once in twenty


def label(recipe: dict) -> str:
    """A recipe in words: its values, after its name where it has one."""
    known = BaseRecipe(**recipe)
    values = dataclasses.replace(known, name=VARIED).words
    return values if known.name == VARIED else f"{known.name}: {values}"


def _mean(values: list, geometric: bool = False) -> float:
    """Mean over layers, those where nothing varies (None) left out; missing without any."""
    kept = np.array([value for value in values if value is not None], float)
    if not len(kept):
        return np.nan
    return float(np.exp(np.log(np.maximum(kept, 1e-300)).mean())) if geometric else float(kept.mean())


def _statistics(metrics: dict) -> dict:
    """One number a model of each of STATISTICS: ratios as geometric means over layers, shares as plain ones."""
    own, weights = (_mean(metrics[name], geometric=True) for name in ("own_noise", "weight_noise"))
    return {
        "silent_percent": 100 * _mean(metrics["silent"][:-1]),
        "range_over_rms": _mean(metrics["range_over_rms"], geometric=True),
        "weight_noise": weights,
        "gain": own / weights if weights else np.nan,
        "own_noise": own,
        "shift_percent": 100 * _mean(metrics["shift"]),
        "logit_noise": _mean(metrics["noise"][-1:]),
        "margin_over_noise": metrics["margin"] / metrics["logit_noise"] if metrics["logit_noise"] else np.nan,
    }


def _key(record: dict) -> tuple:
    cell = record["cell"]
    return repr(cell["base"]), cell["law"], cell["rate"], cell["first_seed"]


def whole(records: Iterable[dict]) -> pd.DataFrame:
    """The rows of `frame`, and, of each, PA of every pattern ("perturbed") and the metrics of its damage ("damage")."""
    kinds: dict[str, list] = {"accuracy": [], "damage": []}
    for record in records:
        if record["cell"]["generator"] is None and record["cell"]["table"] in kinds:
            kinds[record["cell"]["table"]].append(record)
    damages, rows = {_key(record): record["metrics"] for record in kinds["damage"]}, []
    for record in kinds["accuracy"]:
        base, metrics, inside = record["cell"]["base"], record["metrics"], damages.get(_key(record))
        values, recipe = np.array(metrics["perturbed"]), base["recipe"]
        rate = f"{recipe['schedule'].replace('_', '-')} {recipe['learning_rate']:g}"
        row = tables.setting(record) | {"width": base["width"], "recipe": label(recipe), "schedule": rate}
        row |= {"weight_decay": recipe["weight_decay"], "clipping": recipe.get("clipping", 0.0)}
        row |= {"bit_errors_percent": round(100 * recipe.get("bit_errors", 0.0), 6)}
        row |= {"precision": metrics.get("base_training", {}).get("provenance", {}).get("precision")}
        row |= {"record": digest_of(record["cell"]), "perturbed": values}
        row |= {"CA": metrics["clean"], "PA": values.mean(), "PA_std": values.std(), "PA_worst": values.min()}
        rows.append(row | {"to_recover": row["CA"] - row["PA"], "damage": inside} | (_statistics(inside) if inside else {}))
    by = [*GROUP, "base_recipe", "weight_decay", "clipping", "bit_errors_percent", "schedule", "base_epochs", "record"]
    return pd.DataFrame(rows, columns=[*COLUMNS, "perturbed", "damage"]).sort_values(by, kind="stable", ignore_index=True)


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a base model alone and error model: its recipe, its accuracy, what errors do inside it.

    CA, PA in per cent (mean over patterns; std ddof 0), to_recover = CA - PA in points: no generator can bring more without
    beating CA.  Of the damage (`damage.damage`), geometric means over layers: range_over_rms, weight_noise, own_noise and
    gain = own_noise / weight_noise; means: silent_percent (the last layer left out), shift_percent; logit_noise, the last
    layer's noise over its signal; margin_over_noise.  Missing where accuracy alone is measured.  precision: that of training.
    """
    return whole(records)[COLUMNS]


def groups(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(setting in words, rows by falling PA) of each base model and error model."""
    for key, some in rows.groupby(GROUP, sort=True):
        dataset, model, width, patterns, images, law, rate = key
        size = "" if width == 1 else f" at {width:g} of its width"
        yield f"{dataset} {model}{size} ({patterns} chips × {images:,} images), {law}, BER {rate:g} %", some.sort_values("PA", ascending=False, kind="stable")


def _order(name: str, value: object) -> tuple:
    """What comes first of the values of a recipe: the lowest; of schedules one-cycle, from the highest rate down."""
    kind, _, rate = str(value).partition(" ")
    return (kind != "one-cycle", -float(rate)) if name == "schedule" else (value,)


def _said(name: str, value: object) -> tuple[str, str]:
    """A value of a recipe in words: what it is, and how much; ("decay", "0.0005"), ("schedule", "one-cycle 0.1")."""
    what = "training on bit errors" if name == "bit_errors_percent" else name.rpartition("_")[2]
    return what, value if isinstance(value, str) else f"{value:g}{' %' if what.endswith('errors') else ''}"


def changes(records: Iterable[dict]) -> pd.DataFrame:
    """A row for each pair of recipes that differ in one of VALUES, from the first of its values (`_order`) to another.

    PA_change: mean difference on the same patterns, and PA_error, its standard error over them (both trainings fixed);
    CA_change likewise, in points.  own_noise, weight_noise, gain: factors by which these change; the first is the product
    of the others.
    """
    made = []
    for title, some in groups(whole(records)):
        for name in VALUES:
            others = [other for other in VALUES if other != name]
            for key, alike in some.groupby(others, sort=True):
                alike = sorted(alike.to_dict("records"), key=lambda row: _order(name, row[name]))
                at = ", ".join(" ".join(_said(other, value)) for other, value in zip(others, key) if other not in ADDED or value)
                for row in alike[1:]:
                    gap = row["perturbed"] - alike[0]["perturbed"]
                    error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan
                    values = [gap.mean(), error, row["CA"] - alike[0]["CA"]]
                    values += [row[part] / alike[0][part] for part in CHANGES[-3:]]
                    (kind, before), (_, after) = (_said(name, one[name]) for one in (alike[0], row))
                    made.append([title, kind, at, before, after, *values])
    return pd.DataFrame(made, columns=CHANGES)


def after_cuts(records: Iterable[dict]) -> pd.DataFrame:
    """A row a model and multiple of the root mean square at which its trained weights were cut (`damage.after_cuts`): CA and
    PA in per cent on the damage's own images and patterns, and their changes in points."""
    made = []
    for title, some in groups(whole(records)):
        for row in some[some["damage"].notna()].to_dict("records"):
            known = row["damage"]
            for after in known.get("after_cuts", ()):
                accuracy, before = np.mean(after["perturbed"]), np.mean(known["perturbed"])
                changed = [after["clean"] - known["clean"], accuracy - before]
                made.append([title, row["recipe"], len(known["perturbed"]), known["images"], after["cut"], after["clean"], accuracy, *changed])
    return pd.DataFrame(made, columns=["setting", "recipe", "patterns", "images", "cut", "CA", "PA", "CA_change", "PA_change"])


def correlations(rows: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of each of STATISTICS with PA over the recipes of a base model and error model, at least
    MODELS of them (rho, missing where one of the two never changes), the number of models, and what follows (`verdict`)."""
    made = []
    for title, some in groups(rows[rows["own_noise"].notna()]):
        if len(some) < MODELS:
            continue
        for name, (words, sign, _) in STATISTICS.items():
            pair = some[[name, "PA"]].dropna().round(9).rank()
            varies = len(pair) > 1 and (pair.std() > 0).all()
            rho = float(np.corrcoef(pair[name], pair["PA"])[0, 1]) if varies else np.nan
            made.append([title, name, words, "+" if sign > 0 else "−", rho, len(pair), verdict(rho, sign, len(pair))])
    return pd.DataFrame(made, columns=["setting", "column", "statistic", "expected", "rho", "models", "verdict"])


def verdict(rho: float, sign: int, models: int) -> str:
    """What a rank correlation over some models says about a hypothesis of that sign."""
    if models < MODELS:
        return FEW
    if np.isnan(rho):
        return NEVER
    if abs(rho) * np.sqrt(models - 1) < LIMIT:
        return CHANCE
    return GOES if rho * sign > 0 else AGAINST
