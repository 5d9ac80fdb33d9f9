"""The numbers printed in the paper and its reviews: read, checked, and recomputed where one follows from others."""

import functools
import hashlib
from pathlib import Path

import pandas as pd

from nflib.energy import energy_saving
from nflib.names import ROOT, UserError, choose

PUBLISHED = ROOT / "results" / "published"
ROWS, ORIGINS = 2738, 32
SETTING = ["dataset", "base_model", "generator", "ber_percent", "train_model", "train_ber_percent", "bits"]


def load(directory: Path = PUBLISHED) -> pd.DataFrame:
    """All published numbers, a row each, columns as in results/published/README.md; UserError if missing or altered."""
    path = Path(directory) / "published.csv"
    try:
        intact = hashlib.sha256(path.read_bytes()).hexdigest() == path.with_suffix(".sha256").read_text().split()[0]
    except (OSError, IndexError) as error:
        raise UserError(f"published numbers cannot be read from {directory}: {error}") from error
    rows = pd.read_csv(path, keep_default_na=False, na_values=[""], float_precision="round_trip") if intact else None
    if rows is None or (len(rows), rows["origin"].nunique()) != (ROWS, ORIGINS):
        raise UserError(f"{path} was altered: not the {ROWS} rows from {ORIGINS} origins that published.sha256 names")
    return rows


SYSTEM = ["dataset", "base_model", "base_recipe", "bits", "generator", "trained_on", "train_rate", "loss_weight", "flips"]


@functools.cache
def systems() -> pd.DataFrame:
    """Printed accuracies and recoveries, a row a number, with the columns SYSTEM and rate, named as `nflib.report.frame` does.

    The index is the number's row in published.csv; tables come before figures.  Rates are fractions.  Generators whose training
    rate is not printed: those of the figures were trained at 0.5 %, the universal perturbation at the rate that it meets.
    """
    lines = load().replace({"CA_UIP": "CA_NF", "PA_UIP": "PA_NF"})
    lines = lines[lines["metric"].isin(["CA", "PA", "CA_NF", "PA_NF", "RP"]) & lines["base_model"].notna()].copy()
    lines = lines.sort_values("origin", key=lambda names: ~names.str.startswith("table"), kind="stable")
    note = lines["note"].fillna("")
    lines["loss_weight"] = note.str.extract(r"lambda=([\d.]+)")[0].astype(float).fillna(5.0)
    lines["flips"] = note.str.extract(r"K=(\d+)")[0].astype(float).fillna(0).astype(int)
    lines["base_recipe"] = lines["base_model"].str.contains("AWP").map({True: "awp", False: "release"})
    lines["trained_on"] = lines["train_model"].fillna(lines["base_model"]).str.replace(" (AWP)", "", regex=False)
    lines["base_model"] = lines["base_model"].str.replace(" (AWP)", "", regex=False)
    lines["generator"] = lines["generator"].str.partition(" (")[0]
    lines["bits"] = lines["bits"].fillna(8).astype(int)
    met = lines["ber_percent"].where(lines["ber_percent"] > 0, 1.0)
    at = lines["train_ber_percent"].fillna(met.mask(lines["origin"].str.startswith("fig04"), 0.5))
    lines["train_rate"], lines["rate"] = (at / 100).round(8), (lines["ber_percent"] / 100).round(8)
    alone = lines["generator"] == "none"
    lines.loc[alone, ["trained_on", "train_rate", "loss_weight", "flips"]] = ["none", 0.0, 0.0, 0]
    return lines


