"""Scoreboard: every printed number that has a counterpart here, and where each of the paper's tables stands."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown

from nflib import data, figures, generators, grids, models, profiles, published, show, tables
from nflib.cells import Cell, digest_of
from nflib.pages import overhead
from nflib.store import Store
from nflib.study import Clock, duration
from nflib.trained import choose_device

OFFICIAL_MODELS_PER_STEP = 10
CLOSE = 3  # points of clean accuracy
MOVED = 5.0  # points of a median difference from which on it is named
SPREAD = {"PA": "PA_std", "PA_NF": "PA_NF_std"}
ROUNDING = {  # how far a closed form may lie from the print
    "ES_percent": 0.061, "MAC_ES_percent": 0.061, "RP_per_million_params": 0.5, "params": 0, "TWMA_accesses": 0, "MACs_million": 1e-6,
}  # fmt: skip
METRICS = {
    "CA": "CA", "PA": "PA", "CA_NF": "CA(NF)", "PA_NF": "PA(NF)", "CA_UIP": "CA(UIP)", "PA_UIP": "PA(UIP)", "RP": "RP",
    "ES_percent": "ES (%)", "MAC_ES_percent": "MAC-ES (%)", "RP_per_million_params": "RP per million parameters",
    "params": "parameters", "MACs_million": "MACs (M)", "TWMA_accesses": "weight reads", "latency_ms": "latency (ms)",
    "extra_latency_ms": "extra latency (ms)", "latency_overhead_percent": "latency overhead (%)",
    "avg_generator_training_hours": "training of a generator (h)",
}  # fmt: skip
ACCURACIES, SAVINGS = ("CA", "PA", "CA_NF", "PA_NF", "CA_UIP", "PA_UIP", "RP"), ("ES_percent", "MAC_ES_percent")
Find = Callable[[str], list[Cell]]  # from the kind of device, "cpu" or "cuda", to cells
COLUMNS = [
    "table", "dataset", "base_model", "generator", "variant", "ber_percent", "metric", "kind", "published", "published_std",
    "ours", "difference", "spreads", "verdict", "trained", "record", "published_row",
]  # fmt: skip
SHOWN = {
    "table": "table", "setting": "setting", "metric": "metric", "published": "published", "published_std": "±", "ours": "ours",
    "difference": "difference", "spreads": "in spreads", "verdict": "verdict", "trained": "trained", "record": "record",
}  # fmt: skip


def _measured(records: Iterable[dict]) -> dict[int, dict]:
    """The best measured accuracy or recovery for each row of published.csv, of the longest-trained base models (see
    `tables.longest`): longest training, then perturbed models per
    step nearest to the official ten, then most images and patterns; full-size models under what the official code does."""
    full = [r for r in records if r["cell"]["base"]["width"] == 1 and (r["cell"]["generator"] or {}).get("width", 1) == 1]
    full = [r for r in full if not (r["cell"]["base"]["recipe"]["seed"] or (r["cell"]["generator"] or {}).get("seed"))]  # none is picked for its luck
    rows, index, best = tables.recoveries(tables.longest(full)), tables.published_index(), {}
    rows = rows[rows["base_recipe"].isin(["release", "awp"])]
    rows = rows[rows["error_model"] == np.where(rows["bits"] < 8, "ReleaseMap, sign slip", "ReleaseMap")]
    rows = rows[(rows["generator"] == "none") | (rows["trained_under"] == "ReleaseMap")]
    for row in rows.to_dict("records"):
        alone = row["generator"] == "none"
        trained = f"{show.count(row['base_epochs'], 'epoch')}" + ("" if alone else f", {show.trained(pd.DataFrame([row]))}")
        far = 0 if alone else abs(row["models_per_step"] - OFFICIAL_MODELS_PER_STEP)
        rank = (row["base_epochs"], row["imitation_steps"] + row["steps"], -far, row["images"], row["patterns"], row["record"])
        spread = {**{k: row[v] for k, v in SPREAD.items()}, "RP": row["RP_error"] * np.sqrt(row["patterns"])}
        for metric in ("CA", "PA") if alone else ("CA_NF", "PA_NF", "RP"):
            for line in index.get(tables.published_key(row, metric), ()):
                found = {"ours": row[metric], "ours_std": spread.get(metric, np.nan), "kind": "accuracy", "rank": rank}
                found |= {"trained": trained, "record": row["record"]}
                if not np.isnan(row[metric]) and rank > best.get(line["row"], {"rank": ()})["rank"]:
                    best[line["row"]] = found
    return best


def _closed(known: pd.DataFrame) -> dict[int, dict]:
    """What follows from the shapes of the networks: Tables 2, 6, 7 and 8; Table 3 from the paper's own recoveries."""
    saving = tables.energy_saving().set_index(["base_model", "generator"])
    reads = tables.weight_reads().set_index("network")["reads"]
    size = overhead.sizes().set_index(["network", "image_size"])
    ratio = tables.efficiency([]).set_index(["base_model", "generator", "ber_percent"])["published_recomputed"]
    made = {}
    for row in known[known["metric"].isin(ROUNDING)].itertuples():
        network = row.base_model if isinstance(row.base_model, str) else row.generator
        pixels = 224 if row.dataset == "ImageNet-10" else 32
        made[row.Index] = {"kind": "closed form", "ours": {
            "ES_percent": lambda: saving.loc[(network, row.generator), "ES"],
            "MAC_ES_percent": lambda: saving.loc[(network, row.generator), "MAC_ES"],
            "RP_per_million_params": lambda: ratio[network, row.generator, row.ber_percent],
            "TWMA_accesses": lambda: reads[network],
            "params": lambda: size.loc[(network, pixels), "parameters"],
            "MACs_million": lambda: size.loc[(network, pixels), "macs_million"],
        }[row.metric]()}  # fmt: skip
    return made


