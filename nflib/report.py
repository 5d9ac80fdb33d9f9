"""What the notebooks show: sentences, tables and pictures, all computed from records and published numbers."""

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import figures, profiles, published, show, tables
from nflib.cells import cell_of
from nflib.store import Store

SHOWN = {
    "dataset": "data set",
    "base_model": "base model",
    "base_recipe": "recipe",
    "base_epochs": "epochs",
    "error_model": "error model",
    "ber_percent": "BER %",
    "generator": "generator",
    "steps": "generator steps",
    "CA": "CA",
    "PA": "PA",
    "PA_std": "± std",
    "PA_worst": "worst",
    "CA_NF": "CA(NF)",
    "PA_NF": "PA(NF)",
    "PA_NF_std": "± std ",
    "PA_NF_worst": "worst ",
    "RP": "RP",
    "RP_error": "± error",
    "published_PA": "paper PA",
    "published_PA_NF": "paper PA(NF)",
    "published_RP": "paper RP",
    "RP_difference": "RP, ours − paper",
    "record": "record",
}


def how_measured(rows: pd.DataFrame, profile: str) -> Markdown:
    """One paragraph: what these rows rest on, and what is missing from the profile's grid."""
    if rows.empty:
        return Markdown(f"**Nothing measured yet.** `nflib sweep accuracy --profile {profile}` measures it.")
    text = (
        f"**What was measured.** {show.listed(rows['dataset'])}; base models {show.listed(rows['base_model'])}, "
        f"trained for {show.listed(rows['base_epochs'])} epochs; {show.listed(rows['patterns'])} error patterns per setting, "
        f"{show.listed(rows['images'])} test images per pattern; computed on {show.listed(rows['device'])}."
    )
    steps = rows.loc[rows["generator"] != "none", "steps"]
    if len(steps) and profile == "paper":
        text += (
            f" Generators were trained for {show.listed(int(s) for s in steps)} steps; the official recipe takes 58,800 steps "
            "with ten perturbed models each, so these are first looks, not final numbers."
        )
    cells = profiles.cells(profile, "accuracy")
    store = Store(profile)
    done = sum(store.has(cell) for cell in cells)
    text += f" Of the profile's {len(cells):,} cells for all data sets {done:,} are measured"
    text += "." if done == len(cells) else f"; `nflib sweep accuracy --profile {profile}` measures the others."
    return Markdown(text)


def recovery_pictures(
    rows: pd.DataFrame, profile: str, dataset: str | None = None, ber_percent: float | None = None
) -> HTML:
    """`figures.recovery` for each data set, base recipe and bit-error rate that has generators; stored as SVG too."""
    pictures = []
    for (name, recipe, rate), some in rows.groupby(["dataset", "base_recipe", "ber_percent"], sort=True):
        wanted = dataset in (None, name) and ber_percent in (None, rate)
        if wanted and (some["generator"] != "none").any():
            pictures.append(figures.recovery(some, f"{name}, base recipe {recipe}, BER {rate:g} %"))
    return show.gallery(pictures)


def chip_pictures(records: list[dict], ber_percent: float = 1.0) -> HTML:
    """`figures.chips` for each base model that was measured without a generator."""
    groups: dict[tuple, list] = {}
    for record in records:
        base = record["cell"]["base"]
        if record["cell"]["generator"] is None:
            groups.setdefault((base["dataset"], base["model"]), []).append(record)
    return show.gallery([figures.chips(group, ber_percent) for _, group in sorted(groups.items())][:5])


def accuracy_summary(rows: pd.DataFrame) -> Markdown:
    """What came out, a sentence an error model and recipe."""
    lines = []
    pairs = rows[(rows["generator"] != "none") & rows["RP"].notna()]
    for (name, recipe, law, rate), some in pairs.groupby(["dataset", "base_recipe", "error_model", "ber_percent"]):
        best, sure = some.loc[some["RP"].idxmax()], (some["RP"] > 2 * some["RP_error"]).sum()
        line = (
            f"* {name}, base recipe `{recipe}`, {law} at {rate:g} %: recovery from {some['RP'].min():+.1f} to "
            f"{some['RP'].max():+.1f} points over {show.count(len(some), 'pair')} of base model and generator, "
            f"more than two standard errors above zero in {sure}. Best: {best['base_model']} with "
            f"{best['generator']}, {best['PA']:.1f} → {best['PA_NF']:.1f} % (worst chip {best['PA_worst']:.1f} → "
            f"{best['PA_NF_worst']:.1f} %), clean {best['CA']:.1f} → {best['CA_NF']:.1f} %."
        )
        if recipe == "release" and law == "ReleaseMap" and not np.isnan(best["published_RP"]):
            line += f" The paper has {best['published_PA']:g} → {best['published_PA_NF']:g} % for this pair."
        lines.append(line)
    return Markdown("\n".join(lines) or "No generator has been measured yet.")


