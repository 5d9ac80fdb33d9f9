"""How pages show things: tables, galleries of pictures, numbers and lists in words, and how much is measured."""

import base64
import html
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import data, generators, grids, profiles, tables
from nflib.store import Store

GROUP = ["dataset", "base_model", "base_recipe", "base_epochs", "error_model", "ber_percent"]  # rows of one base model and one setting of errors
SAME = 3  # rows from which on a column that never changes is said once, above the table
TALL = 20  # rows from which on a table scrolls in a box of its own
POINTS = ("CA", "PA", "RP", "paper", "ES", "MAC")  # columns that keep decimals where all are whole
FREE = ("BER %", "% of bits", "bits %")  # columns whose numbers differ by orders of magnitude


def prose(text: str) -> Markdown:
    """Sentences of a page; a hyphen that stands for a minus becomes one, but not in code."""
    parts = re.split(r"(`[^`]*`)", text)
    return Markdown("".join(part if part.startswith("`") else re.sub(r"(?<![\w.\]-])-(?=\.?\d)", "−", part) for part in parts))


def title(key: tuple) -> str:
    """A base model and the errors that it meets, in words; key: a value for each of GROUP."""
    dataset, model, recipe, epochs, law, rate = key
    return f"{dataset} {model}, base recipe {recipe} ({epochs} epochs), {law}, BER {rate:g} %"


def count(number: int, thing: str) -> str:
    """A number of things: "1 cell", "1,370 cells"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def listed(values) -> str:
    """Different values in words: "a, b and c"; "none" without any."""
    values = [f"{v:g}" if isinstance(v, float) else str(v) for v in dict.fromkeys(values)]
    return ", ".join(values[:-1]) + (" and " if len(values) > 1 else "") + values[-1] if values else "none"


def several(values, thing: str) -> str:
    """Different values with what they are: "generator ConvL", "generators ConvL and UNetS"."""
    return f"{thing}{'' if len(set(values)) == 1 else 's'} {listed(values)}"


def bases(rows: pd.DataFrame) -> str:
    """Base models with their data sets in words: "VGG11 and ResNet18 on CIFAR-10, VGG11 on GTSRB"; rows: dataset, base_model."""
    return ", ".join(f"{listed(some)} on {name}" for name, some in rows.groupby("dataset", sort=False)["base_model"])


def points(value: float, error: float = np.nan) -> str:
    """A difference in percentage points in words, with its standard error where there is one."""
    return f"{value:+.1f}" + ("" if np.isnan(error) else f" ± {error:.1f}")


def span(values: pd.Series) -> str:
    """The range of signed values in words: "-0.5 to +1.2", or the one value."""
    low, high = f"{values.min():+.1f}", f"{values.max():+.1f}"
    return low if low == high else f"{low} to {high}"


def official() -> str:
    """How long the official code trains a generator, in a sentence."""
    recipe = grids.OFFICIAL_GENERATOR["paper"]
    return f"The official recipe trains a generator for {recipe.steps:,} steps of Eq. 3 on CIFAR-10, with {recipe.models_per_step} perturbed models each."


def trained(rows: pd.DataFrame) -> str:
    """How long the generators in `rows` were trained, in words; rows with steps and, where known, imitation_steps."""
    imitation = rows["imitation_steps"] if "imitation_steps" in rows else 0
    lengths = dict.fromkeys(zip(rows.assign(imitation_steps=imitation)["imitation_steps"].fillna(0), rows["steps"]))
    said = []
    for first, then in lengths:
        parts = [f"{first:,.0f} steps of imitation"] if first else []
        parts += [f"{then:,.0f} steps of Eq. 3"] if then or not first else []
        said.append(", then ".join(parts))
    return "; or ".join(said)


def runs(rows: pd.DataFrame) -> str:
    """Which base models were measured on how many chips and images, a line each; "" where all were alike.  rows: measured, with
    dataset, base_model, base_epochs, patterns and images."""
    groups = list(rows.groupby(["base_epochs", "patterns", "images"]))
    lines = [f"* {epochs:.0f} epochs, {count(int(chips), 'chip')}, {images:,.0f} images: {bases(some)}" for (epochs, chips, images), some in groups]
    return "\n".join(lines) if len(lines) > 1 else ""


def imitated(rows: pd.DataFrame) -> int:
    """How many rows, with imitation_steps and steps, are of generators that learnt by imitation and not by Eq. 3."""
    return int(((rows["imitation_steps"].fillna(0) > 0) & (rows["steps"] == 0)).sum())


def by_imitation(rows: pd.DataFrame) -> str:
    """How many of the generators in `rows` were not trained by the paper's algorithm, in words, for whoever holds them against the
    paper; "" for none.  rows with generator, imitation_steps and steps."""
    rows = rows[rows["generator"].isin(generators.LABELS.values()) & rows["record"].notna()]
    count = imitated(rows)
    if not count:
        return ""
    whose = "No generator here was" if count == len(rows) else f"Of the {len(rows)} results behind a generator, {count} are of generators that were not"
    return (
        f"**{whose} trained by the paper's algorithm**, Eq. 3. They learnt to change images as *class patterns* do, one picture for each class; only "
        "these pictures were trained on damaged models ([why that works](mechanism.ipynb)). What agrees with the paper is then the result, not the way to it."
    )


def _texts(column: pd.Series, digits: int) -> list[str]:
    """A column's cells as a table shows them: numbers rounded alike, a dash for what is missing."""
    if not pd.api.types.is_numeric_dtype(column):
        return ["–" if pd.isna(value) else str(value) for value in column]
    known = column.dropna()
    whole = (known % 1 == 0).all() and (known.abs().max() >= 1000 or not str(column.name).startswith(POINTS))
    text = "{:.3g}" if str(column.name).endswith(FREE) else "{:,.0f}" if whole else f"{{:,.{digits}f}}"
    shown = [text.format(value) for value in column]
    nothing = f"-{text.format(0)}"  # a negative number that rounds to zero
    return ["–" if pd.isna(value) else words.replace("-", "" if words == nothing else "−") for value, words in zip(column, shown)]