def _timed(known: pd.DataFrame, records: Iterable[dict]) -> dict[int, dict]:
    """Latencies: eager, batch 1, of a GPU where there are records of one, otherwise of a CPU."""
    records = [record for record in records if record["cell"]["table"] == "overhead"]
    gpu = [record for record in records if record["cell"]["on"] == "cuda"]
    rows = overhead.frame(gpu or records)
    rows = rows[(rows["batch"] == 1) & (rows["mode"] == "eager") & rows["both_ms"].notna()]
    columns = {"latency_ms": "both_ms", "extra_latency_ms": "extra_ms", "latency_overhead_percent": "overhead_percent"}
    made = {}
    for row in known[known["metric"].isin(columns)].itertuples():
        here = rows[(rows["base_model"] == row.base_model) & (rows["image_size"] == (224 if row.dataset == "ImageNet-10" else 32))]
        column = "base_ms" if row.generator == "none" else columns[row.metric]
        here = here if row.generator == "none" else here[here["generator"] == row.generator]
        if len(here):
            made[row.Index] = {"kind": "latency", "ours": here[column].median(), "trained": here["device"].iloc[0], "record": here["record"].iloc[0]}
    return made


def _trained(known: pd.DataFrame, records: Iterable[dict]) -> dict[int, dict]:
    """Hours that a generator's training took (Section 4.1): the mean of those that the official code's setting has, its teacher
    included, whatever they were trained on and for how long."""
    found: dict[tuple, list] = {}
    for record in records:
        cell, training = record["cell"], record["metrics"].get("generator_training")
        official = cell["base"]["recipe"]["name"] == "release" and cell["law"] == "release_map" and not cell["surrogates"] and not cell.get("bits")
        if official and training and cell["generator"]["name"] in generators.LABELS and cell["base"]["width"] == cell["generator"]["width"] == 1:
            seconds = training["seconds"] + training.get("teacher", {}).get("seconds", 0.0)
            device = training.get("provenance", record["provenance"])["device"]
            found.setdefault((data.LABELS.get(cell["base"]["dataset"]), models.label(cell["base"]["model"])), []).append((seconds / 3600, device, digest_of(cell)))
    made = {}
    for row in known[known["metric"] == "avg_generator_training_hours"].itertuples():
        here = [each for (dataset, model), some in found.items() if model == row.base_model and dataset and dataset in row.dataset.split(" and ") for each in some]
        if here:
            hours, devices, digests = zip(*here)
            made[row.Index] = {"kind": "training time", "ours": float(np.mean(hours)), "trained": show.listed(sorted(set(devices))), "record": min(digests)}
    return made


