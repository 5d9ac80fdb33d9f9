"""The tidy frame: one row a measured cell, which every table, picture and claim of the book starts from."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from nflib import data, faults, generators, models
from nflib.mitigations import MITIGATIONS
from nflib.names import UserError
from nflib.report import published
from nflib.study import runner
from nflib.study.cells import Cell, cell_of, digest_of
from nflib.study.measures import DERIVED
from nflib.study.recipes import is_official
from nflib.study.records import Store

ORDER = {  # of categories in tables and pictures
    "dataset": list(data.LABELS.values()),
    "base_model": list(models.ALL_LABELS.values()),
    "generator": ["none", *generators.ALL_LABELS.values()],
    "error_model": list(faults.LABELS.values()),
}
SORTED = ["dataset", "base_model", "width", "base_recipe", "epochs", "error_model", "bits", "hit", "shift", "mitigation"]
SORTED += ["generator", "training", "steps", "distillation_steps", "trained_on", "train_rate", "rate", "digest"]


def standard_error(values: np.ndarray) -> float:
    """Of the mean of values [N]; NaN for one."""
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def errors_of(accuracies: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation (ddof 0), standard error of the mean and worst of accuracies over error patterns [P]."""
    spread = {"std": accuracies.std(), "se": standard_error(accuracies), "worst": accuracies.min()}
    return {"perturbed": accuracies.mean(), **spread}


