"""Printed numbers that contradict other printed ones, or cannot be: each with the check that finds it."""

import math
from itertools import combinations

import pandas as pd
from IPython.display import HTML, Markdown

from nflib import published, show

COLUMNS = ["where", "printed", "follows", "check", "verdict"]
PATTERNS = 10  # error patterns behind a printed spread
LEEWAY = 1.0  # points by which a perturbed accuracy may exceed every clean one that is printed for it
CLAIMED_RECOVERY, CLAIMED_SAVING = 57, 24  # "up to", in the abstract
RELAXED = ("Table 12", "Table 13", "Table 14", "Table 15")
MEANS = {"CA": "CA", "PA": "PA", "CA_NF": "CA(NF)", "PA_NF": "PA(NF)", "RP": "RP", "ES_percent": "energy saving",
         "RP_per_million_params": "RP per million parameters", "MAC_ES_percent": "MAC-ES"}  # fmt: skip


def largest_spread(mean: float, ceiling: float, patterns: int = PATTERNS) -> float:
    """Largest standard deviation (ddof 0) that `patterns` accuracies between 0 and `ceiling` with this mean can have.

    All in per cent.  The smaller of sqrt(mean (ceiling - mean)) (Bhatia and Davis, 2000) and (ceiling - mean)
    sqrt(patterns - 1), which one low pattern and otherwise the ceiling give; 0 where the mean exceeds the ceiling.
    """
    room = max(0.0, ceiling - mean)
    return min(math.sqrt(mean * room), room * math.sqrt(patterns - 1))