def _variant(row) -> str:
    """What else fixes a printed number: where the generator was trained, code width, lambda, flipped bits."""
    parts = []
    elsewhere = row.train_model != row.base_model or row.train_ber_percent != row.ber_percent
    if row.generator != "none" and isinstance(row.train_model, str) and elsewhere:
        rate = f" at {row.train_ber_percent:g} %" if row.train_ber_percent > 0 else ""
        parts.append(f"trained on {row.train_model}{rate}")
    if row.bits > 0:
        parts.append(f"{row.bits:g} bits")
    parts += re.findall(r"(?:lambda|K)=[\d.]+", row.note if isinstance(row.note, str) else "")
    return ", ".join(parts)


def _place(table: str) -> tuple[int, int]:
    """Where a table of the paper stands: tables by number, figures, sections, then the reviews."""
    kind, number = table.partition(" ")[0], re.search(r"\d+", table)
    order = {"Table": 0, "Figure": 1, "Section": 2}.get(kind, 3)
    return order, int(number[0]) if number and order < 3 else 0


def _verdict(row: dict) -> str:
    if row["kind"] == "closed form":
        return "as printed" if abs(row["difference"]) <= ROUNDING[row["metric"]] else "differs"
    if row["kind"] in ("latency", "training time"):
        return "other hardware" if row["kind"] == "latency" else "other training"
    off = abs(row["spreads"])
    return "no spread" if np.isnan(off) else "within 1 spread" if off <= 1 else "within 2 spreads" if off <= 2 else "beyond 2 spreads"


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a printed number that has a counterpart here; records of kinds accuracy and overhead.

    published, published_std, ours, difference = ours - published in the metric's unit (accuracies in per cent, RP in
    points); spreads: difference over the printed standard deviation, otherwise over ours over patterns, missing for
    closed forms, latencies and clean accuracies; published_row: row of results/published/published.csv, from 0.
    """
    records, known = list(records), published.load()
    accuracies = [record for record in records if record["cell"]["table"] == "accuracy"]
    found = {**_closed(known), **_timed(known, records), **_trained(known, accuracies), **_measured(accuracies)}
    rows = []
    for line in known.loc[sorted(found)].itertuples():
        row = {"trained": None, "record": None, **found[line.Index]}
        row |= {"table": line.table, "dataset": line.dataset, "base_model": line.base_model, "generator": line.generator}
        row |= {"variant": _variant(line), "ber_percent": line.ber_percent, "metric": line.metric, "published_row": line.Index}
        spread = line.std if line.std > 0 else row.get("ours_std", np.nan)
        row |= {"published": line.mean, "published_std": line.std, "difference": round(row["ours"] - line.mean, 6)}
        row["spreads"] = row["difference"] / spread if spread > 0 else np.nan
        rows.append(row | {"verdict": _verdict(row), "place": _place(line.table)})
    return pd.DataFrame(rows).sort_values(["place", "published_row"], kind="stable")[COLUMNS].reset_index(drop=True)


def by_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a table of the paper: numbers printed, with a counterpart, how many of them have which verdict (missing where
    there is none of the kind), and the median difference."""
    known = published.load()
    made = []
    for table in sorted(known["table"].unique(), key=lambda name: (_place(name), name)):
        some = rows[rows["table"] == table]
        closed, spread = some[some["kind"] == "closed form"], some["spreads"].dropna()
        made.append({
            "table": table, "printed": int((known["table"] == table).sum()), "ours": len(some) or np.nan,
            "as printed": (closed["verdict"] == "as printed").sum() if len(closed) else np.nan,
            "differ": (closed["verdict"] == "differs").sum() if len(closed) else np.nan,
            "with spread": len(spread) or np.nan,
            "≤ 1": (spread.abs() <= 1).sum() if len(spread) else np.nan,
            "≤ 2": (spread.abs() <= 2).sum() if len(spread) else np.nan,
            "median difference": some["difference"].dropna().median(), "in spreads": spread.median(),
        })  # fmt: skip
    return pd.DataFrame(made)


