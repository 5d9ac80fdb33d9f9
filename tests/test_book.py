"""What is derived for the book follows from the records alone, nothing changed goes unnoticed, and a page is one notebook."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import TINY, fake
from nflib.names import ROOT
from nflib.report import book, compare
from nflib.study import notebooks, runner
from nflib.study.cells import cell_of
from nflib.study.records import Store

TOY = '''# ---
# jupyter:
#   jupytext: {text_representation: {extension: .py, format_name: percent}}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Is this a toy?
#
# **Yes.**

# %% tags=["parameters"]
profile: str = "smoke"
patterns: int = 2
measure: bool = True

# %% tags=["cells"]
from nflib.study import Cell, base

cells = [Cell(base(profile, "digits", "vgg11", epochs=1), patterns=patterns, images=50)]

# %%
from nflib.report import bars, claim, measured, show

rows = measured(cells, profile, measure)
claim(rows["perturbed"].iloc[0] < 100, "Errors cost accuracy.")
bars(rows, "system", "perturbed", name="toy")

# %%
show(rows, ["system", "perturbed"], "toy", "A toy.")
'''


FOLLOW = """
from nflib import cli

run = ["run", "toy", "-p", "patterns", "3", "--output", "with {braces}.ipynb"]
assert [cli.main(words) for words in (run, ["sweep", "toy"], ["book"])] == [0, 0, 0]
"""


def test_an_experiment_is_one_notebook_one_entry_and_one_line_of_contents(tmp_path):
    """In a copy of the tree: it runs, is swept, and is a page of the book."""
    copy = tmp_path / "copy"
    for name in ("nflib", "book/_static", "results/published", "_config.yml"):
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, copy / name, ignore=ignored) if source.is_dir() else shutil.copy(source, copy)
    (copy / "notebooks").mkdir()
    (copy / "book" / "references.bib").touch()
    before = set(copy.rglob("*"))
    (copy / "notebooks" / "toy.py").write_text(TOY)
    (copy / "notebooks" / "parameters.yml").write_text("toy:\n  smoke: {}\n  book: [smoke]\n")
    (copy / "_toc.yml").write_text("format: jb-book\nroot: book/_executed/toy\n")
    assert {path.name for path in set(copy.rglob("*")) - before} == {"toy.py", "parameters.yml", "_toc.yml"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NFLIB_")} | {"PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", FOLLOW]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (copy / "with {braces}" / "toy.csv").exists() and (copy / "with {braces}.ipynb").exists()
    assert len(list((copy / "results" / "records" / "smoke").rglob("*.json"))) == 2
    page = (copy / "_build" / "html" / "book" / "_executed" / "toy.html").read_text()
    assert "Errors cost accuracy." in page and "toy.csv" in page and 'alt="' in page


def of_one_page(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """A book with one page, whose results and README lie in `folder`."""
    one = {"accuracy": ("accuracy", "paper")}
    patch.setenv("NFLIB_RESULTS", str(folder / "results"))
    patch.setattr(notebooks, "pages", lambda: one)
    patch.setattr(book, "_all", lambda work, *given: [work(page, *given) for page in one])
    patch.setattr(book, "README", folder / "README.md")


@pytest.fixture(scope="module")
def derived(tmp_path_factory) -> Path:
    """Results and README of one page, derived once from the stored records of the checkout."""
    folder = tmp_path_factory.mktemp("derived")
    shutil.copytree(ROOT / "results" / "records" / "paper", folder / "results" / "records" / "paper")
    (folder / "README.md").write_text("Before\n" + "".join(book.MARKS) + "\nAfter\n")
    with pytest.MonkeyPatch.context() as patch:
        of_one_page(patch, folder)
        book.write()
        (folder / "README.md").write_text(book.readme((folder / "README.md").read_text()))
    return folder


@pytest.fixture
def shelf(derived, workshop, monkeypatch) -> Path:
    """A results folder with one page, of the test's own."""
    shutil.copytree(derived, workshop, dirs_exist_ok=True)
    of_one_page(monkeypatch, workshop)
    return workshop / "results"


def test_any_changed_file_is_named(shelf, refused):
    assert any("1 pages" in line for line in book.check())
    tables, records = shelf / "tables" / "paper" / "accuracy", sorted((shelf / "records" / "paper").rglob("*.json"))
    for path in (tables / "accuracy.csv", tables / "recovery.svg", tables / "claims.csv", records[0]):
        content = path.read_bytes()
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
        with refused(path.name):
            book.check()
        path.write_bytes(content)
        path.rename(shelf.parent / "away")  # and one that was unwelcome
        with refused(path.name):
            book.check()
        (shelf.parent / "away").rename(path)
    strays = ("tables/paper/accuracy/more.csv", "tables/paper/nothing/x.csv", "records/paper/x.npz", "records/a/b/x.json", "records/paper/x.json")
    for stray in map(shelf.joinpath, strays):
        stray.parent.mkdir(exist_ok=True, parents=True)
        stray.write_text("1\n")
        with refused(stray.name):
            book.check()
        stray.unlink()


