"""What the notebooks show: sentences, tables and pictures, all computed from records and published numbers."""

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import energy, figures, grids, published, show, tables
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
    cells = grids.cells(profile, "accuracy")
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


def headline(rows: pd.DataFrame, profile: str) -> Markdown:
    """The first page's answer in four lines."""
    pairs = rows[(rows["generator"] != "none") & rows["RP"].notna() & (rows["dataset"] == "CIFAR-10")]
    pairs = pairs[pairs["ber_percent"] == 1.0]
    saving = tables.energy_saving()
    lines = ["**In short**", ""]
    for law, words in (("ReleaseMap", "the official code's error map"), ("BitFlips", "true bit flips")):
        some = pairs[pairs["error_model"] == law]
        if len(some):
            best = some.loc[some["RP"].idxmax()]
            lines.append(
                f"* **Under {words}** at a bit-error rate of 1 %, our best pair so far ({best['base_model']} trained by "
                f"`{best['base_recipe']}` with {best['generator']}) goes from {best['PA']:.1f} % to **{best['PA_NF']:.1f} "
                f"%** (recovery {best['RP']:+.1f} ± {best['RP_error']:.1f} points); without errors it has {best['CA']:.1f} %."
            )
    lines.append(
        f"* **What it costs:** low voltage alone saves {100 * (1 - energy.ENERGY_RATIO):.1f} % of the weight-read energy; with "
        f"a generator {saving['true_ES'].min():.1f} to {saving['true_ES'].max():.1f} % remain, depending on the pair "
        "(32×32 images, corrected counts)."
    )
    lines.append(
        "* **What this rests on:** " + how_measured(rows[rows["generator"] != "none"], profile).data.split("** ", 1)[1]
        if len(pairs)
        else "* Generators have not been measured yet."
    )
    return Markdown("\n".join(lines))


def agreement(rows: pd.DataFrame) -> Markdown:
    """How many published accuracies have a measured counterpart, and how far apart they are; then the closed forms."""
    ours = rows[(rows["error_model"] == "ReleaseMap") & (rows["base_recipe"] == "release")]
    pairs = ours[(ours["generator"] != "none") & ours["published_RP"].notna() & ours["RP"].notna()]
    base = ours[ours["published_PA"].notna()].drop_duplicates(["dataset", "base_model", "ber_percent"])
    lines = []
    for row in base.drop_duplicates(["dataset", "base_model"]).itertuples():
        lines.append(
            f"| {row.dataset} {row.base_model}, {show.count(row.base_epochs, 'epoch')} | CA | {row.published_CA:g} | "
            f"{row.CA:.1f} | {row.CA - row.published_CA:+.1f} |"
        )
    for row in base.itertuples():
        lines.append(
            f"| {row.dataset} {row.base_model}, {row.ber_percent:g} % | PA | {row.published_PA:g} | {row.PA:.1f} | "
            f"{row.PA - row.published_PA:+.1f} |"
        )
    for row in pairs.itertuples():
        lines.append(
            f"| {row.dataset} {row.base_model} + {row.generator}, {row.ber_percent:g} % | PA(NF) | {row.published_PA_NF:g} | "
            f"{row.PA_NF:.1f} | {row.PA_NF - row.published_PA_NF:+.1f} |"
        )
    head = ["| setting, base recipe `release`, ReleaseMap | what | paper | ours | difference |", "|---|---|---|---|---|"]
    saving = tables.energy_saving()
    close = {
        name: int(((saving[name] - saving[f"published_{name}"]).abs() <= 0.06).sum()) for name in ("ES", "MAC_ES")
    }
    total = int(published.load()["mean"].notna().sum())
    text = (
        f"The paper and its reviews print {total:,} numbers. The closed forms agree: {close['ES']} of 30 energy savings and "
        f"{close['MAC_ES']} of 30 MAC-based ones come out as printed. Of the accuracies, {len(lines)} have a counterpart "
        "here so far, from training much shorter than the paper's (how short, says the table on the accuracy page)."
    )
    return Markdown("\n".join([text, "", *(head + lines if lines else [])]))


def error_model_summary(rows: pd.DataFrame) -> Markdown:
    """Mean, spread and worst chip of the base model alone, by error model."""
    lines = []
    alone = rows[(rows["generator"] == "none") & (rows["ber_percent"] == 1.0)]
    for row in alone.itertuples():
        lines.append(
            f"* {row.dataset} {row.base_model} (`{row.base_recipe}`), {row.error_model}: mean {row.PA:.1f} %, standard "
            f"deviation {row.PA_std:.1f}, worst chip {row.PA_worst:.1f} %; {row.changed_bits_percent:.2f} % of the stored "
            f"bits changed, clean accuracy {row.CA:.1f} %."
        )
    return Markdown("\n".join(lines) or "Not measured yet.")


def cost_summary() -> Markdown:
    """Energy saving and size of each generator, for ResNet18 and VGG11 at 32x32, and for ResNet18 at 224x224."""
    networks = tables.weight_reads().set_index("network")
    here = tables.energy_saving().set_index(["base_model", "generator"])["true_ES"]
    large = tables.energy_saving(224).set_index(["base_model", "generator"])["true_ES"]
    lines = ["| generator | parameters | MACs (M) | saving with ResNet18 | with VGG11 | with ResNet18 at 224×224 |"]
    lines.append("|---|---|---|---|---|---|")
    for name in here.index.unique("generator"):
        row = networks.loc[name]
        lines.append(
            f"| {name} | {row['parameters']:,.0f} | {row['macs_million']:.1f} | {here['ResNet18', name]:.1f} % | "
            f"{here['VGG11', name]:.1f} % | {large['ResNet18', name]:.1f} % |"
        )
    lines += ["", "Net saving of weight-read energy at 1 % BER, corrected counts; negative means that it costs more."]
    return Markdown("\n".join(lines))


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