def by_table_table(rows: pd.DataFrame) -> HTML:
    shown = by_table(rows).assign(table=lambda frame: frame["table"].str.replace("ICLR 2024 ", ""))
    return show.table(shown, "scoreboard_by_table", 2)


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """How many printed numbers have a counterpart, how many agree, and what the accuracies rest on."""
    total, closed, measured = len(published.load()), rows[rows["kind"] == "closed form"], rows[rows["kind"] == "accuracy"]
    far = closed[closed["verdict"] == "differs"]
    lines = [
        f"* **{len(rows):,} of {total:,} printed numbers have a counterpart here:** {len(closed)} closed forms, {len(measured)} "
        f"accuracies and recoveries, {(rows['kind'] == 'latency').sum()} latencies, {(rows['kind'] == 'training time').sum()} training times.",
        f"* **Closed forms:** {(closed['verdict'] == 'as printed').sum()} of {len(closed)} come out as printed, to rounding"
        + (". Not so: " + "; ".join(f"{r.table} {r.base_model}/{r.generator}, {r.published:g} printed, {r.ours:.1f} computed"
                                     for r in far.itertuples()) + "." if len(far) else "."),
    ]  # fmt: skip
    once = measured.drop_duplicates(["record", "metric", "published"])
    spread, middle = once["spreads"].dropna().abs(), once.groupby("metric")["difference"].median()
    if len(measured):
        lines.append(
            f"* **Accuracies:** the paper prints some in several tables; {len(once)} of the {len(measured)} are different "
            f"measurements. Within one spread of the print: {(spread <= 1).sum()} of {len(spread)} that have a spread; within two: "
            f"{(spread <= 2).sum()}. Median difference, ours minus published: "
            + ", ".join(f"{METRICS[name]} {value:+.1f}" for name, value in middle.items()) + " points."
        )  # fmt: skip
        lines.append(
            f"* **What they rest on:** {'; '.join(dict.fromkeys(measured['trained']))}. The official recipe trains base models for 300 "
            f"epochs. {show.official()} Only the release recipe under ReleaseMap "
            "(below 8 bits with the official code's sign slip) is compared."
        )
        if middle.get("CA", 0) < -CLOSE:
            lines.append(
                f"* **Caution:** our base models' clean accuracy is {-middle['CA']:.0f} points lower (median). A perturbed accuracy "
                "near the print says little where the clean one is that far off."
            )
    else:
        lines.append(f"* **Accuracies:** not measured yet: `nflib sweep --profile {profile}` measures them.")
    return show.prose("\n".join(lines))