def _rows(known: pd.DataFrame, origin: str, metric: str, **where: object) -> pd.DataFrame:
    rows = known[known["origin"].str.startswith(origin) & (known["metric"] == metric)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def _one(known: pd.DataFrame, origin: str, metric: str, **where: object) -> float:
    return _rows(known, origin, metric, **where)["mean"].iloc[0]


def _setting(row, at_rate: bool = True) -> str:
    rate = f", {row['ber_percent']:g} %" if at_rate and row["ber_percent"] > 0 else ""
    bits = f", {row['bits']:g} bits" if row.get("bits", 8) != 8 else ""
    return f"{row['base_model']}{'' if row['generator'] == 'none' else ' with ' + row['generator'].partition(' (')[0]}{rate}{bits}"


def _recomputed(known: pd.DataFrame) -> list[tuple]:
    """`published.inconsistencies`, a row a slip: recoveries that miss their difference together, a number printed twice."""
    rows = published.inconsistencies()
    place = dict(zip(known["origin"], known["table"]))
    place["fig04_12_13_quant_bars"] = "Figure 12"
    made = []
    together = rows[rows["metric"] == "RP"].groupby(["origin", "base_model", "ber_percent"], sort=False)
    for (origin, base, rate), some in together:
        if len(some) > 1:
            told = _one(known, origin, "PA", base_model=base, ber_percent=rate)
            implied = sorted({round(told + value, 1) for value in some["recomputed"] - some["printed"]})
            made.append((
                f"{place[origin]}, {base}, {rate:g} %", f"PA {told:g}",
                f"PA {show.listed(implied)} from {len(some)} of {len(_rows(known, origin, 'RP', base_model=base, ber_percent=rate))} RPs",
                "PA = PA(NF) − RP", "misprint" if len(implied) == 1 else "do not agree",
            ))  # fmt: skip
            rows = rows.drop(some.index)
    keys = ["base_model", "generator", "ber_percent", "metric", "printed", "recomputed", "note"]
    for key, some in rows.groupby(keys, sort=False, dropna=False):
        row = dict(zip(keys, key))
        name = MEANS[row["metric"]]
        made.append((
            f"{show.listed(place[origin] for origin in some['origin'])}, {_setting(row, row['metric'] != 'ES_percent')}",
            f"{name} {row['printed']:g}", f"{name} {row['recomputed']:.1f}", row["note"], "misprint",
        ))  # fmt: skip
    return made


def _spreads(known: pd.DataFrame) -> list[tuple]:
    """Spreads larger than ten accuracies under the largest clean accuracy printed for the setting can have."""
    alone = known[known["metric"] == "CA"].groupby(["dataset", "base_model", "bits"])["mean"].max()
    behind = known[known["metric"] == "CA_NF"].groupby(["origin", "base_model", "generator", "bits"])["mean"].max()
    made = []
    for _, row in known[(known["metric"] == "PA_NF") & known["std"].notna()].iterrows():
        own = behind[row["origin"], row["base_model"], row["generator"], row["bits"]]
        ceiling = max(alone[row["dataset"], row["base_model"], row["bits"]], own) + LEEWAY
        if row["std"] - 0.05 > largest_spread(row["mean"], ceiling):
            check = f"ten accuracies of at most {ceiling:g} %: std ≤ min(√(mean·(ceiling − mean)), 3·(ceiling − mean))"
            made.append((f"{row['table']}, {_setting(row)}", f"{row['mean']:g} ± {row['std']:g}",
                         f"± {largest_spread(row['mean'], ceiling):.1f} at most", check, "impossible"))  # fmt: skip
    return made


def _repeated(known: pd.DataFrame) -> list[tuple]:
    """Mean and spread printed alike for three or more code widths."""
    rows = _rows(known, "table2", "PA_NF")
    rows = rows[rows["table"].isin(["Table 22", "Table 23", "Table 24"])]
    made = []
    for key, some in rows.groupby(["table", "dataset", "base_model", "generator", "mean", "std"], sort=True):
        if len(some) >= 3:
            table, dataset, base, generator, mean, std = key
            bars = _rows(known, "fig04", "PA_NF", dataset=dataset, base_model=base, generator=generator).set_index("bits")["mean"]
            other = ", ".join(f"{bars[bits]:g}" for bits in some["bits"])
            made.append((
                f"{table}, {base} with {generator}", f"{mean:g} ± {std:g} at {show.listed(int(b) for b in some['bits'])} bits",
                f"Figure 13's generator for the same widths: {other}", "equal mean and std in a column of code widths", "copy slip",
            ))  # fmt: skip
    return made


def _outlier(known: pd.DataFrame) -> tuple:
    """Table 15: what ConvS recovers as a share of ConvL, one setting against all where ConvL recovers a point or more."""
    suspect, keys = ("VGG11", 0.35), ["base_model", "ber_percent"]
    after = {name: _rows(known, "table15", "PA_NF", generator=name).set_index(keys)["mean"] for name in ("ConvS", "ConvL")}
    gain = {name: _rows(known, "table15", "RP", generator=name).set_index(keys)["mean"] for name in ("ConvS", "ConvL")}
    share = 100 * (gain["ConvS"] / gain["ConvL"])[gain["ConvL"] >= 1]
    others = share.drop(suspect)
    return (
        "Table 15, VGG11 with ConvS, 0.35 %", f"PA(NF) {after['ConvS'][suspect]:g}, nearly ConvL's {after['ConvL'][suspect]:g}",
        f"{share[suspect]:.0f} % of ConvL's RP; in {len(others)} other settings {others.min():.0f} to {others.max():.0f} %",
        "RP of ConvS / RP of ConvL, where that is at least 1", "suspect" if share[suspect] > others.max() else "not unusual",
    )  # fmt: skip


def _equal_spreads(known: pd.DataFrame) -> tuple:
    """Table 13: VGG16 and VGG19 share a spread; how often base models do so in Tables 12 to 15."""
    rows = known[known["table"].isin(RELAXED) & (known["metric"] == "PA") & known["std"].notna()]
    pairs = [a == b for _, some in rows.groupby(["origin", "ber_percent"]) for a, b in combinations(some["std"], 2)]
    two = _rows(known, "table13", "PA", ber_percent=1.0).set_index("base_model")["std"]
    equal, often = two["VGG16"] == two["VGG19"], sum(pairs) > 1
    return (
        "Table 13, VGG16 and VGG19, 1 %", f"spreads of PA {two['VGG16']:g} and {two['VGG19']:g}",
        f"{sum(pairs)} of {len(pairs)} pairs of base models in Tables 12 to 15 print equal spreads at equal rates",
        "how often two spreads agree in all printed digits",
        "differ" if not equal else "may be chance" if often else "possible copy slip",
    )  # fmt: skip


def _claims(known: pd.DataFrame) -> list[tuple]:
    """The abstract against the tables; Figure 1b's axis; AWP in the rebuttal; Figures 12 and 13 against Tables 22 and 23."""
    gains = known[(known["metric"] == "RP") & known["table"].isin(RELAXED)]
    best = gains.loc[gains["mean"].idxmax()]
    claim = f"accuracy by up to {CLAIMED_RECOVERY} %"
    verdict = "claims less than the table" if best["mean"] > CLAIMED_RECOVERY + 0.5 else "agrees"
    most = f"up to {best['mean']:g} points ({best['table']}, {best['dataset']} {_setting(best)})"
    made = [("Abstract", claim, most, "largest RP of Tables 12 to 15", verdict)]
    savings = _rows(known, "table02", "ES_percent").set_index(["base_model", "generator"])["mean"]
    pairs = [(savings[row["base_model"], row["generator"]], row) for _, row in gains[gains["mean"].round() == CLAIMED_RECOVERY].iterrows()]
    said = "; ".join(f"RP {row['mean']:g} saves {saving:g} % ({row['dataset']} {_setting(row)})" for saving, row in pairs)
    both = any(round(saving) == CLAIMED_SAVING for saving, _ in pairs)
    made.append(("Abstract", f"saving up to {CLAIMED_SAVING} % and {claim}", said, "ES of Table 2 for each pair whose RP rounds to the claim",
                 "one pair gives both" if both else "no pair gives both"))  # fmt: skip
    labels = _rows(known, "fig01b", "accuracy_label_in_figure")
    gain = _rows(known, "table12", "RP", base_model="ResNet18", ber_percent=1.0).set_index("generator")["mean"]
    equal = sum(gain[row.generator] == row.mean for row in labels.itertuples(index=False))
    made.append(("Figure 1b", "axis “perturbed accuracy”", f"{equal} of {len(labels)} labels equal Table 12's RP", "labels against RP",
                 "axis is misnamed" if equal == len(labels) else "do not agree"))  # fmt: skip
    said, told = (_one(known, origin, "PA", base_model="PreActResNet18 (AWP)", ber_percent=1.0) for origin in ("openreview_misc", "table26"))
    made.append(("Rebuttal, AWP model", "trained “with adversarial bit flips”", "Table 26's text: continuous adversarial weight perturbation",
                 f"the same model: PA about {said:g} in the rebuttal, {told:g} in Table 26",
                 "texts differ" if abs(said - told) < 1 else "another model"))  # fmt: skip
    for figure, own, quantised, dataset in (("12", "table12", "table22", "CIFAR-10"), ("13", "table13", "table23", "GTSRB")):
        bars = known[known["origin"].str.startswith("fig04") & (known["dataset"] == dataset) & (known["bits"] == 8)]
        bars = bars[bars["metric"] == "PA_NF"]
        found = {"1": 0, "0.5": 0}
        for row in bars.itertuples():
            where = {"base_model": row.base_model, "generator": row.generator, "ber_percent": 0.5}
            found["0.5"] += abs(_one(known, own, "PA_NF", **where) - row.mean) < 0.06
            found["1"] += abs(_one(known, quantised, "PA_NF", bits=8, **where) - row.mean) < 0.06
        made.append((
            f"Figure {figure} and Table {quantised[5:]}", "the same experiment", f"of {len(bars)} bars at 8 bits {found['0.5']} equal "
            f"the generator trained at 0.5 % (Table {own[5:]}), {found['1']} the one trained at 1 % (Table {quantised[5:]})",
            "bars at 8 bits against both tables", "other generators" if found["0.5"] > found["1"] else "agree",
        ))  # fmt: skip
    return made


def frame() -> pd.DataFrame:
    """A row a suspicion: where, what is printed, what follows, the check in words, and its verdict.

    Everything is computed from results/published/published.csv but the claims of the abstract and the rebuttal's wording.
    """
    known = published.load().fillna({"bits": 8})
    rows = [*_recomputed(known), _outlier(known), *_spreads(known), *_repeated(known), _equal_spreads(known), *_claims(known)]
    return pd.DataFrame(rows, columns=COLUMNS)


def about(found: pd.DataFrame, *places: str) -> pd.DataFrame:
    """The suspicions that name one of these tables or figures."""
    return found[found["where"].str.contains("|".join(rf"\b{place}\b" for place in places))]


def table(found: pd.DataFrame) -> HTML:
    """`frame` with cells that wrap."""
    return show.table(found, "contradictions", wrap=True)


def summary(found: pd.DataFrame) -> Markdown:
    """How many suspicions were checked, by verdict."""
    counts = found["verdict"].value_counts(sort=False)
    said = show.listed(f"{number} “{verdict}”" for verdict, number in counts.items())
    return show.prose(f"{show.count(int(counts.sum()), 'suspicion')} checked; verdicts: {said}.")
