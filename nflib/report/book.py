"""The book and what is derived for it: tables, pictures and claims of every page, kept in results/tables/, and the HTML.

A page is a notebook with one of its parameter sets, executed on stored records.  `write` derives what pages show, without
kernels; `check` does so again and compares; `build` executes the pages by papermill and renders them.
"""

import csv
import filecmp
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from nflib.data import expected_digests
from nflib.files import part_suffix, sweep_parts, write_whole
from nflib.names import PROFILES, ROOT, UserError
from nflib.report import published
from nflib.study import notebooks
from nflib.study.cells import cell_of, digest_of
from nflib.study.cluster import signals_held
from nflib.study.records import MANIFEST, Store, check_writable, git, results
from nflib.study.trained import generator_key

EXECUTED = ROOT / "book" / "_executed"
HTML = ROOT / "_build" / "html"
README = ROOT / "README.md"
MARKS = ("<!-- results: derived by nflib tables; do not edit -->\n", "<!-- end of results -->")
SHOWN_FIRST = ("accuracy", "paper", "VGG11")  # notebook, parameter set and base model of the README's table
SCALES = {"smoke": "smoke scale", "desk": "narrow networks", "paper12": "full size, 12 epochs", "paper": "full size, 30 epochs"}
FOLDS = {"parameters": "Parameters", "cells": "What is measured", "hide-cell": "Preparation"}  # labels of folded code


def given(page: str) -> dict:
    """The parameters that a page of the book is executed with: stored records only."""
    return notebooks.reading(*notebooks.pages()[page])


def kept(page: str, root: Path | None = None) -> Path:
    """The folder of a page's tables, named pictures and claims."""
    name, key = notebooks.pages()[page]
    return (root or results() / "tables") / key / name


def _derive(page: str, root: Path) -> str:
    """Execute a page here and keep what it shows below `root`; returns the page's name."""
    notebooks.inline(notebooks.pages()[page][0], given(page), kept(page, root), strict_claims=True)
    return page