def meaning(rows: pd.DataFrame) -> Markdown:
    """What the agreement of closed forms and of accuracies allows to conclude."""
    closed, measured = rows[rows["kind"] == "closed form"], rows[rows["kind"] == "accuracy"]
    right, some = (closed["verdict"] == "as printed").mean(), measured.drop_duplicates(["record", "metric", "published"])
    near = some["spreads"].dropna().abs() <= 2
    text = f"{100 * right:.0f} % of the closed forms agree, so networks, counts and the energy model are those of the paper. "
    if near.empty:
        return show.prose(text + "Nothing can be said about its accuracies yet.")
    behind = some[some["metric"].isin(("PA_NF", "CA_NF", "RP"))]
    other = int((behind["trained"].str.contains("imitation") & ~behind["trained"].str.contains("Eq. 3", regex=False)).sum())
    whose = f" and, for {other} of {len(behind)} results behind generators, another (imitation, not Eq. 3)" if other else ""
    sides = [
        f"{METRICS[name]} {gaps.median():+.1f} points ({int((gaps > 0).sum())} above, {int((gaps < 0).sum())} below)"
        for name, gaps in some.groupby("metric")["difference"]
        if abs(gaps.median()) > MOVED
    ]
    if sides:
        text += f"Measured accuracies differ, in the median (ours minus the paper's): {show.listed(sides)}. "
    return show.prose(
        text + f"{int(near.sum())} of the {len(near)} measurements that have a printed spread beside them lie within two spreads; spreads are wide, so that "
        "says little. (One measurement may stand beside several printed numbers: the paper repeats its base models from table to table.) What differs may "
        f"come from the training, which is shorter here{whose}, or from the paper; only the official recipe at its full length can tell which."
    )


def _looks(names: Iterable[str]) -> dict[str, tuple]:
    """Colour and marker of each metric."""
    palette = sns.color_palette("colorblind")
    return dict(zip(names, zip((palette[k] for k in (0, 1, 2, 3, 5, 7, 4)), "osD^vPX")))


def agreement_picture(rows: pd.DataFrame) -> figures.Picture:
    """Ours against the published number, a dot a number, a panel a kind of metric; on the line they are equal."""
    others = [name for name in METRICS if name not in (*ACCURACIES, *SAVINGS, "latency_overhead_percent")]
    panels = {"accuracies (%), RP (points)": ACCURACIES, "energy savings (%)": SAVINGS, "counts and times (log)": others}
    figure, axes = figures._figure(3, height=3.9)
    for axis, (title, names) in zip(axes, panels.items()):
        some = rows[rows["metric"].isin(names) & ((rows["published"] > 0) & (rows["ours"] > 0) | ("log" not in title))]
        for name, (colour, marker) in _looks(names).items():
            here = some[some["metric"] == name].drop_duplicates(["published", "ours"])
            if len(here):
                axis.plot(here["published"], here["ours"], marker, color=colour, markersize=4, alpha=0.7, label=METRICS[name])
        if some.empty:
            axis.text(0.5, 0.5, "not measured yet", ha="center", transform=axis.transAxes)
        else:
            low, high = some[["published", "ours"]].min().min(), some[["published", "ours"]].max().max()
            axis.plot([low, high], [low, high], color="0.4", linewidth=1, zorder=0)
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, handletextpad=0.2, columnspacing=0.8)
        if "log" in title:
            axis.set(xscale="log", yscale="log")
        axis.set(title=title, xlabel="published", ylabel="ours" if axis is axes[0] else "")
    said = "; ".join(f"{METRICS[name]}: {len(some)}" for name, some in rows.groupby("metric"))
    return figures.Picture(figure, f"Our numbers against the published ones, on the line where equal. Numbers compared: {said}.")


