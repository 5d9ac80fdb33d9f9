"""What notebooks show: tables, claims and the line that says how to run them again; and where results are kept."""

import base64
import csv
import html
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown, display

from nflib.files import write_whole

HEADS = {  # columns of the tidy frame, as tables and pictures call them
    "dataset": "data set",
    "rate": "BER (%)",
    "train_rate": "trained at BER (%)",
    "clean": "accuracy without errors (%)",
    "perturbed": "accuracy under errors (%)",
    "perturbed_alone": "alone, under errors (%)",
    "clean_alone": "alone, without errors (%)",
    "worst": "worst chip (%)",
    "std": "std over chips",
    "se": "standard error",
    "recovery": "recovery (points)",
    "recovery_se": "± standard error",
    "published_perturbed": "published, under errors (%)",
    "published_clean": "published, without errors (%)",
    "published_recovery": "published recovery (points)",
    "base_recipe": "recipe",
    "patterns": "chips",
    "images": "test images",
    "changed_bits": "changed bits (%)",
    "ber_percent": "BER (%)",
    "energy_saved": "energy saved (%)",
    "training_minutes": "training (min)",
}
PER_CENT = ("rate", "train_rate", "changed_bits", "bit_errors")  # fractions in the frame, per cent on paper


def outcomes() -> Path | None:
    """The folder that keeps what a notebook shows (`NFLIB_OUTCOMES`): tables, named pictures, claims; None keeps nothing."""
    folder = os.environ.get("NFLIB_OUTCOMES")
    return Path(folder) if folder else None


def keep(name: str, text: str) -> None:
    """Keep a result of the notebook that runs, where results are kept."""
    if folder := outcomes():
        write_whole(folder / name, text)


def head(column: str) -> str:
    """What a column is called in pictures and tables, with its unit."""
    return HEADS.get(column, column.replace("_", " "))


def values_of(rows: pd.DataFrame, column: str) -> pd.Series:
    """A column as it is shown: fractions in per cent."""
    return (100 * rows[column]).round(8) if column in PER_CENT else rows[column]


def to_csv(rows: pd.DataFrame) -> str:
    """The stored form of a table: one number a cell, at most four decimals, LF line ends; lists of accuracies left out."""
    kept = rows[[name for name in rows if not rows[name].map(lambda v: isinstance(v, (np.ndarray, list, dict))).any()]]
    return kept.round(4).to_csv(index=False, lineterminator="\n")


def _text(value: object, digits: int) -> str:
    """A cell of a table; a missing number is "-", which sorts as one."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        text = f"{value:,.{digits}f}"
        return text.removeprefix("-") if not float(text.replace(",", "")) else text
    return str(value)


_INITIALISED: list[bool] = []  # itables' script goes into a notebook once, with its first table


def show(
    rows: pd.DataFrame, columns: Sequence[str] = (), name: str = "", caption: str = "", digits: int = 1
) -> HTML:
    """A sortable, searchable table of at most eight `columns` of `rows`; every column is in the CSV that it links to.

    What all rows have in common (names and rates, not measured numbers; chips and images) is said in the caption.

    name: of the CSV, which is also kept among the results (see `keep`).  caption: above it; says what was measured, and
    how generators were trained.  digits: decimals of numbers that are not whole.
    """
    from itables import to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    columns = list(columns) or list(rows)[:8]
    if len(columns) > 8:
        raise ValueError(f"a table shows at most eight columns; these are {len(columns)}")
    text = to_csv(rows)
    if name:
        keep(f"{name}.csv", text)
    shown, alike = {}, {}
    for c in columns:
        values, number = values_of(rows, c), pd.api.types.is_numeric_dtype(rows[c])
        places = 0 if number and (values > 999).all() and (values % 1 == 0).all() else digits
        texts = [f"{v:g}" for v in values.round(6)] if c in PER_CENT else [_text(v, places) for v in values]
        same = len(rows) > 1 and len(set(texts)) == 1 and (c in PER_CENT or not number or texts[0] == "-")
        (alike if same else shown)[head(c)] = texts
    if "perturbed" in columns:
        same = [c for c in ("patterns", "images") if c in rows and c not in columns and rows[c].nunique() == 1]
        alike |= {head(c): [f"{rows[c].iloc[0]:,}"] for c in same}
    said = ", ".join(f"{name} {texts[0]}" for name, texts in alike.items() if texts[0] != "-")
    caption += f" In all rows: {said}." if said else ""
    shown = pd.DataFrame(shown or alike)
    options = {"paging": len(rows) > 15, "lengthMenu": [[15, 50, -1], [15, 50, "all"]], "info": len(rows) > 15, "searching": len(rows) > 5}
    table = to_html_datatable(
        shown, connected=False, showIndex=False, maxBytes=0, classes="display compact nflib", order=[], scrollX=True,
        warn_on_undocumented_option=False, **options,
    )  # fmt: skip
    script = "" if _INITIALISED else generate_init_offline_itables_html(_bundle())
    _INITIALISED.append(True)
    link = base64.b64encode(text.encode()).decode()
    label = f"{name or 'table'}.csv"
    return HTML(
        f"{script}<p class='nflib-caption'>{html.escape(caption)}</p><div class='nflib-table'>{table}</div><p class='nflib-csv'>"
        f'<a download="{label}" href="data:text/csv;base64,{link}">{label}</a>: {len(rows)} rows, all columns</p>'
    )


def span(values: pd.Series, digits: int = 1) -> str:
    """The least and the largest of some values in words, "2.5 to 7.0", or once where both read the same."""
    return " to ".join(dict.fromkeys(f"{value:.{digits}f}" for value in (values.min(), values.max())))


def say(text: str) -> None:
    """A sentence with numbers in it, typed in the notebook as an f-string; a hyphen before a digit becomes a minus."""
    display(Markdown(re.sub(r"(?<![\w.\]`-])-(?=\.?\d)", "−", text)))


def page(name: str, key: str) -> dict:
    """The names of another notebook, executed with one of its parameter sets on stored records; nothing of it is shown or kept."""
    from IPython.utils.capture import capture_output

    from nflib.study import notebooks

    with tempfile.TemporaryDirectory() as folder, capture_output():
        return notebooks.inline(name, notebooks.reading(name, key), Path(folder))


class ClaimFails(AssertionError):
    """A finding that the book states does not hold."""


def claim(condition: object, sentence: str) -> None:
    """State a finding, with a tick where `condition` holds.

    Where it does not: in the book (`NFLIB_STRICT`) the build fails with the sentence; in a run with other parameters the
    sentence is shown with a cross.  A condition that cannot be told (missing numbers: NaN) does not hold.
    """
    holds = bool(condition) if not (isinstance(condition, float) and np.isnan(condition)) else False
    if folder := outcomes():
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "claims.csv", "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([holds, sentence])
    if not holds and os.environ.get("NFLIB_STRICT"):
        raise ClaimFails(sentence)
    mark, after = ("✓", "") if holds else ("✗", " *(the finding does not hold here; the numbers do)*")
    say(f"<span class='nflib-claim nflib-{'holds' if holds else 'fails'}'>{mark}</span> {sentence}{after}")


def _bundle() -> Path:
    import itables

    return Path(itables.__file__).parent / "html" / "dt_bundle.js"