def paired(after: Sequence[float], before: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the differences of accuracies [P] on the same error patterns, in percentage points."""
    gap = np.asarray(after, float) - np.asarray(before, float)
    return gap.mean(), standard_error(gap)


def spearman(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation of numbers [S], and its two-sided p: by all orders where S < 8, else by 10,000 of them."""
    ranks = [stats.rankdata(some) - (len(some) + 1) / 2 for some in (one, other)]
    norm = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    draws = {"permutation_type": "pairings", "n_resamples": 10000, "vectorized": True, "random_state": 0}
    found = stats.permutation_test(ranks[:1], lambda some, axis: (some * ranks[1]).sum(axis) / norm, **draws)
    return float(found.statistic), float(found.pvalue)


def rank_correlation(accuracies: Sequence[Sequence[float]], others: Sequence[float]) -> tuple[float, float, float, float]:
    """`spearman` of mean accuracies and other numbers [S], and the ends of its 95 % interval over chips.

    accuracies: [S, P], of S systems on the same P error patterns.  The interval: 2,000 bootstrap samples of the patterns.
    """
    accuracies = np.asarray(accuracies, float)
    drawn = np.random.default_rng(0).integers(accuracies.shape[1], size=(2000, accuracies.shape[1]))
    found = [stats.spearmanr(some, others).statistic for some in accuracies[:, drawn].mean(-1).T]
    return *spearman(accuracies.mean(1), others), *np.nanpercentile(found, [2.5, 97.5])


def _system(cell: Cell) -> str:
    """What stands in front of the base model or in its memory, in words: "alone", "ConvL", "sign bit protected"."""
    if cell.mitigation:
        return MITIGATIONS[cell.mitigation].label
    if cell.selector:
        return f"class-wise, selected by {models.label(cell.selector.model)}"
    if cell.generator is None:
        return "alone" if cell.base.recipe.name in ("release", "modern") else f"alone ({cell.base.recipe.words})"
    by = {generators.CLASS_WISE: "class-wise, by true label", generators.UNIVERSAL: "one perturbation for all images"}
    return by.get(cell.generator.name, cell.generator.label)


def _rate(cell: Cell) -> float:
    """The bit-error rate that a cell was measured at; a profiled chip's own, NaN where its map cannot be read any more."""
    try:
        return faults.named(cell.error_model, cell.rate).ber
    except UserError:
        return np.nan


def _row(cell: Cell, record: dict) -> dict:
    """Everything that a cell says, and what was measured of it."""
    base, recipe, metrics = cell.base, cell.generator, record["metrics"]
    trainings = [metrics.get(f"{what}_training") or {} for what in ("base", "generator", "selector")]
    taught = [*trainings[1:], trainings[1].get("teacher", {})]  # all that the system in front was trained with
    row = {
        "kind": cell.kind,
        "dataset": data.LABELS.get(base.dataset, base.dataset),
        "base_model": models.label(base.model),
        "width": base.width,
        "base_recipe": base.recipe.name,
        "recipe_words": base.recipe.words,
        "epochs": base.recipe.epochs,
        "base_seed": base.recipe.seed,
        "weight_decay": base.recipe.weight_decay,
        "clipping": base.recipe.clipping,
        "bit_errors": base.recipe.bit_errors,
        "tuned": base.recipe.tuned_words,
        "schedule": base.recipe.schedule,
        "system": _system(cell),
        "generator": recipe.label if recipe else "none",
        "training": ("official EOPM" if is_official(recipe) else recipe.training) if recipe else "none",
        "trained_on": "+".join(models.label(one.model) for one in cell.trained_on) if recipe else "none",
        "train_error_model": faults.LABELS.get(recipe.error_model, recipe.error_model) if recipe else "none",
        "train_rate": recipe.rate if recipe else 0.0,
        "steps": recipe.steps if recipe else 0,
        "distillation_steps": recipe.distillation_steps if recipe else 0,
        "models_per_step": recipe.models_per_step if recipe else 0,
        "loss_weight": float(recipe.loss_weight) if recipe else 0.0,
        "flips": recipe.adversarial_flips if recipe else 0,
        "generator_width": recipe.width if recipe else 0.0,
        "generator_seed": recipe.seed if recipe else 0,
        "selector": models.label(cell.selector.model) if cell.selector else "none",
        "mitigation": cell.mitigation or "none",
        "error_model": faults.LABELS.get(cell.error_model, cell.error_model),
        "rate": _rate(cell),
        "bits": cell.bits or base.recipe.bits,
        "hit": cell.hit or "all",
        "shift": cell.shift or "none",
        "batch": cell.images if cell.device else 0,
        "patterns": cell.patterns,
        "first_seed": cell.first_seed,
        "images": metrics.get("images", 0),
        "clean": metrics.get("clean", np.nan),
        "changed_bits": float(np.mean(metrics["changed_bits"])) if metrics.get("changed_bits") else np.nan,
        "training_minutes": sum(t.get("seconds", 0.0) for t in taught) / 60,
        "model_images": sum(t.get("model_images", 0) for t in taught),
        "base_minutes": sum(t.get("seconds", 0.0) for t in (trainings[0], trainings[0].get("start", {}))) / 60,
        "device": record["provenance"]["device"],
        "trained_with": " and ".join(dict.fromkeys(t["provenance"]["device"] for t in trainings if "provenance" in t)),
        "profile": record["profile"],
        "digest": digest_of(record["cell"]),
        "alone_digest": cell.alone.digest,
        "accuracies": np.asarray(metrics.get("perturbed", ()), float),
    }
    if len(row["accuracies"]):
        row |= errors_of(row["accuracies"])
    return row | DERIVED.get(cell.kind, lambda metrics: {})(metrics)


def frame(cells: Iterable[Cell], records: dict[str, dict]) -> pd.DataFrame:
    """A row for each of `cells` that has a record; records: by digest, each with its "profile".

    Columns say what was measured in the vocabulary of the glossary, with labels ("VGG11", "ConvL"), rates as fractions.
    clean, perturbed (mean over error patterns), worst: accuracies in per cent of this row's system; std (over patterns,
    ddof 0), se (standard error of the mean); accuracies: one a pattern.  clean_alone, perturbed_alone: of the base model
    alone under the same errors on the same images; recovery and recovery_se: mean of the paired differences, in percentage
    points; NaN where that was not measured.  training_minutes, model_images (images times perturbed models): of all that
    stands in front of the base model, the class-wise perturbations that it learned from included.  published_*: the paper's
    numbers for the setting, where base recipe and error model are the official code's.  A kind of measurement adds the
    columns of `measures.DERIVED`.
    """
    found = [(cell, records[cell.digest]) for cell in dict.fromkeys(cells) if cell.digest in records]
    rows = []
    for cell, record in found:
        row, alone = _row(cell, record), records.get(cell.alone.digest)
        metrics = (alone or {}).get("metrics", {})
        if metrics.get("perturbed"):
            row |= {"clean_alone": metrics["clean"], "perturbed_alone": float(np.mean(metrics["perturbed"]))}
            if cell != cell.alone and len(row["accuracies"]):
                row["recovery"], row["recovery_se"] = paired(row["accuracies"], metrics["perturbed"])
        rows.append(row)
    names = ["perturbed", "std", "se", "worst", "clean_alone", "perturbed_alone", "recovery", "recovery_se"]
    whole = pd.DataFrame(rows)
    whole = whole.reindex(columns=[*dict.fromkeys([*whole.columns, *names])])
    return _with_published(whole) if len(whole) else whole


def _with_published(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, in order, with the paper's numbers beside those that were measured as the official code does it."""
    keys = [*published.SYSTEM, "rate"]
    rows = rows.merge(published.accuracies(), how="left", on=keys, validate="many_to_one")
    beside = [*(name for name in rows if name.startswith("published_")), "origin"]
    read_back = np.where(rows["bits"] == 8, "ReleaseMap", "ReleaseMap, sign slip")  # the official code's own way
    official = (rows["error_model"] == read_back) & rows["base_recipe"].isin(["release", "awp"])
    official &= (rows["kind"] == "accuracy") & (rows["selector"] == "none")
    rows[beside] = rows[beside].where(official)
    return ordered(rows)


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of all tables: setting first, categories as ORDER has them."""

    def rank(column: pd.Series) -> pd.Series:
        order = ORDER.get(column.name)
        return column.map({value: place for place, value in enumerate(order)}).fillna(99) if order else column

    by = [name for name in SORTED if name in rows]
    return rows.sort_values(by, key=rank, kind="stable", ignore_index=True)


def measured(cells: Iterable[Cell], profile: str, measure: bool = True, device: str = "auto") -> pd.DataFrame:
    """The tidy frame (`frame`) of `cells`: what has no record is measured first; measure=False: stored records only.

    The base model alone, which recovery is held against, is looked up too where it has a record.  Raises UserError where
    nothing is stored, or for an unknown profile.
    """
    cells, store = list(dict.fromkeys(cells)), Store(profile)
    if not cells:
        raise UserError("these parameters ask for no cell; give at least one of each list")
    if measure:
        runner.run(cells, profile, device)
    wanted = dict.fromkeys([*cells, *(cell.alone for cell in cells)])
    records = {cell.digest: {**store.read(store.path(cell)), "profile": profile} for cell in wanted if store.has(cell)}
    rows = frame(cells, records)
    if rows.empty:
        raise UserError(f"none of the {len(cells)} cells has a record in {store.root}; measure=True measures them")
    return rows


def stored(profile: str) -> pd.DataFrame:
    """The tidy frame (`frame`) of all records of a profile; without rows where it has none."""
    records = {digest_of(record["cell"]): {**record, "profile": profile} for record in Store(profile).records()}
    return frame([cell_of(record["cell"]) for record in records.values()], records)


def arrays(rows: pd.DataFrame) -> list[dict[str, np.ndarray]]:
    """The arrays stored beside each row's record, in the order of the rows."""
    found = []
    for row in rows.itertuples():
        store = Store(row.profile)
        found.append(store.arrays(store.read(store.root / row.kind / f"{row.digest}.json")))
    return found


def metrics(row: pd.Series) -> dict:
    """All that was measured of a row's cell, as its record has it."""
    store = Store(row["profile"])
    return store.read(store.root / row["kind"] / f"{row['digest']}.json")["metrics"]
