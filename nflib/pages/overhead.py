"""Overhead: what a generator adds in parameters, multiply-accumulates and time (Tables 7 and 9)."""

import functools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import HTML, Markdown

from nflib import energy, figures, generators, models, profiles, published, show
from nflib.cells import digest_of
from nflib.store import Store

MODES = ("eager", "compiled")
PRINTED_AS = {32: "CIFAR-10", 224: "ImageNet-10"}  # the paper names image sizes by data sets
NETWORKS = ("base", "generator", "both")
SETTING = ["device", "base_model", "image_size", "batch", "mode"]  # one and the same base model alone
SHARE = (0.9, 1.1)  # two latencies within 10 % of each other are called the same
SHOWN = {
    "base_model": "base model", "image_size": "pixels", "batch": "batch", "generator": "generator", "mode": "mode",
    "base_ms": "base ms", "base_spread": "± base", "generator_ms": "generator ms", "generator_spread": "± generator",
    "both_ms": "both ms", "both_spread": "± both", "extra_ms": "extra ms", "overhead_percent": "overhead %",
    "overhead_spread": "± overhead", "own_percent": "generator's own time, % of base", "mac_percent": "generator's MACs, % of base", "published_ms": "paper both ms",
    "published_extra_ms": "paper extra ms", "published_overhead_percent": "paper overhead %", "record": "record",
}  # fmt: skip


def _printed_form(macs: float) -> float:
    """A count as Table 7 prints it, in millions: two decimals of a million, or of a billion from there on."""
    return round(macs / 1e6, 2) if macs < 1e9 else 1000 * round(macs / 1e9, 2)


