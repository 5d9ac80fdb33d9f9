"""Records to data frames: pure functions, so that the same records give the same bytes."""

import functools
import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from nflib import data, energy, faults, generators, grids, models, published
from nflib.cells import Cell, digest_of
from nflib.store import Store

SETTING = ["dataset", "base_model", "base_recipe", "base_epochs", "error_model", "ber_percent", "patterns", "images"]
KEYS = [*SETTING, "bits", "base", "first_seed"]  # what a generator's row and its base model's row must share
TRAINING = ["trained_for", "trained_under", "train_ber_percent", "steps", "imitation_steps", "models_per_step", "loss_weight"]
TRAINING += ["flips"]
MEASURED = ["CA", "PA", "PA_std", "PA_worst", "CA_NF", "PA_NF", "PA_NF_std", "PA_NF_worst", "RP", "RP_error"]
METRICS = ["CA", "PA", "CA_NF", "PA_NF", "RP"]


def stored(profile: str, cells: Iterable[Cell] | None = None, kind: str = "accuracy") -> list[dict]:
    """Records of a profile, checked: of the `cells` given (those without a record are left out), or all of a kind."""
    store = Store(profile)
    if cells is None:
        return store.records(kind)
    return [store.read(store.path(cell)) for cell in dict.fromkeys(cells) if store.has(cell)]


def longest(records: Iterable[dict]) -> list[dict]:
    """The records whose base model was trained longest among those of its data set, architecture and recipe."""
    return _of_one_length(records, lambda epochs, found: epochs)


def fullest(records: Iterable[dict]) -> list[dict]:
    """The records of the base model that most was measured with, among those of its data set, architecture and recipe: most
    systems (what is in front of it, in its memory or wrong with it), then most settings, then the longest training.  For
    statements that compare systems, which must share one base model."""

    def system(record: dict) -> str:
        cell, recipe = record["cell"], record["cell"]["generator"] or {}
        kind = [recipe.get("name"), bool(recipe.get("steps")), bool(recipe.get("imitation_steps"))]
        return repr([cell["table"], *kind, *(cell.get(name) for name in ("teller", "surrogates", "mitigation", "hit", "shift", "bits"))])

    return _of_one_length(records, lambda epochs, found: (len({system(record) for record in found}), len(found), epochs))


def _of_one_length(records: Iterable[dict], worth: Callable[[int, list[dict]], object]) -> list[dict]:
    """The records of the base models whose number of epochs is worth most, among those alike otherwise."""
    records, kinds = list(records), {}
    for record in records:
        base = record["cell"]["base"]
        lengths = kinds.setdefault((base["dataset"], base["model"], base["recipe"]["name"], base["width"]), {})
        lengths.setdefault(base["recipe"]["epochs"], []).append(record)
    chosen = {id(record) for lengths in kinds.values() for record in max(lengths.items(), key=lambda pair: worth(*pair))[1]}
    rivals = grids.ROBUST_RECIPES  # of any length: each stands beside the base models of its own
    return [record for record in records if id(record) in chosen or record["cell"]["base"]["recipe"]["name"] in rivals]


def setting(record: dict) -> dict:
    """A record's setting in the words of the tables: a value for each of KEYS."""
    cell, base = record["cell"], record["cell"]["base"]
    return {
        "dataset": data.LABELS.get(base["dataset"], base["dataset"]),
        "base_model": models.label(base["model"]),
        "base_recipe": base["recipe"]["name"],
        "base_epochs": base["recipe"]["epochs"],
        "error_model": faults.LABELS.get(cell["law"], cell["law"]),
        "ber_percent": round(100 * cell["rate"], 6),
        "patterns": cell["patterns"],
        "images": record["metrics"].get("images"),
        "bits": cell.get("bits") or base["recipe"]["bits"],
        "base": repr(base),
        "first_seed": cell["first_seed"],
    }