def _all(work, *arguments) -> None:
    """Do `work` for every page, two at a time, and say so."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        try:
            with signals_held():
                pages = [pool.submit(work, page, *arguments) for page in notebooks.pages()]
            for page in as_completed(pages):
                print(f"nflib: {page.result()}", file=sys.stderr)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # pages not begun; those begun are waited for
            raise


def _digests() -> dict[str, str]:
    """The sha256 of each stored file by its path below results/; without the manifest, and parts, which are being written."""
    root = results()
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and ".part/" not in f"{path}/"]
    found = {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return {path: digest for path, digest in found.items() if path != MANIFEST}


def manifest() -> str:
    """A line for each stored file below results/: its sha256 and its path."""
    return "".join(f"{digest}  {path}\n" for path, digest in _digests().items())


def write() -> list[Path]:
    """Derive tables, pictures and claims of all pages, the README's table and the manifest; returns the files.

    Nothing is replaced before all of it is there.  Raises UserError where a claim does not hold.
    """
    target = results() / "tables"
    check_writable(results())
    sweep_parts(results())
    with tempfile.TemporaryDirectory(prefix="tables", suffix=part_suffix(), dir=results()) as folder:
        fresh = Path(folder) / "tables"
        _all(_derive, fresh)
        if target.exists():
            target.rename(Path(folder) / "before")
        fresh.rename(target)
    if results() == ROOT / "results":  # records of a folder elsewhere are not what the README speaks of
        write_whole(README, readme(README.read_text("utf-8")))
    write_whole(results() / MANIFEST, manifest())
    return sorted(path for path in target.rglob("*") if path.is_file())


def readme(text: str) -> str:
    """README text with its table replaced by what the stored one says."""
    before, _, rest = text.partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise UserError(f"{README} has lost its marks {MARKS[0].strip()!r} and {MARKS[1]!r}")
    name, key, model = SHOWN_FIRST
    rows = pd.read_csv(results() / "tables" / key / name / f"{name}.csv")
    rows = rows[(rows["base_model"] == model) & (rows["error_model"] == "ReleaseMap") & (rows["rate"] == 0.01)]
    lines = ["| in front of VGG11 | training | without errors | under errors | worst chip | published |", "|---|---|---|---|---|---|"]
    for row in rows.to_dict("records"):
        values = [row[c] for c in ("clean", "perturbed", "worst", "published_perturbed")]
        texts = " | ".join("–" if pd.isna(value) else f"{value:.1f}" for value in values)
        front = "nothing" if row["generator"] == "none" else row["generator"]
        lines.append(f"| {front} | {row['training'].replace('none', '–')} | {texts} |")
    return before + MARKS[0] + "\n".join(lines) + "\n" + MARKS[1] + after


def _trainings(records: list[dict], profile: str) -> str:
    """How many trained models the records rest on.  UserError where two trainings of one model ended differently: then
    accuracies could not be compared chip by chip."""
    found: dict[str, tuple] = {}
    for record in records:
        cell = cell_of(record["cell"])
        keys = {"base": digest_of(cell.base), "selector": cell.selector and digest_of(cell.selector)}
        keys["generator"] = cell.generator and generator_key(cell)
        for what, key in keys.items():
            if training := record["metrics"].get(f"{what}_training"):
                outcome = [training.get(name) for name in ("losses", "distillation_losses")]
                first, other = found.setdefault(key, (outcome, cell))
                if outcome != first:
                    said = f"records {other.digest} and {cell.digest} ({cell.words}) rest on different trainings of one {what}"
                    raise UserError(f"{said}; move those of one of them away and measure them again")
    return f"{profile}: {len(records)} records valid, on {len(found)} trained models"


def _check_records() -> list[str]:
    """Every record valid, of known data and of a commit of this repository; UserError for the first that is not."""
    said, paths = [], sorted((results() / "records").rglob("*.json"))
    for profile in PROFILES:
        store = Store(profile)
        records = [store.read(path) for path in paths if path.parent.parent == store.root]
        paths = [path for path in paths if path.parent.parent != store.root]
        said.append(_trainings(records, profile))
        digests: dict[str, set] = {}
        for record in records:
            dataset, digest = record["cell"]["base"]["dataset"], record["provenance"].get("data")
            known = expected_digests(dataset)
            if digest and known is not None and digest not in known:
                raise UserError(f"record {digest_of(record['cell'])} was measured on images that are not {dataset}'s")
            digests.setdefault(dataset, set()).update({digest} - {None})
        if several := [name for name, some in digests.items() if len(some) > 1]:
            raise UserError(f"records of profile {profile} rest on several versions of data set {several[0]!r}")
        commits = {record["provenance"]["commit"] for record in records} - {"unknown"}
        shallow = git("rev-parse", "--is-shallow-repository")
        if shallow == "false" and (lost := [c for c in commits if git("cat-file", "-e", f"{c}^{{commit}}") is None]):
            raise UserError(f"records of profile {profile} name commit {lost[0]}, which this repository does not have")
    if paths:
        raise UserError(f"{paths[0]} does not lie where a record belongs")
    return said


def _check_manifest() -> None:
    """Every file below results/ as the manifest says, and no other, but for records that were measured since."""
    path = results() / MANIFEST
    try:
        *lines, end = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"the manifest {path} cannot be read: {error.strerror}; `nflib tables` writes it") from None
    if end or not all(re.fullmatch(rb"[0-9a-f]{64}  [ -~]+", line) for line in lines):
        raise UserError(f"the manifest {path} is damaged; git checkout restores it")
    stated, there = {line[66:].decode(): line[:64].decode() for line in lines}, _digests()
    changed = {path for path in stated | there if stated.get(path) != there.get(path)}
    records = {path.removesuffix(".json") for path in changed - stated.keys() if path.startswith("records/") and path.endswith(".json")}
    if changed := sorted(path for path in changed if path in stated or path.rpartition(".")[0] not in records):
        more = f" and {len(changed) - 1} other files are" if len(changed) > 1 else " is"
        raise UserError(f"{results() / changed[0]}{more} not as the manifest says; git shows what changed")


def check() -> list[str]:
    """Records valid, tables and claims equal to what they give, files equal to the manifest; UserError for what is not."""
    said = [f"published numbers intact: {len(published.load())} rows", *_check_records()]
    _check_manifest()
    with tempfile.TemporaryDirectory() as folder:
        _all(_derive, Path(folder))
        for page in notebooks.pages():
            fresh, stored = kept(page, Path(folder)), kept(page)
            for path in sorted(p for p in fresh.rglob("*") if p.suffix != ".svg"):  # pictures: by the manifest
                if not (stored / path.name).exists() or not filecmp.cmp(path, stored / path.name, shallow=False):
                    raise UserError(f"{stored / path.name} is not what the records give; `nflib tables` derives it again")
        if stray := {p.parent for p in (results() / "tables").rglob("*") if p.is_file()} - {kept(page) for page in notebooks.pages()}:
            raise UserError(f"{min(stray)} belongs to no page of the book; `nflib tables` derives what belongs there")
    if readme(README.read_text("utf-8")) != README.read_text("utf-8"):
        raise UserError("README.md's table is not what the records give; `nflib tables` makes it")
    return [*said, f"tables and claims of {len(notebooks.pages())} pages equal to what the records give"]


def claims() -> pd.DataFrame:
    """Every claim of the book: page, whether it holds, sentence."""
    rows = []
    for page in notebooks.pages():
        path = kept(page) / "claims.csv"
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                rows += [{"page": page, "holds": holds == "True", "claim": sentence} for holds, sentence in csv.reader(file)]
    return pd.DataFrame(rows, columns=["page", "holds", "claim"])


def _scales(page: str) -> str:
    """Links to the same page at its other scales; "" where there is one."""
    name, _ = notebooks.pages()[page]
    same = {other: key for other, (n, key) in notebooks.pages().items() if n == name}
    names = {other: SCALES.get(key, key) for other, key in same.items()}
    links = [f"**{scale}**" if other == page else f"[{scale}]({other}.ipynb)" for other, scale in names.items()]
    return f"*Measured with:* {' · '.join(links)} ([more](../rerun.md))\n\n" if len(same) > 1 else ""


def _opening(page: str, text: str) -> str:
    """A page's first cell: its title, with the scale where that is not the main page's, and links to the other scales."""
    name, key = notebooks.pages()[page]
    title, _, rest = text.partition("\n")
    scale = "" if page == name else f" ({SCALES.get(key, key)})"
    return f"{title}{scale}\n\n{_scales(page)}{rest.strip()}".strip()


def _reproduce(page: str) -> str:
    """The box at the end of a page: how to make its table again."""
    name, key = notebooks.pages()[page]
    profile = f" --profile {key}" if "profile" in notebooks.parameters(name) else ""
    has_cells = bool(notebooks.code(name, "cells"))
    sweep = f"nflib sweep {name} --profile {key}    # measures what has no record yet\n" if has_cells else ""
    return (
        ":::{admonition} Reproduce this\n:class: tip dropdown\n"
        f"```\nnflib run {name}{profile}      # this page, with other parameters: -p NAME VALUE\n{sweep}```\n"
        f"Tables of this page: `results/tables/{key}/{name}/`; the record of every number: page *Provenance*.\n:::"
    )


def _tidy(path: Path, page: str) -> None:
    """Make a page of an executed notebook: links to its other scales, how to reproduce it, nothing that depends on the run."""
    notebook = json.loads(path.read_text("utf-8"))
    notebook["metadata"] = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    cells = []
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        cell["metadata"] = {"tags": tags}
        if folds := [FOLDS[tag] for tag in tags if tag in FOLDS]:
            cell["metadata"]["mystnb"] = {"code_prompt_show": folds[0]}
        if "injected-parameters" in tags:  # they go under the defaults that they change
            cells[-1]["source"] = "".join(cells[-1]["source"]) + "\n\n" + "".join(cell["source"]).replace("# Parameters", "# on this page")
            continue
        if cell["cell_type"] == "code" and page == "index":  # its reader has asked for no code yet
            cell["metadata"]["tags"] = ["remove-cell" if "parameters" in tags else "remove-input"]
        elif set(tags) & {"parameters", "cells"}:
            cell["metadata"]["tags"] = [*tags, "hide-cell"]
        cells.append(cell)
    cells[0]["source"] = _opening(page, "".join(cells[0]["source"]))
    if page != "index":
        cells.append({"cell_type": "markdown", "metadata": {}, "source": _reproduce(page)})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    write_whole(path, json.dumps({**notebook, "cells": cells}, indent=1) + "\n")


def _page(page: str, scratch: str) -> str:
    """Execute the notebook of a page of the book by papermill; returns the page's name."""
    path = EXECUTED / f"{page}.ipynb"
    notebooks.execute(notebooks.pages()[page][0], path, given(page), Path(scratch) / page, strict_claims=True)
    _tidy(path, page)
    return page


def build() -> Path:
    """Execute every page on stored records and build the HTML, warnings as errors; returns its first page."""
    shutil.rmtree(EXECUTED, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        _all(_page, scratch)
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", "-W", "-n", "--keep-going", "--all", str(ROOT)]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise UserError("the book has warnings or errors, see above")
    for page in notebooks.pages():
        if not (HTML / "book" / "_executed" / f"{page}.html").exists():
            raise UserError(f"page {page} is missing from the book: is it in _toc.yml?")
    return HTML / "index.html"