@functools.cache
def sizes() -> pd.DataFrame:
    """Table 7: parameters, and millions of MACs for one image, of each network at each image size.

    macs_million counts as the paper does (`energy.macs_as_published`), rounded as printed; true_macs_million as the
    arithmetic goes; published_* are the printed numbers (those of a generator's parameters are printed once for both sizes).
    """
    known = published.select(origin="table07_params_macs")
    name = known["base_model"].fillna(known["generator"])
    rows = []
    for size, dataset in PRINTED_AS.items():
        here = known["dataset"].str.contains(dataset)
        printed = {metric: dict(zip(name[here & which], known["mean"][here & which]))
                   for metric in ("params", "MACs_million") for which in [known["metric"] == metric]}  # fmt: skip
        with torch.device("meta"):
            networks = {label: models.build(key, 10, size) for key, label in models.LABELS.items()}
            networks |= {label: generators.build(key) for key, label in generators.LABELS.items()}
            plain = {"UNetL": generators.UNet(16, zero_border=False), "UNetS": generators.UNet(8, zero_border=False)}
        for label, network in networks.items():
            ends = label.startswith("ResNet") and size == 32
            rows.append({
                "network": label, "image_size": size,
                "parameters": models.parameter_count(network), "published_parameters": printed["params"].get(label, np.nan),
                "macs_million": _printed_form(energy.macs_as_published(plain.get(label, network), size, ends)),
                "published_macs_million": printed["MACs_million"].get(label, np.nan),
                "true_macs_million": energy.macs(network, size) / 1e6,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _published_latencies() -> pd.DataFrame:
    """Table 9 (a V100, batch 1), a row a base model, image size and generator."""
    known = published.select(origin="table09_latency")
    known = known.assign(image_size=known["dataset"].map({name: size for size, name in PRINTED_AS.items()}))
    wide = known.pivot(index=["base_model", "image_size", "generator"], columns="metric", values="mean").reset_index()
    alone = wide[wide["generator"] == "none"].rename(columns={"latency_ms": "published_base_ms"})
    pairs = wide[wide["generator"] != "none"].rename(
        columns={"latency_ms": "published_ms", "extra_latency_ms": "published_extra_ms"}
    )
    keys = ["base_model", "image_size"]
    pairs = pairs.merge(alone[[*keys, "published_base_ms"]], on=keys).assign(batch=1, mode="eager")
    return pairs.assign(published_overhead_percent=100 * pairs["published_extra_ms"] / pairs["published_base_ms"])


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a device, base model, image size, batch, generator and mode, beside Table 9 (published_*, eager at batch 1).

    Times in milliseconds are medians of one call; spreads interquartile ranges.  extra_ms = both_ms - base_ms;
    overhead_percent = 100 extra_ms / base_ms, its spread from those of base and both; own_percent: the generator alone, in
    per cent of the median of the base model alone over all measurements of that setting; mac_percent: the generator's true
    MACs in per cent of the base model's.  Printed settings that are not measured here have rows without a device; a mode
    that did not work has no times.
    """
    macs = sizes().set_index(["network", "image_size"])["true_macs_million"]
    rows = []
    for record in records:
        cell, metrics, origin = record["cell"], record["metrics"], record["provenance"]
        if cell["table"] != "overhead":
            continue
        base, generator = models.label(cell["base"]["model"]), generators.label(cell["generator"]["name"])
        threads = f", {show.count(origin['threads'], 'thread')}" if cell["on"] == "cpu" else ""
        for mode in MODES:
            row = {
                "device": origin["device"] + threads, "precision": origin["precision"], "base_model": base,
                "image_size": metrics["image_size"], "batch": metrics["batch"], "generator": generator, "mode": mode,
                "record": digest_of(cell),
            }  # fmt: skip
            for found in metrics["rows"]:
                if found["mode"] == mode:
                    name = found["network"]
                    row |= {f"{name}_ms": found["median_ms"], f"{name}_spread": found["spread_ms"]}
            rows.append(row)
    keys = ["base_model", "image_size", "batch", "generator", "mode"]
    times = [f"{name}_{what}" for name in NETWORKS for what in ("ms", "spread")]
    made = pd.DataFrame(rows, columns=["device", "precision", *keys, *times, "record"])
    made = made.astype({"image_size": "int64", "batch": "int64", **{name: float for name in times}})
    made = made.merge(_published_latencies().astype({"image_size": "int64"}), how="outer", on=keys)
    made["extra_ms"] = made["both_ms"] - made["base_ms"]
    made["overhead_percent"] = 100 * made["extra_ms"] / made["base_ms"]
    made["overhead_spread"] = 100 * np.hypot(made["both_spread"], made["base_spread"]) / made["base_ms"]
    usual = made.groupby(SETTING)["base_ms"].transform("median")
    made["own_percent"] = 100 * made["generator_ms"] / usual
    made["mac_percent"] = [100 * macs[r.generator, r.image_size] / macs[r.base_model, r.image_size] for r in made.itertuples()]
    order = {"base_model": list(models.LABELS.values()), "generator": list(generators.LABELS.values()), "mode": MODES}
    for name, values in order.items():
        made[f"_{name}"] = made[name].map({value: k for k, value in enumerate(values)})
    by = ["device", "image_size", "_base_model", "batch", "_generator", "_mode", "record"]
    columns = ["device", "precision", *keys, *times, "extra_ms", "overhead_percent", "overhead_spread", "own_percent", "mac_percent"]
    columns += ["published_base_ms", "published_ms", "published_extra_ms", "published_overhead_percent", "record"]
    return made.sort_values(by, kind="stable")[columns].reset_index(drop=True)


def picture(rows: pd.DataFrame, title: str) -> figures.Picture:
    """Relative overhead in per cent, a bar a generator and mode, a panel a base model; error bars are `overhead_spread`.

    rows: of `frame`, one device, image size and batch.  Hollow diamonds: Table 9, on a V100.  Black strokes: mac_percent.
    """
    names = [name for name in generators.LABELS.values() if name in set(rows["generator"])]
    panels, colours = list(dict.fromkeys(rows["base_model"])), dict(zip(MODES, sns.color_palette("colorblind")))
    figure, axes = figures._figure(len(panels), height=1.5 + 0.4 * len(names), sharey=True)
    for axis, base in zip(axes, panels):
        for row in rows[rows["base_model"] == base].itertuples():
            place = names.index(row.generator) + 0.2 * (1 if row.mode == "compiled" else -1)
            error = {"xerr": row.overhead_spread, "ecolor": "0.3", "error_kw": {"linewidth": 1}}
            if not np.isnan(row.overhead_percent):
                axis.barh(place, row.overhead_percent, 0.36, color=colours[row.mode], **error)
            axis.plot(row.published_overhead_percent, place, "D", color="none", markeredgecolor="crimson", markersize=7)
            axis.plot(row.mac_percent, place, "|", color="black", markersize=11, markeredgewidth=2)
        axis.axvline(0, color="0.4", linewidth=1)
        axis.set(title=base, xlabel="extra time (% of the base model's)")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    for mode in MODES:
        axes[0].barh(0, 0, color=colours[mode], label=mode)
    axes[0].plot([], [], "D", color="none", markeredgecolor="crimson", label="paper (V100, eager)")
    axes[0].plot([], [], "|", color="black", markersize=11, markeredgewidth=2, label="share of MACs")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=9, **figures.TITLE)
    said = "; ".join(f"{r.base_model} with {r.generator}, {r.mode}: {r.overhead_percent:.0f} %" for r in _timed(rows).itertuples())
    return figures.Picture(figure, f"Extra time of each generator in per cent of the base model's. {title}. {said}.")


def _timed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["overhead_percent"].notna()]


def pictures(rows: pd.DataFrame) -> HTML:
    """`picture` for each device and image size, at its smallest batch."""
    made = []
    for (device, size), some in _timed(rows).groupby(["device", "image_size"], sort=True):
        batch = some["batch"].min()
        made.append(picture(some[some["batch"] == batch], f"{size}×{size} pixels, batch {batch}, {device}"))
    return show.gallery(made)


def size_table() -> HTML:
    """Table 7 beside ours."""
    names = {"image_size": "pixels", "published_parameters": "parameters, paper", "macs_million": "MACs (M), as the paper"}
    names |= {"published_macs_million": "paper MACs (M)", "true_macs_million": "true MACs (M)"}
    return show.table(sizes().rename(columns=names), "parameters_and_macs", 2)


def size_summary() -> Markdown:
    """How many of Table 7's numbers come out, and where its MACs are not the arithmetic's."""
    rows = sizes()
    once = rows.drop_duplicates(["network", "published_parameters"])
    right = [int((once["parameters"] == once["published_parameters"]).sum()), len(once)]
    right += [int(np.isclose(rows["macs_million"], rows["published_macs_million"]).sum()), len(rows)]
    over = rows["published_macs_million"] / rows["true_macs_million"]
    worst, large = rows.loc[over.idxmax()], rows[rows["image_size"] == 224].set_index("network")["true_macs_million"]
    above = [name for name in generators.LABELS.values() if large[name] > large["ResNet18"]]
    return show.prose(
        f"Of Table 7's {right[1] + right[3]} numbers {right[0] + right[2]} come out as printed: {right[0]} of {right[1]} "
        f"parameter counts and {right[2]} of {right[3]} MACs, when operations are counted as the authors' tool did. That tool "
        "counts transposed convolutions over their outputs, four times too many: the print exceeds the true "
        f"number by a factor of up to {over.max():.2f} ({worst['network']}, {worst['published_macs_million']:g} M printed, "
        f"{worst['true_macs_million']:.2f} M true). At 224×224 pixels {show.listed(above)} "
        f"{'needs' if len(above) == 1 else 'need'} more MACs than ResNet18 itself ({large['ResNet18']:,.0f} M)."
    )


def latency_tables(rows: pd.DataFrame) -> HTML:
    """The latency table, one a device; then the printed settings that no device here has measured."""
    parts = []
    for device, some in rows.fillna({"device": "Not measured here: Table 9 (V100, batch 1)"}).groupby("device", sort=False):
        precision = "".join(f", {text}" for text in some["precision"].dropna().unique())
        shown = some[list(SHOWN)].rename(columns=SHOWN).dropna(axis=1, how="all")
        parts.append(f"<p><strong>{device}{precision}</strong></p>{show.table(shown, 'overhead', 2).data}")
    return HTML("\n".join(parts))


def _pair(row) -> str:
    return f"{row['base_model']} with {row['generator']}, {row['image_size']}×{row['image_size']}"


def _range(rows: pd.DataFrame, column: str = "overhead_percent") -> str:
    low, high = rows.loc[rows[column].idxmin()], rows.loc[rows[column].idxmax()]
    if len(rows) == 1:
        return f"{low[column]:.1f} % ({_pair(low)})"
    return f"from {low[column]:.1f} % ({_pair(low)}) to {high[column]:.1f} % ({_pair(high)})"


def _both(rows: pd.DataFrame, what: str, column: str, values: tuple) -> pd.DataFrame:
    """`column` at two `values` of `what`, a column each, for the settings that have both."""
    keys = [k for k in ("device", "base_model", "image_size", "batch", "generator", "mode") if k != what]
    wide = rows.pivot_table(index=keys, columns=what, values=column, aggfunc="first")
    return wide.reindex(columns=list(values)).dropna()


def _unets(rows: pd.DataFrame, column: str, who: str) -> str:
    both = _both(rows, "generator", column, ("UNetS", "UNetL"))
    if both.empty:
        return f"{who}: UNetS and UNetL are not both measured."
    ratio = both["UNetS"] / both["UNetL"]
    same = ((ratio >= SHARE[0]) & (ratio <= SHARE[1])).sum()
    return (
        f"{who}: UNetS takes {show.listed(f'{100 * value:.0f}' for value in sorted({ratio.min(), ratio.max()}))} % of UNetL's extra time"
        + (f" in {len(ratio)} settings; within 10 % of it in {same}." if len(ratio) > 1 else ".")
    )


def _device_lines(rows: pd.DataFrame) -> list[str]:
    """Sentences about one device; rows: of `frame`, with times."""
    lines, batch = [], rows["batch"].min()
    first = rows[rows["batch"] == batch]
    for mode, some in first.groupby("mode", sort=False):
        lines.append(f"{mode}, batch {batch}: overhead {_range(some)}; {(some['overhead_percent'] > some['mac_percent']).sum()} "
                     f"of {len(some)} lie above the generator's share of MACs. By the time that it takes alone, a generator adds "
                     f"{_range(some, 'own_percent')}.")  # fmt: skip
    apart = [100 * (some.max() - some.min()) / some.median() for _, some in rows.groupby(SETTING)["base_ms"] if len(some) > 1]
    if apart:
        lines.append(
            f"How far to trust that: the base model alone was measured beside each generator anew, and its own times are up to {max(apart):.0f} % apart "
            "in one setting. An overhead that is smaller is noise; the generators' own times are steadier."
        )
    lines += [_unets(some, "extra_ms", f"{mode}, batch {batch}") for mode, some in first.groupby("mode", sort=False)]
    modes = _both(rows, "mode", "both_ms", MODES)
    if len(modes):
        faster = modes["compiled"] / modes["eager"]
        lines.append(
            f"Compiling: base model and generator together take {100 * faster.median():.0f} % of the eager time (median of "
            f"{show.count(len(faster), 'setting')}; {100 * faster.min():.0f} to {100 * faster.max():.0f} %)."
        )
    else:
        lines.append("Compiling: not measured on this device.")
    largest = rows["batch"].max()
    batches = _both(rows, "batch", "overhead_percent", (batch, largest)) if largest > batch else pd.DataFrame()
    if len(batches):
        lines.append(
            f"Batch: over {show.count(len(batches), 'setting')} the median overhead is {batches[batch].median():.1f} % at a "
            f"batch of {batch} and {batches[largest].median():.1f} % at {largest}; it is smaller at {largest} in "
            f"{(batches[largest] < batches[batch]).sum()}."
        )
    else:
        lines.append(f"Batch: only a batch of {batch} is measured.")
    return lines


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, the smallest and largest overhead, U-Nets, compiling and batch, by device, beside Table 9."""
    store, cells = Store(profile), profiles.cells(profile, "overhead")
    done = sum(store.has(cell) for cell in cells)
    timed, printed = _timed(rows), rows[rows["published_extra_ms"].notna()].drop_duplicates(["base_model", "image_size", "generator"])
    lines = [f"* Table 9 (V100, batch 1): overhead {_range(printed, 'published_overhead_percent')}. "
             + _unets(printed.assign(device="V100"), "published_extra_ms", "There")]  # fmt: skip
    if timed.empty:
        lines.append(f"* Not measured yet: `nflib sweep overhead --profile {profile}` measures it.")
    for device, some in timed.groupby("device", sort=True):
        lines += [f"* {device}", *(f"  * {line}" for line in _device_lines(some))]
    lines.append(f"* {done} of {show.count(len(cells), 'cell')} of the profile's grid {'is' if len(cells) == 1 else 'are'} measured.")
    return show.prose("\n".join(lines))


def meaning(rows: pd.DataFrame) -> Markdown:
    """Whether the time follows the arithmetic: the rank of generators' own times against that of the shares of MACs."""
    text = []
    for (device, mode), some in _timed(rows).groupby(["device", "mode"]):
        some = some[some["batch"] == some["batch"].min()]
        if len(some) > 2:
            ranks = some[["own_percent", "mac_percent"]].rank().corr().iloc[0, 1]
            text.append(f"{device}, {mode}: rank correlation {ranks:.2f} over {len(some)} pairs.")
    known = _published_latencies().merge(rows[["base_model", "image_size", "generator", "mac_percent"]].drop_duplicates())
    ranks = known[["published_overhead_percent", "mac_percent"]].rank().corr().iloc[0, 1]
    text.append(f"Table 9, by its overhead: {ranks:.2f} over {len(known)} pairs.")
    return show.prose(
        "If time followed arithmetic, the generator with more MACs would always take longer, and the rank correlation "
        "between its own time and its share of MACs would be 1. " + " ".join(text) + " Six generators are too few to say what else decides; each "
        "layer is a call of its own, and each image passes through memory more than once. Latencies belong to the "
        "hardware that they were measured on; none here is that of an accelerator with low-voltage memory."
    )