def accuracy_table(rows: pd.DataFrame) -> HTML:
    """The accuracy table with the columns that have any content, names in words."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN)
    return show.table(shown.dropna(axis=1, how="all"), "accuracy")


def energy_summary(saving: pd.DataFrame, image_size: int, ratio: float) -> Markdown:
    """Agreement with the printed savings, and what the correction changes."""
    text = f"At {image_size}×{image_size} pixels and an energy ratio of {ratio:g}: "
    if saving["published_ES"].notna().any():
        for name, label in (("ES", "Table 2"), ("MAC_ES", "Table 8")):
            gap = (saving[name] - saving[f"published_{name}"]).abs()
            text += f"{int((gap <= 0.06).sum())} of {len(saving)} entries of {label} come out as printed"
            far = saving[gap > 0.06]
            if len(far):
                text += " (not " + "; ".join(
                    f"{r['base_model']}/{r['generator']}: printed {r['published_' + name]:g}, computed {r[name]:.1f}"
                    for _, r in far.head(3).iterrows()
                ) + (" …" if len(far) > 3 else "") + ")"
            text += ". "
    gain = saving["true_ES"] - saving["ES"]
    row = saving.loc[gain.idxmax()]
    text += (
        f"True weight reads change the saving by {gain.min():+.1f} to {gain.max():+.1f} points, most for "
        f"{row['base_model']}/{row['generator']} ({row['ES']:.1f} → {row['true_ES']:.1f} %). "
        f"{show.count(int((saving['true_ES'] < 0).sum()), 'pair')} of {len(saving)} would lose energy."
    )
    return Markdown(text)


def reads_table(image_size: int) -> HTML:
    names = {"published_reads": "paper reads", "true_reads": "true reads", "published_macs_million": "paper MACs (M)"}
    shown = tables.weight_reads(image_size).rename(columns={**names, "macs_million": "true MACs (M)"})
    return show.table(shown.dropna(axis=1, how="all"), "weight_reads", 2)


def saving_table(saving: pd.DataFrame) -> HTML:
    names = {"base_model": "base model", "published_ES": "paper ES", "true_ES": "true ES"}
    names |= {"published_MAC_ES": "paper MAC-ES", "MAC_ES": "MAC-ES", "true_MAC_ES": "true MAC-ES"}
    return show.table(saving.rename(columns=names).dropna(axis=1, how="all"), "energy_saving")


def energy_pictures(saving: pd.DataFrame, records: list[dict]) -> HTML:
    """Figures 5 and 6: published recovery at 1 %, and ours under ReleaseMap, against ES and against corrected MAC-ES."""
    known = published.select(origin="table12_cifar10", metric="RP", ber_percent=1)
    gain = known[["base_model", "generator", "mean"]].rename(columns={"mean": "published"})
    ours = tables.accuracy(records)
    ours = ours[(ours["dataset"] == "CIFAR-10") & (ours["error_model"] == "ReleaseMap") & (ours["ber_percent"] == 1.0)]
    ours = ours[ours["base_recipe"] == "release"].sort_values("steps")
    ours = ours.drop_duplicates(["base_model", "generator"], keep="last")[["base_model", "generator", "RP"]]
    gain = gain.merge(ours.rename(columns={"RP": "measured"}), how="left", on=["base_model", "generator"])
    axes = (("true_ES", "energy saving ES, true reads (%)"), ("true_MAC_ES", "energy saving MAC-ES, true MACs (%)"))
    return show.gallery([figures.energy_scatter(saving, gain, x, label) for x, label in axes])


def efficiency_table(records: list[dict]) -> HTML:
    names = {"base_model": "base model", "ber_percent": "BER %", "published": "paper", "published_recomputed": "paper, recomputed"}
    shown = tables.efficiency(records).rename(columns={**names, "ReleaseMap": "ours, ReleaseMap", "BitFlips": "ours, BitFlips"})
    return show.table(shown.dropna(axis=1, how="all"), "efficiency")


def provenance_table(records: list[dict], profile: str) -> HTML:
    """A row a record: the setting, what was trained how long, and where it was measured."""
    rows = []
    for record in records:
        cell, origin, metrics = record["cell"], record["provenance"], record["metrics"]
        recipe = cell["generator"]
        rows.append(
            {
                "record": origin["command"].rpartition("=")[2],
                "setting": cell_of(cell).words,
                "base epochs": cell["base"]["recipe"]["epochs"],
                "base training (s)": (metrics["base_training"] or {}).get("seconds", np.nan),
                "generator steps": recipe["steps"] if recipe else np.nan,
                "generator training (s)": (metrics["generator_training"] or {}).get("seconds", np.nan),
                "training seed": cell["base"]["recipe"]["seed"],
                "pattern seeds": f"{cell['first_seed']}–{cell['first_seed'] + cell['patterns'] - 1}" if cell["patterns"] else "–",
                "hardware": f"{origin['device']}, {origin['threads']} threads, {origin['precision']}",
                "torch": origin["torch"],
                "commit": origin["commit"][:10] + ("+" if origin["dirty"] else ""),
                "date": origin["date"],
            }
        )
    return show.table(pd.DataFrame(rows), f"provenance_{profile}", 0)
