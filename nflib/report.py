"""What the notebooks show: sentences, tables and pictures, all computed from records and published numbers."""

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import data, figures, grids, profiles, published, show, tables
from nflib.cells import cell_of
from nflib.store import Store

SHOWN = {  # what is asked for first: a page is narrow
    "dataset": "data set",
    "base_model": "base model",
    "generator": "generator",
    "error_model": "error model",
    "ber_percent": "BER %",
    "CA": "CA",
    "PA": "PA",
    "CA_NF": "CA(NF)",
    "PA_NF": "PA(NF)",
    "RP": "RP",
    "RP_error": "± error",
    "published_RP": "paper RP",
    "published_PA": "paper PA",
    "published_PA_NF": "paper PA(NF)",
    "RP_difference": "RP, ours − paper",
    "PA_std": "PA ± std",
    "PA_worst": "PA, worst",
    "PA_NF_std": "PA(NF) ± std",
    "PA_NF_worst": "PA(NF), worst",
    "base_recipe": "recipe",
    "base_epochs": "epochs",
    "imitation_steps": "imitation steps",
    "steps": "steps of Eq. 3",
    "patterns": "chips",
    "images": "images",
    "record": "record",
}


def _measured(profile: str) -> list[str]:
    """Names of the data sets that have a record of accuracy."""
    return sorted({record["cell"]["base"]["dataset"] for record in tables.stored(profile)})


def how_measured(rows: pd.DataFrame, profile: str, datasets: list[str] = ()) -> Markdown:
    """One paragraph: what these rows rest on, and what is missing from the profile's grid and of `datasets` (names)."""
    if rows.empty:
        asked, known = ([data.LABELS.get(name, name) for name in some] for some in (datasets, _measured(profile)))
        text = f"**Nothing is measured{f' of {show.listed(asked)}' if asked else ''} yet{' at full size' if profile == 'paper' else ' at smoke scale'}.** "
        text += f"Records are there of {show.listed(known)}. " if known else ""
        return show.prose(f"{text}`nflib sweep accuracy --profile {profile}` measures the profile's grid; this notebook with `measure` True, what its parameters say.")
    text = (
        f"**What was measured.** {show.bases(rows)}, "
        f"trained for {show.listed(rows['base_epochs'])} epochs; {show.listed(rows['patterns'])} error patterns per setting, "
        f"{show.listed(f'{n:,}' for n in rows['images'])} test images per pattern; computed on {show.listed(rows['device'])}."
    )
    behind = rows[rows["generator"] != "none"]
    if len(behind) and profile == "paper":
        text += f" Generators were trained for {show.trained(behind)}. {show.official()}"
        if behind["steps"].max() < grids.OFFICIAL_GENERATOR["paper"].steps:
            text += " Ours are far shorter."
    absent = [label for name in datasets if (label := data.LABELS.get(name, name)) not in set(rows["dataset"])]
    text += f" Nothing is measured of {show.listed(absent)} yet: the table has the paper's numbers." if absent else ""
    cells = profiles.cells(profile, "accuracy")
    store = Store(profile)
    done = sum(store.has(cell) for cell in cells)
    text += f" Of the profile's {len(cells):,} cells for all data sets {done:,} are measured"
    text += "." if done == len(cells) else f"; `nflib sweep accuracy --profile {profile}` measures the others."
    return show.prose("\n\n".join(part for part in (text, show.runs(rows), show.by_imitation(rows)) if part))


def recovery_pictures(rows: pd.DataFrame) -> HTML:
    """`figures.recovery` for each data set, base recipe and bit-error rate that has generators."""
    pictures = []
    for (name, recipe, rate), some in rows.groupby(["dataset", "base_recipe", "ber_percent"], sort=True):
        if (some["generator"] != "none").any():
            pictures.append(figures.recovery(some, f"{name}, base recipe {recipe}, BER {rate:g} %"))
    return show.gallery(pictures)


def chip_pictures(records: list[dict]) -> HTML:
    """`figures.chips` for each base model that was measured without a generator, at a rate of 1 %, else at the highest."""
    groups: dict[tuple, list] = {}
    rates = {tables.setting(record)["ber_percent"] for record in records if record["cell"]["generator"] is None}
    ber_percent = 1.0 if 1.0 in rates else max(rates, default=1.0)
    for record in records:
        base = record["cell"]["base"]
        if record["cell"]["generator"] is None and tables.setting(record)["ber_percent"] == ber_percent:
            groups.setdefault((base["dataset"], base["model"]), []).append(record)
    return show.gallery([figures.chips(group, ber_percent) for _, group in sorted(groups.items())])


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
        if tables.comparable(best) and not np.isnan(best["published_RP"]):
            line += f" The paper has {best['published_PA']:g} → {best['published_PA_NF']:g} % for this pair."
        lines.append(line)
    lines += [_without_errors(pairs)] if len(pairs) else []
    return show.prose("\n".join(lines) or "No generator has been measured yet.")