@functools.cache
def accuracies() -> pd.DataFrame:
    """Printed accuracies as a tidy frame, a row for each system that the paper measured: SYSTEM, rate, the published_* numbers
    in per cent (clean, perturbed) and points (recovery), and origin, the first table that prints the setting."""
    lines = systems()
    clean = lines[lines["metric"].isin(["CA", "CA_NF"])].drop_duplicates(SYSTEM)
    perturbed, gain = (lines[lines["metric"].isin(names)].drop_duplicates([*SYSTEM, "rate"]) for names in (["PA", "PA_NF"], ["RP"]))
    whole = perturbed[[*SYSTEM, "rate", "mean", "origin"]].rename(columns={"mean": "published_perturbed"})
    for part, keys, name in ((clean, SYSTEM, "clean"), (gain, [*SYSTEM, "rate"], "recovery")):
        part = part[[*keys, "mean"]].rename(columns={"mean": f"published_{name}"})
        whole = whole.merge(part, how="left", on=keys)
    return whole.reset_index(drop=True)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def select(origin=None, dataset=None, base_model=None, generator=None, ber_percent=None, metric=None) -> pd.DataFrame:
    """Published rows that agree with every argument given, spelled as in the file; UserError for an unknown value."""
    rows, want = load(), dict(origin=origin, dataset=dataset, base_model=base_model, generator=generator, metric=metric)
    keep = pd.Series(True, rows.index)
    for column, value in {**want, "ber_percent": ber_percent}.items():
        if value is not None:
            texts = rows[column].map(_text)
            keep &= texts == choose(f"published {column}", _text(value), texts[rows[column].notna()].unique())
    return rows[keep]


def inconsistencies(directory: Path = PUBLISHED) -> pd.DataFrame:
    """Printed numbers that do not follow, within rounding, from the other printed ones that `note` names.

    Recomputed: RP, RP per million parameters, ES, MAC-ES; and accuracies of one setting printed in several places
    (recomputed is then the one in the first table).
    """
    rows = load(directory).rename(columns={"mean": "printed"}).fillna({"bits": 8}).replace("PA_UIP", "PA_NF")
    bars = rows["origin"].str.startswith("fig04") & (rows["generator"] != "none")  # generators trained at 0.5 %
    rows.loc[bars, "train_model"], rows.loc[bars, "train_ber_percent"] = rows["base_model"], 0.5
    by, found = dict(tuple(rows.groupby("metric"))), []

    def check(printed: pd.DataFrame, parts: list[tuple], formula, tolerance: float, note: str) -> None:
        for name, (part, keys) in zip("ab", parts):
            part = part.rename(columns={"printed": name, "table": f"{name}_table"}).drop_duplicates(keys)
            printed = printed.merge(part[[*keys, name, f"{name}_table"]], how="left", on=keys)
        printed["recomputed"] = formula(*(printed[name] for name in "ab"[: len(parts)])).round(2)
        printed["note"] = [note.format(**row) for row in printed.to_dict("records")]
        found.append(printed[~((printed["printed"] - printed["recomputed"]).abs() <= tolerance)])

    def costs(metric: str) -> list[tuple]:
        cost = by[metric][by[metric]["dataset"] != "ImageNet-10"]
        return [(cost[cost["generator"] == "none"], ["base_model"]), (cost[cost["base_model"].isna()], ["generator"])]

    pair = [(by["PA_NF"], ["origin", *SETTING, "note"]), (by["PA"], ["dataset", "base_model", "ber_percent", "bits"])]
    check(by["RP"], pair, lambda a, b: a - b, 0.151, "PA(NF) {a:g} - PA {b:g}")
    gain = (by["RP"][by["RP"]["origin"] == "table12_cifar10"], ["base_model", "generator", "ber_percent"])
    gain_and_size, ratio = [gain, costs("params")[1]], lambda a, b: a / b * 1e6
    check(by["RP_per_million_params"], gain_and_size, ratio, 0.5, "RP {a:g} / {b:.0f} parameters")
    check(by["ES_percent"], costs("TWMA_accesses"), energy_saving, 0.061, "{a:.0f} and {b:.0f} weight reads")
    check(by["MAC_ES_percent"], costs("MACs_million"), energy_saving, 0.061, "{a:g} M and {b:g} M MACs")
    plain = rows[~rows["note"].str.contains("lambda|flipped", na=False)]
    accuracies = plain[plain["metric"].isin(["CA", "PA", "CA_NF", "PA_NF"])]
    first = accuracies.sort_values("origin", key=lambda names: ~names.str.startswith("table"), kind="stable")
    check(accuracies, [(first, [*SETTING, "metric"])], lambda a: a, 0.06, "{a_table} prints {a:g}")
    columns = ["origin", *SETTING[:4], "metric", "printed", "recomputed", "note"]
    return pd.concat(found, ignore_index=True)[columns]
