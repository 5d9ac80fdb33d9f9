"""The prose pages and the README: what they tell a reader to type works, and what they point at is there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nflib import cli
from nflib.names import ROOT
from nflib.report import book
from nflib.study import notebooks

PAGES = [*(ROOT / name for name in ("README.md", "MAINTAINING.md", "data/README.md")), *sorted((ROOT / "book").glob("*.md"))]
EXTEND = (ROOT / "book" / "extend.md").read_text("utf-8")


def blocks(text: str) -> list[tuple[str, str, str]]:
    """(language, caption, content) of each fenced block of a page; "" where it has none."""
    found = re.findall(r"^( *)```(.*)\n((?:(?!^ *```$).*\n)*)^ *```$", text, re.MULTILINE)
    captioned = [(info, *re.fullmatch(r"(?::caption: (.*)\n)?((?:.*\n)*)", content).groups()) for _, info, content in found]
    return [(info, caption or "", content) for info, caption, content in captioned]


def commands(text: str) -> list[list[str]]:
    """The words of each `nflib ...` line in the plain blocks of a page, without comments."""
    lines = (line.strip().removeprefix(".venv/bin/") for info, _, content in blocks(text) if not info for line in content.splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nflib ")]


PASTES = [(caption, content) for _, caption, content in blocks(EXTEND) if caption]


def test_the_readme_is_short_and_its_table_is_the_derived_one():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    assert all(text.count(mark) == 1 for mark in book.MARKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        here = page.parent / target
        if here.parent == book.EXECUTED:  # made when the book is built
            assert here.stem in notebooks.pages(), target
        elif not target.endswith(".svg"):  # derived
            assert here.exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_understood(page):
    new = {Path(caption).stem for caption, _ in PASTES if caption.startswith("notebooks/")}
    for words in commands(page.read_text("utf-8")):
        wrong = words[-2:] in (["rates", "2"], ["base_modles", "vgg11"])  # shown for what is said to them
        args = cli.parser().parse_args(words)
        if args.verb == "run" and not wrong and args.notebook not in new:
            notebooks.strict(args.notebook, dict(args.parameter or []))
            assert args.profile is None or args.profile in notebooks.sets(args.notebook)


def test_contents_are_the_pages_of_the_book_and_the_prose():
    """Each page once, and nothing that will not be there."""
    files = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text("utf-8"))
    prose = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    executed = {f"book/_executed/{page}" for page in notebooks.pages()}
    assert sorted(files) == sorted(prose | executed)


def test_every_public_module_is_on_the_page_of_the_api():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "nflib").rglob("[!_]*.py")}
    assert set(re.findall(r"automodule:: (\S+)", (ROOT / "book" / "api.md").read_text("utf-8"))) == modules | {"nflib"}


def test_workflows_run_what_is_there():
    targets = re.search(r"^.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1].split()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"].values()
        for step in (step for job in jobs for step in job["steps"] if "run" in step):
            first, *words = step["run"].split()
            assert first in (".ci/run", "make", ".venv/bin/nflib"), path
            assert words[0] in targets if first == "make" else not words or cli.parser().parse_args(words), path


def test_locked_packages_have_hashes_and_a_line_in_the_list_of_licences():
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    pins = [block for block in re.split(r"\n(?=\S)", lock) if not block.startswith("#")]
    assert len(pins) > 100 and all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", block) for block in pins)
    listed = re.findall(r"^\| (\S+) \| (\d\S*) \|", (ROOT / "LICENSES.md").read_text("utf-8"), re.MULTILINE)
    assert ["==".join(one) for one in listed] == [block.split()[0] for block in pins]


def test_versions_agree():
    """Of the package, of its citation file and of the page on citing."""
    places = {"pyproject.toml": r'version = "(.*)"', "CITATION.cff": r"version: (.*)", "book/cite.md": r"  version = {(.*)}"}
    found = {re.search(f"^{words}", (ROOT / name).read_text("utf-8"), re.MULTILINE)[1] for name, words in places.items()}
    assert len(found) == 1


def test_scripts_of_the_book_come_from_the_book():
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    assert "sphinx_thebe" not in config["sphinx"]["config"]["extensions"]
    for path in (ROOT / "book" / "_static").iterdir():
        assert "http" not in path.read_text("utf-8").replace("http://www.w3.org/2000/svg", ""), path  # no address, a name


FOLLOW = """
import dataclasses
from pathlib import Path

import nflib
from examples import BASE, GENERATOR, TINY, small
from nflib import cli
from nflib.study import notebooks, recipes, runner, simulate

assert Path(nflib.__file__).is_relative_to(Path.cwd())
for words in RUNS:  # every command of the page asks for cells
    args = cli.parser().parse_args(words)
    given = notebooks.sets(args.notebook)["smoke"] | notebooks.strict(args.notebook, dict(args.parameter))
    assert notebooks.cells(args.notebook, given)
plain, _ = TINY  # what the page adds, on models that are trained within seconds
tiny = dataclasses.replace(GENERATOR, name="tiny", width=1.0)
new = [dataclasses.replace(plain, generator=tiny), dataclasses.replace(plain, error_model="lost_words", rate=0.05)]
new += [dataclasses.replace(plain, base=dataclasses.replace(BASE, dataset="negative"))]
new += [dataclasses.replace(plain, kind="mitigation", mitigation="protect_two")]
assert runner.run(new, "smoke", "cpu", quiet=True) == 0
recipes._BY_PROFILE["smoke"] = small()
given = {"generators": ["tiny"], "train_rates": [0.01], "rates": [0.02], "patterns": 2}
notebooks.inline("train_rates", given, Path("out"))
assert "Tiny" in set(simulate.frame()["network"])  # pages of energy and time go on
"""


def test_each_recipe_of_the_page_on_extending_works(tmp_path):
    """Its pastes, made in a copy of the tree; its commands ask for cells; what they add is measured, on small models."""
    for name in ("nflib", "notebooks", "results/published"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "examples.py", tmp_path)
    (tmp_path / "data").mkdir()
    script = f"RUNS = {[words for words in commands(EXTEND) if words[0] == 'run']!r}\n"
    for caption, text in PASTES:
        if caption.startswith("at the end of "):
            with open(tmp_path / caption.removeprefix("at the end of "), "a", encoding="utf-8") as file:
                file.write(f"\n\n{text}")
        elif caption.startswith("notebooks/"):
            (tmp_path / caption).write_text(text, "utf-8")
        elif caption.startswith("run "):
            script += text
    (tmp_path / "follow.py").write_text(script + FOLLOW, "utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NFLIB_")} | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "follow.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Tiny" in (tmp_path / "out" / "train_rates.csv").read_text("utf-8")