def _training(cell: dict) -> dict:
    """How a cell's generator was trained: a value for each of TRAINING."""
    recipe = cell["generator"]
    return {
        "trained_for": "+".join(models.label(base["model"]) for base in cell["surrogates"] or [cell["base"]]),
        "trained_under": faults.LABELS.get(recipe["law"], recipe["law"]),
        "train_ber_percent": round(100 * recipe["rate"], 6),
        "steps": recipe["steps"],
        "imitation_steps": recipe.get("imitation_steps", 0),
        "models_per_step": recipe["models_per_step"],
        "loss_weight": float(recipe["loss_weight"]),
        "flips": recipe.get("adversarial_flips", 0),
    }


def recoveries(records: Iterable[dict]) -> pd.DataFrame:
    """A row for each base model alone (generator "none") and with each generator, however it was trained.

    CA, PA and their counterparts with the generator in per cent (means over patterns; `std` over patterns, ddof 0;
    `worst` the lowest pattern); RP, the mean of the paired differences PA(NF) - PA, and RP_error, its standard error over
    patterns, in percentage points; published_* the paper's number for the setting (the first table that prints it).  A
    generator counts only where its base model was measured on the same patterns; otherwise its PA and RP are missing.
    """
    alone, rows = {}, []
    records = [record for record in records if record["cell"]["table"] == "accuracy"]
    for record in records:
        if record["cell"]["generator"] is None:
            alone[tuple(setting(record)[key] for key in KEYS)] = record
    for record in records:
        here, recipe, metrics = setting(record), record["cell"]["generator"], record["metrics"]
        base = alone.get(tuple(here[key] for key in KEYS))
        row = {**here, "generator": "none", "steps": 0, "imitation_steps": 0, "flips": 0, "CA": np.nan, "PA": np.nan}
        if base is not None:
            before = np.array(base["metrics"]["perturbed"])
            row |= {"CA": base["metrics"]["clean"], "PA": before.mean(), "PA_std": before.std(), "PA_worst": before.min()}
        if recipe is not None:
            after = np.array(metrics["perturbed"])
            row |= {"generator": generators.label(recipe["name"]), **_training(record["cell"])}
            teller = record["cell"].get("teller")
            row |= {"teller": models.label(teller["model"])} if teller else {}
            row |= {"CA_NF": metrics["clean"], "PA_NF": after.mean(), "PA_NF_std": after.std(), "PA_NF_worst": after.min()}
            if base is not None:
                gain = after - before
                row |= {"RP": gain.mean(), "RP_error": gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan}
        row["changed_bits_percent"] = 100 * float(np.mean(metrics["changed_bits"]))
        rows.append(row | {"device": record["provenance"]["device"], "record": digest_of(record["cell"])})
    columns = [*KEYS, "generator", "teller", *TRAINING, *MEASURED, "changed_bits_percent", "device", "record"]
    frame = pd.DataFrame(rows).reindex(columns=columns)
    index = published_index()
    for metric in METRICS:
        found = [index.get(published_key(row, metric)) for row in frame.to_dict("records")]
        frame[f"published_{metric}"] = [rows[0]["mean"] if rows else np.nan for rows in found]
    for metric in ("PA", "RP"):
        frame[f"{metric}_difference"] = frame[metric] - frame[f"published_{metric}"]
    order = {"base_model": [*models.LABELS.values(), *models.EXTRA_LABELS.values()]}
    order |= {"generator": ["none", *generators.LABELS.values(), *generators.CONTROLS.values()]}
    for name, values in order.items():
        frame[f"_{name}"] = frame[name].map({value: k for k, value in enumerate(values)})
    by = ["dataset", "base_recipe", "error_model", "ber_percent", "_base_model", "_generator", "steps", "record"]
    return frame.sort_values(by, kind="stable").drop(columns=["_base_model", "_generator"]).reset_index(drop=True)