def _without_errors(pairs: pd.DataFrame) -> str:
    """How many generators make their base model better without any error, ours and, where they are comparable, the paper's."""
    gain = pairs["CA_NF"] - pairs["CA"]
    variance = sum(pairs[name] * (100 - pairs[name]) / pairs["images"] for name in ("CA", "CA_NF"))  # as if of different images
    sure = gain[gain > 2 * np.sqrt(variance)]
    text = f"* **Without errors** the base model is more accurate behind the generator in {len(sure)} of {show.count(len(pairs), 'case')}, by more than two standard errors over test images"
    if len(sure):
        best = pairs.loc[sure.idxmax()]
        text += f"; most, {best['dataset']} {best['base_model']} with {best['generator']}: {best['CA']:.1f} → {best['CA_NF']:.1f} %. So it does more than undo errors ([why](mechanism.ipynb))"
        short = best["published_CA"] - best["CA"]
        text += f"; but this base model is {short:.1f} points less accurate than the paper's" if short > 0 else ""
    text, parts = f"{text}.", []
    for name in dict.fromkeys(pairs.loc[tables.comparable(pairs), "dataset"]):
        known = published.load()
        known = known[known["origin"].str.match(r"table1[2-5]_") & (known["dataset"] == name)]
        alone = known[known["metric"] == "CA"].drop_duplicates("base_model").set_index("base_model")["mean"]
        behind = known[known["metric"] == "CA_NF"]
        more = (behind["mean"] - behind["base_model"].map(alone)).dropna()
        parts += [f"{int((more > 0).sum())} of {len(more)} on {name} (by up to {more.max():.1f} points)"] if len(more) else []
    return text + (f" The paper prints a higher clean accuracy with the generator than without for {' and '.join(parts)}, each training counted." if parts else "")


def meaning(rows: pd.DataFrame) -> Markdown:
    """What follows: whether generators recover, how evenly, and what it costs where there are no errors."""
    pairs = rows[(rows["generator"] != "none") & rows["RP"].notna()]
    if pairs.empty:
        return show.prose("There is nothing to conclude yet.")
    sure, hurt = int((pairs["RP"] > 2 * pairs["RP_error"]).sum()), pairs["CA"] - pairs["CA_NF"]
    calmer = int((pairs["PA_NF_std"] < pairs["PA_std"]).sum())
    text = (
        f"A generator brings accuracy back in {sure} of {show.count(len(pairs), 'case')}, beyond what chance over chips would explain. In "
        f"{calmer} of them chips differ less behind it than without: not only the mean, the bad chips gain. Its price, without errors, is "
        f"{hurt.median():.1f} points in the median ({show.span(-hurt)} change), paid at every voltage; so a generator is for chips that run "
        "with many errors, not for those that rarely meet one."
    )
    both = pairs[pairs["error_model"].isin(["ReleaseMap", "BitFlips"])].groupby(["dataset", "base_model", "base_recipe", "base_epochs", "ber_percent", "generator"])
    gaps = [some.set_index("error_model")["RP"] for _, some in both if some["error_model"].nunique() == 2]
    if gaps:
        more = sum(gap["ReleaseMap"].max() > gap["BitFlips"].max() for gap in gaps)
        text += f" Under the official code's error map it recovers more than under independent flips in {more} of {show.count(len(gaps), 'pair')} measured under both; [what that means](error_models.ipynb)."
    return show.prose(text)


def accuracy_table(rows: pd.DataFrame) -> HTML:
    """The accuracy table with the columns that have any content, names in words."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN)
    return show.table(shown.dropna(axis=1, how="all"), "accuracy")


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
                "base training (s)": (metrics.get("base_training") or {}).get("seconds", np.nan),
                "imitation steps": recipe.get("imitation_steps", 0) if recipe else np.nan,
                "steps of Eq. 3": recipe["steps"] if recipe else np.nan,
                "generator training (s)": (metrics.get("generator_training") or {}).get("seconds", np.nan),
                "seed of the base model": cell["base"]["recipe"]["seed"],
                "of the generator": recipe["seed"] if recipe else np.nan,
                "pattern seeds": f"{cell['first_seed']}–{cell['first_seed'] + cell['patterns'] - 1}" if cell["patterns"] else "–",
                "hardware": f"{origin['device']}, {origin['threads']} threads, {origin['precision']}",
                "trained on": show.listed(p["provenance"]["device"] for p in (metrics.get("base_training"), metrics.get("generator_training")) if p and "provenance" in p),
                "torch": origin["torch"],
                "commit": origin["commit"][:10] + ("+" if origin["dirty"] else ""),
                "date": origin["date"],
            }
        )
    return show.table(pd.DataFrame(rows), f"provenance_{profile}", 0)