def _said(column: str, value: str) -> str:
    return f"{column.removesuffix(' %')} {value} %" if column.endswith(" %") else f"{column} {value}"


def table(frame: pd.DataFrame, name: str, digits: int = 1, wrap: bool = False) -> HTML:
    """A frame as an HTML table in a box that scrolls, with a link that downloads its CSV.

    Columns that have one value in all rows are said once, above the table; the CSV has every column.  A long table has a
    box of limited height and, in the book, a field that filters its rows.  digits: decimals of numbers that are not
    whole.  wrap: let long texts in cells take several lines.
    """
    texts = {column: _texts(frame[column], digits) for column in frame}
    same = [column for column, values in texts.items() if len(values) >= SAME and len(set(values)) == 1]
    same = same if len(same) < len(texts) else []
    kinds = {column: "number" if pd.api.types.is_numeric_dtype(frame[column]) else "text" for column in texts if column not in same}
    head = "".join(f'<th class="{kind}">{html.escape(str(column))}</th>' for column, kind in kinds.items())
    cells = [[f'<td class="{kind}">{html.escape(value)}</td>' for value in texts[column]] for column, kind in kinds.items()]
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in zip(*cells))
    said = html.escape("; ".join(_said(str(column).strip(), texts[column][0]) for column in same))
    said = f'<p class="nflib-same">In all rows: {said}.</p>' if said else ""
    box = "nflib-table" + (" tall" if len(frame) >= TALL else "") + (" wrap" if wrap else "")
    data = base64.b64encode(tables.to_csv(frame).encode()).decode()
    link = f'<a download="{html.escape(name)}.csv" href="data:text/csv;base64,{data}">Download as CSV</a>'
    return HTML(
        f'{said}<div class="{box}"><table class="table nflib"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
        f"<p>{link} ({count(len(frame), 'row')})</p>"
    )


def elsewhere(dataset: str, names: tuple[str, ...], made: Callable[[str], HTML]) -> HTML:
    """What `made` shows of each data set in `names` but `dataset`, each under its label."""
    return HTML("\n".join(f"<p><strong>{data.LABELS[name]}</strong></p>\n{made(name).data}" for name in names if name != dataset))


def named(frame: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """The columns of a frame that have a name in words, under it, in the order of `names`."""
    return frame[[name for name in names if name in frame]].rename(columns=names)


def gallery(pictures: list) -> HTML:
    """Pictures one below the other."""
    return HTML("\n".join(picture._repr_html_() for picture in pictures) or "<p>Nothing measured yet.</p>")


def progress(rows: pd.DataFrame, profile: str, table: str) -> str:
    """What the measured `rows` rest on, how many cells of the profile's grid `table` have a record, and how to get more.

    rows: with the columns dataset, base_model, patterns, images and record (missing where only the paper has numbers), and,
    where they are known, base_epochs, generator, steps and imitation_steps.
    """
    store, cells = Store(profile), dict.fromkeys(profiles.cells(profile, table))
    done, command = sum(map(store.has, cells)), f"`nflib sweep {table} --profile {profile}`"
    size = "at full size" if profile == "paper" else "at smoke scale"
    rows = rows[rows["record"].notna()]
    share = f"{done:,} of the {count(len(cells), 'cell')} that this page has {size}, over all data sets, "
    share += "is measured" if done == 1 else "are measured"
    if rows.empty:
        other = " Pages *At smoke scale* show small models in the meantime." if profile == "paper" else ""
        here = " for what this page was asked" if done else ""
        return f"**Not measured yet {size}{here}:** {command} measures it ({share}). What is shown is the paper's.{other}"
    text = f"**What was measured.** {listed(rows['dataset'])}; {several(rows['base_model'], 'base model')}"
    if "base_epochs" in rows:
        text += f", trained for {listed(int(n) for n in rows['base_epochs'])} epochs"
    behind = rows[rows["generator"] != "none"] if {"generator", "steps"} <= set(rows) else rows[:0]
    if len(behind):
        text += f"; {several(behind['generator'], 'generator')}, trained for {trained(behind)}"
    if "patterns" in rows:
        text += f"; {listed(int(n) for n in rows['patterns'])} error patterns per setting"
    text += f"; {listed(f'{int(n):,}' for n in rows['images'])} test images."
    text = f"{text} {share[0].upper()}{share[1:]}" + ("." if done == len(cells) else f"; {command} measures the others.")
    apart = runs(rows) if {"base_epochs", "patterns", "images"} <= set(rows) else ""
    return f"{text} In parts:\n\n{apart}" if apart else text