def longest_trained(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Of rows of `recoveries` that share the columns `by`, the one whose base model, then generator, was trained longest."""
    length = rows["imitation_steps"] + rows["steps"]
    return rows.assign(_length=length).sort_values(["base_epochs", "_length", "record"]).drop_duplicates(by, keep="last").drop(columns="_length")


def published_key(row: dict, metric: str) -> tuple:
    """What identifies a printed number; `row` is one of `recoveries`.

    A clean accuracy does not depend on the bit-error rate, one without a generator not on training.
    """
    name = f"{row['base_model']} (AWP)" if row["base_recipe"] == "awp" else row["base_model"]
    key = (metric, row["dataset"], name, row["bits"], None if metric.startswith("CA") else row["ber_percent"])
    if metric in ("CA", "PA"):
        return key
    training = row["trained_for"] if row["base_recipe"] != "awp" else name
    return (*key, row["generator"], training, row["train_ber_percent"], row["loss_weight"], row["flips"])


@functools.cache
def published_index() -> dict[tuple, list[dict]]:
    """Printed accuracies and recoveries by `published_key`, tables before figures; the rows' numbers are in "row"."""
    known = published.load()
    known = known[known["metric"].str.replace("_UIP", "_NF").isin(METRICS)].reset_index(names="row")
    index: dict[tuple, list[dict]] = {}
    for line in known.sort_values("origin", key=lambda names: ~names.str.startswith("table"), kind="stable").to_dict("records"):
        if not isinstance(line["base_model"], str):
            continue
        note = line["note"] if isinstance(line["note"], str) else ""
        weight, flips = (re.search(word, note) for word in (r"lambda=([\d.]+)", r"K=(\d+)"))
        rate = line["train_ber_percent"]
        if np.isnan(rate):  # not printed: adversarial training has none, the figures' generators were trained at 0.5 %
            rate = 0.5 if line["origin"].startswith("fig04") else line["ber_percent"] or 1.0
        row = {
            **line,
            "base_recipe": "release",
            "bits": 8 if np.isnan(line["bits"]) else int(line["bits"]),
            "generator": line["generator"].partition(" (")[0],
            "trained_for": line["train_model"] if isinstance(line["train_model"], str) else line["base_model"],
            "train_ber_percent": rate,
            "loss_weight": float(weight[1]) if weight else 5.0,
            "flips": int(flips[1]) if flips else 0,
        }
        index.setdefault(published_key(row, line["metric"].replace("_UIP", "_NF")), []).append(line)
    return index


def printed(key: tuple) -> dict[str, float]:
    """The paper's PA(NF) of each generator that it trained for a setting, in per cent; {} where the official code computes something else.

    key: dataset, base_model, base_recipe, base_epochs, error_model, ber_percent.
    """
    setting = dict(zip(SETTING, key))
    if not comparable(setting):
        return {}
    setting |= {"bits": 8, "trained_for": setting["base_model"], "train_ber_percent": setting["ber_percent"], "loss_weight": 5.0, "flips": 0}
    keys = {name: published_key(setting | {"generator": name}, "PA_NF") for name in generators.LABELS.values()}
    return {name: lines[0]["mean"] for name, key in keys.items() if (lines := published_index().get(key))}


def described(record: dict) -> dict:
    """A record's setting, generator and training in the words of the tables, and the numbers that the paper prints for it.

    Printed numbers stand beside ReleaseMap and base recipe `release` only: those are what the official code does.
    """
    recipe = record["cell"]["generator"]
    row = setting(record) | {"generator": "none", "steps": 0, "record": digest_of(record["cell"])}
    row["classes"] = record["metrics"]["classes"]
    if recipe:
        row |= _training(record["cell"]) | {"generator": generators.label(recipe["name"])}
    if comparable(row):
        for metric in METRICS if recipe else ("CA", "PA"):
            lines = published_index().get(published_key(row, metric))
            row[f"published_{metric}"] = lines[0]["mean"] if lines else np.nan
    return row


def ordered(rows: list[dict], columns: list[str], *last: str) -> pd.DataFrame:
    """Rows of `described` in the order of all tables: setting, then generator, steps and the columns `last`."""
    frame = pd.DataFrame(rows, columns=columns)
    ranks = {"base_model": [*models.LABELS.values(), *models.EXTRA_LABELS.values()]}
    ranks["generator"] = ["none", *generators.LABELS.values(), *generators.CONTROLS.values()]
    by = [*(name for name in SETTING if name in columns), "generator", "steps", *last, "record"]
    order = lambda column: column.map(ranks[column.name].index) if column.name in ranks else column  # noqa: E731
    return frame.sort_values(by, key=order, kind="stable").reset_index(drop=True)


def comparable(rows: pd.DataFrame | dict) -> pd.Series | bool:
    """Whether rows, or one, were measured as the official code does it: base recipe `release` under ReleaseMap."""
    return (rows["base_recipe"] == "release") & (rows["error_model"] == "ReleaseMap")


def _beside_ours(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with printed numbers and differences where they are `comparable` only."""
    beside = [name for name in rows if name.startswith("published_") or name.endswith("_difference")]
    return rows.assign(**{name: rows[name].where(comparable(rows)) for name in beside})


def with_printed(rows: pd.DataFrame, origins: tuple[str, ...], dataset: str | None) -> pd.DataFrame:
    """Generators' `rows` of `recoveries`; then, with dashes for ours, what else the printed tables `origins` have.

    Printed settings are those of `dataset`, or of the data sets in `rows`.  Printed numbers stand only where base recipe
    and error model are the official code's: release, ReleaseMap.
    """
    rows = _beside_ours(rows)
    index, have = published_index(), {published_key(row, "RP") for row in rows[comparable(rows)].to_dict("records")}
    wanted = {data.LABELS.get(dataset, dataset)} if dataset else set(rows["dataset"])
    fields = ["dataset", "base_model", "bits", "ber_percent", "generator", "trained_for", "train_ber_percent", "loss_weight"]
    printed = []
    for key, lines in index.items():
        if key[0] == "RP" and key[1] in wanted and key not in have and any(x["origin"].startswith(origins) for x in lines):
            row = {**dict(zip(fields, key[1:])), "base_recipe": "release", "error_model": "ReleaseMap", "flips": key[-1]}
            found = {metric: index.get(published_key(row, metric)) for metric in METRICS}
            printed.append(row | {f"published_{metric}": lines[0]["mean"] for metric, lines in found.items() if lines})
    return pd.DataFrame([*rows.to_dict("records"), *printed], columns=rows.columns)


def paired(after: dict, one: str, others: list[str]) -> tuple[float, float]:
    """Mean of PA(NF) of record `one` minus the mean of `others` on the same patterns, and its standard error, in points."""
    if one not in after or not others:
        return np.nan, np.nan
    gap = after[one] - np.mean([after[other] for other in others], axis=0)
    return gap.mean(), gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.nan


def accuracy(records: Iterable[dict]) -> pd.DataFrame:
    """Accuracy recovery in relaxed access (Tables 12 to 15): the rows of `recoveries` whose base model and generator were
    trained by the main recipes, at 8 bits, the generator on its own base model under the error model that it meets.

    published_* and differences stand for base recipe `release` under ReleaseMap only: that is what the official code does."""
    rows = recoveries(records)
    plain = (rows["bits"] == 8) & rows["base_recipe"].isin(grids.RECIPES) & (rows["flips"] == 0)
    plain &= rows["generator"].isin(["none", *generators.LABELS.values()])
    plain &= ~rows["base_model"].isin([models.label(name) for name in models.ENCODERS])
    own = (rows["trained_for"] == rows["base_model"]) & (rows["loss_weight"] == 5.0)
    own &= (rows["trained_under"] == rows["error_model"]) & (rows["train_ber_percent"] == rows["ber_percent"])
    columns = [*SETTING, "generator", "steps", "imitation_steps", "models_per_step", "trained_under", *MEASURED]
    columns += [f"published_{metric}" for metric in METRICS]
    columns += ["PA_difference", "RP_difference", "changed_bits_percent", "device", "record"]
    rows = rows[plain & (own | (rows["generator"] == "none"))][columns].reset_index(drop=True)
    return _beside_ours(rows)


def with_unmeasured(rows: pd.DataFrame, datasets: Iterable[str]) -> pd.DataFrame:
    """`rows` of `accuracy`, and, with dashes for ours, what else Tables 12 to 15 print of `datasets` (names)."""
    keys = ["dataset", "base_model", "ber_percent", "generator"]
    have = set(rows.loc[comparable(rows), keys].itertuples(index=False, name=None))
    printed = [row for name in datasets for row in printed_rows("table1[2-5]_", name) if tuple(row[key] for key in keys) not in have]
    return pd.DataFrame([*rows.to_dict("records"), *printed], columns=rows.columns)


def printed_rows(origins: str, dataset: str) -> list[dict]:
    """Each setting that printed tables have of a data set (a name), alone and behind generators, with its published_* accuracies, under
    the official code's recipe and error map.  origins: a regular expression that the tables' begin with."""
    index, made = published_index(), []
    for (metric, where, model, bits, ber, *training), lines in index.items():
        if metric in ("PA", "PA_NF") and where == data.LABELS.get(dataset, dataset) and any(re.match(origins, line["origin"]) for line in lines):
            name, on, train_ber, weight, flips = training or ("none", model, np.nan, 5.0, 0)
            row = {"dataset": where, "base_model": model, "base_recipe": "release", "error_model": "ReleaseMap", "ber_percent": ber}
            row |= {"generator": name, "bits": bits, "trained_for": on, "train_ber_percent": train_ber, "loss_weight": weight, "flips": flips}
            found = {m: index.get(published_key(row, m)) for m in METRICS}
            made.append(row | {f"published_{m}": lines[0]["mean"] for m, lines in found.items() if lines})
    return made


def _architectures(image_size: int) -> tuple[dict, dict]:
    bases = {label: models.build(name, 10, image_size) for name, label in models.LABELS.items()}
    return bases, {label: generators.build(name) for name, label in generators.LABELS.items()}


@functools.cache
def weight_reads(image_size: int = 32) -> pd.DataFrame:
    """Table 6, and its correction: weight reads of each network, as the paper counts them and as they really are."""
    known = published.select(origin="table06_twma").fillna("none")
    printed = {r.base_model if r.generator == "none" else r.generator: r.mean for r in known.itertuples()}
    bases, small = _architectures(image_size)
    rows = []
    for name, network in {**bases, **small}.items():
        rows.append(
            {
                "network": name,
                "parameters": models.parameter_count(network),
                "published_reads": printed.get(name, np.nan) if image_size == 32 else np.nan,
                "reads": energy.weight_reads(network, image_size),
                "true_reads": energy.weight_reads(network, image_size, proxy=False),
                "published_macs_million": _published_macs(name, image_size),
                "macs_million": energy.macs(network, image_size) / 1e6,
            }
        )
    return pd.DataFrame(rows)


def _published_macs(name: str, image_size: int) -> float:
    dataset = "CIFAR-10" if image_size == 32 else "ImageNet-10"
    known = published.load()
    known = known[(known["origin"] == "table07_params_macs") & (known["metric"] == "MACs_million")]
    known = known[(known["base_model"] == name) | (known["generator"] == name)]
    here = known[known["dataset"].astype(str).str.contains(dataset)]
    return float(here["mean"].iloc[0]) if len(here) else np.nan


@functools.cache
def energy_saving(image_size: int = 32, ratio: float = energy.ENERGY_RATIO) -> pd.DataFrame:
    """Tables 2 and 8 and their corrections, in per cent, for every base model and generator.

    ES from weight reads as the paper counts them and as they really are; MAC-ES from the MACs that the paper prints and
    from the true ones.  ratio: energy of a read at low voltage over that at nominal voltage.
    """
    networks = weight_reads(image_size).set_index("network")
    printed = {}
    for origin, metric in (("table02_energy_saving", "ES_percent"), ("table08_mac_es", "MAC_ES_percent")):
        for row in published.select(origin=origin, metric=metric).itertuples():
            printed[metric, row.base_model, row.generator] = row.mean
    rows = []
    for base in models.LABELS.values():
        for generator in generators.LABELS.values():
            a, b = networks.loc[base], networks.loc[generator]
            at_32 = image_size == 32
            rows.append(
                {
                    "base_model": base,
                    "generator": generator,
                    "published_ES": printed.get(("ES_percent", base, generator), np.nan) if at_32 else np.nan,
                    "ES": energy.energy_saving(a["reads"], b["reads"], ratio),
                    "true_ES": energy.energy_saving(a["true_reads"], b["true_reads"], ratio),
                    "published_MAC_ES": printed.get(("MAC_ES_percent", base, generator), np.nan) if at_32 else np.nan,
                    "MAC_ES": energy.mac_energy_saving(
                        a["published_macs_million"], b["published_macs_million"], ratio
                    ),
                    "true_MAC_ES": energy.mac_energy_saving(a["macs_million"], b["macs_million"], ratio),
                }
            )
    return pd.DataFrame(rows)


@functools.cache
def picojoules(image_size: int = 32, ratio: float = 1.0, map_pj: float = energy.SMALL_PJ) -> pd.DataFrame:
    """Energy of one image in pJ, a row a network (index) and a column a part of it: see `energy.Accesses.picojoules`."""
    bases, small = _architectures(image_size)
    return pd.DataFrame({name: energy.accesses(network, image_size).picojoules(ratio, map_pj) for name, network in {**bases, **small}.items()}).T


@functools.cache
def inference_energy(image_size: int = 32, ratio: float = energy.ENERGY_RATIO) -> pd.DataFrame:
    """What part of an inference's energy weight reads are, and what a pair saves of all of it, in per cent, a row a pair.

    share: weight reads in the base model alone.  low_voltage: what low voltage saves of it, without a generator.  saved: with one,
    all of whose energy counts, at nominal voltage.  Each twice: feature maps lie in memories of 32 KB (SMALL_PJ an access), or
    (`large_`) in ones as large as the weights' (LARGE_PJ).
    """
    found = {}
    for size, map_pj in (("", energy.SMALL_PJ), ("large_", energy.LARGE_PJ)):
        parts = picojoules(image_size, 1.0, map_pj)
        whole, low = parts.sum(axis=1), picojoules(image_size, ratio, map_pj).sum(axis=1)
        for base in models.LABELS.values():
            for generator in generators.LABELS.values():
                row = found.setdefault((base, generator), {"base_model": base, "generator": generator})
                row[f"{size}share"] = 100 * parts["weights"][base] / whole[base]
                row[f"{size}low_voltage"] = 100 * (1 - low[base] / whole[base])
                row[f"{size}saved"] = 100 * (1 - (low[base] + whole[generator]) / whole[base])
    return pd.DataFrame(list(found.values()))


def efficiency(records: Iterable[dict]) -> pd.DataFrame:
    """Table 3: recovery per million generator parameters, ours where measured, beside the printed one and its check.

    `published_recomputed` divides the paper's own RP (Table 12) by the parameter count.
    """
    millions = weight_reads().set_index("network")["parameters"] / 1e6
    rows = published.select(origin="table03_efficiency_ratio")[["base_model", "generator", "ber_percent", "mean"]]
    rows = rows.rename(columns={"mean": "published"}).reset_index(drop=True)
    known = published.select(origin="table12_cifar10", metric="RP")
    gain = {(r.base_model, r.generator, r.ber_percent): r.mean for r in known.itertuples()}
    keys = list(zip(rows["base_model"], rows["generator"], rows["ber_percent"]))
    rows["published_recomputed"] = [gain[key] / millions[key[1]] for key in keys]
    ours = accuracy(records)
    ours = ours[(ours["dataset"] == "CIFAR-10") & (ours["base_recipe"] == "release")]
    for law in ("ReleaseMap", "BitFlips"):
        best = longest_trained(ours[ours["error_model"] == law], ["base_model", "generator", "ber_percent"])
        value = {(r.base_model, r.generator, r.ber_percent): r.RP for r in best.itertuples()}
        rows[law] = [value.get(key, np.nan) / millions[key[1]] for key in keys]
    return rows


def to_csv(frame: pd.DataFrame) -> str:
    """The stored form of a table: numbers with at most four decimals, LF line ends."""
    return frame.round(4).to_csv(index=False, lineterminator="\n")