def spread_picture(rows: pd.DataFrame) -> figures.Picture:
    """Differences in units of the spread, a dot a number, a line a table; bands: one and two spreads."""
    some = rows[rows["spreads"].notna()]
    places = sorted(some["table"].unique(), key=_place)
    figure, (axis,) = figures._figure(height=1.6 + 0.28 * max(2, len(places)))
    for width, alpha in ((2, 0.12), (1, 0.2)):
        axis.axvspan(-width, width, color="0.3", alpha=alpha, linewidth=0)
    shown = [name for name in ACCURACIES if name in set(some["metric"])]
    for name, (colour, marker) in _looks(ACCURACIES).items():
        here = some[some["metric"] == name]
        if len(here):
            height = here["table"].map(places.index) + 0.6 * ((shown.index(name) + 0.5) / len(shown) - 0.5)
            axis.plot(here["spreads"], height, marker, color=colour, markersize=5, alpha=0.8, label=METRICS[name])
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_yticks(range(len(places)), [place.replace("ICLR 2024 rebuttal, ", "Rebuttal, ") for place in places])
    axis.set_xscale("symlog", linthresh=2, linscale=1)
    far = some["spreads"].abs().max() if len(some) else 2
    axis.set_xticks([x for x in (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50) if abs(x) <= max(2, far)])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set(ylim=(max(1, len(places)) - 0.5, -0.5), xlabel="ours − published (spreads; logarithmic beyond 2)")
    if len(some):
        figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8)
    else:
        axis.text(0.5, 0.5, "no accuracy measured yet", ha="center", transform=axis.transAxes)
    said = f"{(some['spreads'].abs() <= 1).sum()} of {len(some)} lie within one, {(some['spreads'].abs() <= 2).sum()} within two"
    return figures.Picture(figure, f"Differences between our and the published numbers in units of the spread: {said}.")


def pictures(rows: pd.DataFrame) -> HTML:
    return show.gallery([agreement_picture(rows), spread_picture(rows)])


def _setting(row) -> str:
    """What a printed number is about, in one text: one column in place of five leaves room for the numbers."""
    networks = " + ".join(name for name in (row.base_model, row.generator) if isinstance(name, str) and name != "none")
    dataset = row.dataset.replace(" input size", "") if isinstance(row.dataset, str) else ""
    rate = f"{row.ber_percent:g} %" if row.ber_percent > 0 else ""
    return ", ".join(part for part in (networks, dataset, rate, row.variant) if part)


def interactive(rows: pd.DataFrame) -> HTML:
    """The whole scoreboard, to sort, filter and download in the page itself; nothing is fetched from the network.

    The table's id must not be that of a heading of the page: the first element with it is made visible.
    """
    from itables import options, to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    shown = rows.assign(setting=[_setting(row) for row in rows.itertuples()], metric=rows["metric"].map(METRICS))
    shown = shown.assign(table=rows["table"].str.replace("ICLR 2024 ", ""))[list(SHOWN)].rename(columns=SHOWN)
    words = shown.columns.difference(shown.select_dtypes("number").columns)
    shown[words] = shown[words].astype(object).where(shown[words].notna(), "–")
    with pd.option_context("display.float_format", lambda value: f"{value:,.10g}"):
        table = to_html_datatable(
            shown.round(2), connected=False, table_id="published_and_ours", maxBytes=0, column_filters="header", pageLength=25, scrollX=True,
            layout={"topStart": "pageLength", "topEnd": "search", "bottomStart": "info", "bottomEnd": "paging", "bottom2Start": "buttons"},
            buttons=["csvHtml5"], display_logo_when_loading=False, showIndex=False,
            css=".dt-container { font-size: 0.8rem } .dt-container thead input { width: 4.5em } "
            ".dt-container td { white-space: normal !important; max-width: 13rem } .dt-container td:nth-child(2) { min-width: 12rem }",
        )  # fmt: skip
    table = table.replace('\\"NaN\\", ', '\\"–\\", ').replace(">NaN<", ">–<")  # what is shown; it sorts as missing
    return HTML(generate_init_offline_itables_html(options.dt_bundle) + table)


# ---------------------------------------------------------------------------------------------- status by paper table


@functools.cache
def _comparable(table: str) -> list[Cell]:
    """The paper-profile cells of a table with base models trained by the full release recipe (or awp), under what the
    official code does; of latencies those at batch 1."""
    cells = []
    for cell in profiles.cells("paper", table):
        recipe, law = cell.base.recipe, "release_map_sign_slip" if 0 < cell.bits < 8 else "release_map"
        if table == "overhead" and cell.images == 1:
            cells.append(cell)
        elif recipe.name != "modern" and recipe == grids.BASE_RECIPES["paper"].get(recipe.name) and cell.law == law:
            cells.append(cell)
    return cells