def test_tables_follow_from_the_records_alone(shelf, refused):
    before = {path: path.read_bytes() for path in (shelf / "tables").rglob("*.*")}
    book.write()
    assert {path: path.read_bytes() for path in (shelf / "tables").rglob("*.*")} == before
    path = shelf / "tables" / "paper" / "accuracy" / "accuracy.csv"
    path.write_text(path.read_text().replace("VGG11", "VGG12", 1))
    (shelf / "manifest.sha256").write_text(book.manifest())  # somebody who knows of the manifest
    with refused("accuracy.csv"):
        book.check()


def test_a_record_that_says_otherwise_fails_the_book_with_the_claim_s_sentence(shelf, monkeypatch, refused):
    """Break stored results on purpose: every generator makes things worse."""
    store = Store("paper")
    for record in map(store.read, (store.root / "accuracy").glob("*.json")):
        if (cell := cell_of(record["cell"])).generator:
            store.path(cell).unlink()
            metrics = record["metrics"] | {"perturbed": [0.0] * cell.patterns}
            store.write(cell, metrics, record["provenance"])
    monkeypatch.setattr(book, "EXECUTED", shelf / "executed")
    monkeypatch.setattr(book.subprocess, "run", lambda *given, **more: pytest.fail("the book was built"))
    with refused("a claim does not hold: .* recover"):
        book.build()


def test_the_claims_of_the_book_are_listed_with_their_truth(shelf):
    claims = book.claims()
    assert len(claims) >= 3 and claims["holds"].all() and set(claims["page"]) == {"accuracy"}


@pytest.mark.parametrize(
    "gaps, word",
    [((0.25, 0.25), None), ((24.0, -24.0), "24.0"), ((45.0, 0.0), "5.0 there"), (None, "no record")],
)
def test_a_study_compares_with_an_equal_one_and_no_other(gaps, word, workshop, monkeypatch, refused):
    """Gaps of alternating sign do not cancel, a single far cell counts, and none may be missing."""
    monkeypatch.setattr(notebooks, "names", lambda: ["tiny"])
    monkeypatch.setattr(notebooks, "cells_of", lambda profile, name: list(TINY))
    fake(monkeypatch)
    runner.run(TINY, "smoke", "cpu", quiet=True)
    here, there = Store("smoke"), Store("smoke", workshop / "there")
    for cell, gap in zip(TINY, gaps or ()):
        record = here.read(here.path(cell))
        values = [value - gap for value in record["metrics"]["perturbed"]]
        there.write(cell, record["metrics"] | {"perturbed": values}, record["provenance"])
    with refused(word) if word else contextlib.nullcontext():
        assert any("0.25" in line for line in compare.compare("smoke", workshop / "there"))
    monkeypatch.setattr(compare.np, "mean", lambda values: np.nan)
    with refused("no number" if gaps else "no record"):
        compare.compare("smoke", workshop / "there")


def test_a_page_has_its_parameters_once_a_box_and_links_to_its_other_scales(tmp_path, monkeypatch):
    def code(source: str, *tags: str) -> dict:
        return {"cell_type": "code", "metadata": {"tags": list(tags), "papermill": {"duration": 3}}, "source": source, "outputs": [1]}

    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Accuracy?"]},
        code("rate: float = 0.01", "parameters"),
        code("# Parameters\nrate = 0.02\n", "injected-parameters"),
        code("show(rows)", "hide-input"),
    ]
    path, whole = tmp_path / "accuracy.ipynb", json.dumps({"cells": cells, "metadata": {"papermill": {}}})
    path.write_text(whole)
    monkeypatch.setattr(notebooks, "pages", lambda: {"accuracy": ("accuracy", "paper"), "accuracy_paper12": ("accuracy", "paper12")})
    book._tidy(path, "accuracy")
    first, parameters, shown, box = json.loads(path.read_text())["cells"]
    assert first["source"].startswith("# Accuracy?\n") and "accuracy_paper12.ipynb" in first["source"]
    assert parameters["source"] == "rate: float = 0.01\n\n# on this page\nrate = 0.02\n" and "hide-cell" in parameters["metadata"]["tags"]
    assert shown["outputs"] == [1] and "nflib run accuracy --profile paper" in box["source"] and "duration" not in path.read_text()
    path.write_text(whole)
    book._tidy(path, "accuracy_paper12")
    first, *_ = json.loads(path.read_text())["cells"]
    assert first["source"].startswith("# Accuracy? (") and "(accuracy.ipynb)" in first["source"]