def _of(table: str, *datasets: str, **wanted: object) -> Find:
    """The comparable cells of a table on these data sets (all, if none) with these values of `Cell.key`."""

    def cells(on: str) -> list[Cell]:
        some = [cell for cell in _comparable(table) if cell.on in ("", on) and (not datasets or cell.base.dataset in datasets)]
        return [cell for cell in some if all(cell.key(key) == value for key, value in wanted.items())]

    return cells


def _with(table: str, dataset: str, keep: Callable[[Cell], bool]) -> Find:
    """The comparable cells with a generator that `keep` wants, and their base models alone."""

    def cells(on: str) -> list[Cell]:
        found = _of(table, dataset)(on)
        chosen = {cell for cell in found if cell.generator and keep(cell)}
        alone = {dataclasses.replace(cell, generator=None, surrogates=()) for cell in chosen}
        return [cell for cell in found if cell in chosen | alone]

    return cells


def _transfer(dataset: str, train_rate: float, ensemble: bool = False) -> Find:
    return _with("transfer", dataset, lambda c: c.generator.rate == train_rate and ensemble == (len(c.surrogates) > 1))


def _widths(dataset: str, train_rate: float, *base_models: str) -> Find:
    return _with("quantization", dataset, lambda c: c.generator.rate == train_rate and c.base.model in (base_models or grids.SURROGATES))


_DEFAULT = grids.GENERATOR_RECIPES["paper"]
_TABLE_12 = _of("accuracy", "cifar10")
PLACES: dict[str, tuple[str, str, Find | None]] = {  # place: (what, notebook, cells or None: computed)
    "Table 1": ("transfer, CIFAR-10, trained at 1.5 %", "transfer", _transfer("cifar10", 0.015)),
    "Table 2": ("energy saving", "energy", None),
    "Table 3": ("recovery per million parameters", "energy", _TABLE_12),
    "Table 4": ("generator layers: parameters of Table 7", "overhead", None),
    "Table 5": ("generator layers: parameters of Table 7", "overhead", None),
    "Table 6": ("weight reads", "energy", None),
    "Table 7": ("parameters and MACs", "overhead", None),
    "Table 8": ("MAC-based energy saving", "energy", None),
    "Table 9": ("latency", "overhead", _of("overhead")),
    "Table 10": ("weight of the perturbed models, lambda", "ablations",
                 _with("ablations", "cifar10", lambda c: c.generator.models_per_step == _DEFAULT.models_per_step and c.generator.name == "conv_l")),
    "Table 11": ("universal input perturbation", "ablations", _with("ablations", "cifar10", lambda c: c.generator.name == "universal")),
    "Table 12": ("relaxed access, CIFAR-10", "accuracy", _TABLE_12),
    "Table 13": ("relaxed access, GTSRB", "accuracy", _of("accuracy", "gtsrb")),
    "Table 14": ("relaxed access, ImageNet-10", "accuracy", _of("accuracy", "imagenet10")),
    "Table 15": ("relaxed access, CIFAR-100", "accuracy", _of("accuracy", "cifar100")),
    "Table 16": ("transfer, CIFAR-10, trained at 1 %", "transfer", _transfer("cifar10", 0.01)),
    "Table 17": ("transfer, GTSRB, trained at 1.5 %", "transfer", _transfer("gtsrb", 0.015)),
    "Table 18": ("transfer, GTSRB, trained at 1 %", "transfer", _transfer("gtsrb", 0.01)),
    "Table 19": ("transfer, CIFAR-100, trained at 1 %", "transfer", _transfer("cifar100", 0.01)),
    "Table 20": ("transfer, CIFAR-100, trained at 0.5 %", "transfer", _transfer("cifar100", 0.005)),
    "Table 21": ("two surrogates, CIFAR-10", "transfer", _transfer("cifar10", 0.015, ensemble=True)),
    "Table 22": ("code widths, CIFAR-10", "quantization", _widths("cifar10", 0.01)),
    "Table 23": ("code widths, GTSRB", "quantization", _widths("gtsrb", 0.01)),
    "Table 24": ("code widths, ImageNet-10", "quantization", _widths("imagenet10", 0.005)),
    "Table 25": ("adversarially flipped bits", "robust_training", _of("robust_training", "cifar10", model="resnet18")),
    "Table 26": ("adversarial weight perturbation", "robust_training", _of("robust_training", "cifar10", model="preact_resnet18")),
    "Figure 1": ("the idea; energy against recovery", "energy", _of("accuracy", "cifar10", model="resnet18", rate=0.01)),
    "Figure 2": ("errors and energy over the voltage", "energy", None),
    "Figure 3": ("Tables 12 to 14 as bars", "accuracy", _of("accuracy", "cifar10", "gtsrb", "imagenet10")),
    "Figure 4": ("code widths, GTSRB, ResNet18", "quantization", _widths("gtsrb", 0.005, "resnet18")),
    "Figure 5": ("energy saving against recovery", "energy", _of("accuracy", "cifar10", rate=0.01)),
    "Figure 6": ("MAC-based saving against recovery", "energy", _of("accuracy", "cifar10", rate=0.01)),
    "Figure 7": ("perturbed models per step, N", "ablations",
                 _with("ablations", "cifar10", lambda c: c.generator.loss_weight == _DEFAULT.loss_weight and c.base.model == "resnet18"
                       and c.generator.name != "universal")),
    "Figure 8": ("Table 12 as bars", "accuracy", _TABLE_12),
    "Figure 9": ("Table 13 as bars", "accuracy", _of("accuracy", "gtsrb")),
    "Figure 10": ("Table 14 as bars", "accuracy", _of("accuracy", "imagenet10")),
    "Figure 11": ("Table 15 as bars", "accuracy", _of("accuracy", "cifar100")),
    "Figure 12": ("code widths, CIFAR-10, trained at 0.5 %", "quantization", _widths("cifar10", 0.005)),
    "Figure 13": ("code widths, GTSRB, trained at 0.5 %", "quantization", _widths("gtsrb", 0.005)),
    "Figure 14": ("Table 24 as bars", "quantization", _widths("imagenet10", 0.005)),
    "Figure 15": ("t-SNE of the outputs", "tsne", _of("tsne", "cifar10")),
    "Figure 16": ("transformed images, CIFAR-10", "transformed_images", _of("transformed_images", "cifar10")),
    "Figure 17": ("transformed images, three data sets", "transformed_images", _of("transformed_images")),
}  # fmt: skip


def status_by_paper_table(device: str = "auto") -> pd.DataFrame:
    """Each table and figure of the paper: what reproduces it, cells done and missing, time left on `device` ("auto",
    "cpu", "cuda").  Counted are the paper profile's cells that are comparable with it (release recipe, the official code's
    error map); one cell may serve several places.  "computed": follows from shapes and needs no cell.  numbers: how many of
    the place's printed numbers have a counterpart here, from shorter training too."""
    store, where = Store("paper"), choose_device(device)
    compared = by_table(frame([*store.records("accuracy"), *store.records("overhead")])).set_index("table")
    clock, rows = Clock(store, where), []
    for place, (what, notebook, find) in PLACES.items():
        cells = list(dict.fromkeys(find(where.type))) if find else []
        missing = [cell for cell in cells if not store.has(cell)]
        left = duration(clock.total(missing)) if missing else "-" if cells else "computed"
        row = {"place": place, "what": what, "notebook": notebook, "done": len(cells) - len(missing), "missing": len(missing)}
        number = compared.loc[place] if place in compared.index else None
        beside = "-" if number is None else f"{np.nan_to_num(number['ours']):.0f} of {number['printed']:.0f}"
        rows.append(row | {"time left": left, "numbers": beside})
    return pd.DataFrame(rows)
