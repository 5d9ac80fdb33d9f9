"""Notebooks: strict parameters, one form, cells before any kernel, and a run of each with other parameters."""

import ast
import gc
import os
import signal
import subprocess
import sys
import tempfile

import jupytext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import own_folders, small
from nflib import cli
from nflib.names import ROOT, UserError
from nflib.study import notebooks, recipes, runner
from nflib.study.cells import Cell
from nflib.study.records import Store, results

OTHER = {  # than the defaults, and cheaper, where a notebook has them
    "patterns": 2, "images": 60, "damage_images": 20, "base_models": ["vgg11"], "surrogates": ["resnet18"],
    "targets": ["vgg11"], "generators": ["conv_s"], "epochs": 1, "official_steps": [1], "eopm_steps": [1, 2],
    "faded_steps": [2], "distillation_steps": [2], "further_steps": [1], "flips": [5],
}  # fmt: skip


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_has_the_form(name):
    cells = jupytext.read(notebooks.source(name)).cells
    tags = [tag for cell in cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("parameters") == 1 and tags.count("cells") <= 1
    assert {*tags} <= {"parameters", "cells", "hide-cell", "hide-input", *notebooks.sets(name)}
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert list(notebooks.meanings(name)) == list(notebooks.parameters(name)) and all(notebooks.meanings(name).values())
    text = notebooks.source(name).read_text()
    assert len(text.splitlines()) <= 250 and max(map(len, text.splitlines())) <= 140
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        lost = [node.value for node in ast.parse(cell.source).body[:-1] if isinstance(node, ast.Expr)]
        names = {getattr(getattr(value, "func", None), "id", "") for value in lost}
        assert not names & {"show", "ladder", "curve", "bars", "heatmap", "scatter", "Picture"}, "only a cell's last value is shown"
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("claim", "say"):
            chosen = [part.body for part in ast.walk(node.args[-1]) if isinstance(part, ast.IfExp)]
            assert not any(isinstance(body, ast.JoinedStr) for body in chosen), "a sentence is chosen"


def test_a_tagged_cell_is_for_its_parameter_sets_only(tmp_path, monkeypatch):
    (tmp_path / "some.py").write_text(
        "# ---\n# jupyter:\n#   kernelspec: {display_name: Python 3, language: python, name: python3}\n# ---\n\n"
        '# %% tags=["parameters"]\nprofile: str = "smoke"  # scale\n\n# %% [markdown] tags=["desk"]\n# Narrow\n\n'
        '# %%\nseen = ["all"]\n\n# %% tags=["hide-input", "desk"]\nseen += ["desk"]\n\n# %% tags=["paper"]\nseen += ["paper"]\n'
        '# %% tags=["desk", "paper"]\nseen += ["both"]\n'
    )
    (tmp_path / "parameters.yml").write_text("some:\n  smoke: {}\n  desk: {}\n  paper: {}\n")
    monkeypatch.setattr(notebooks, "SOURCES", tmp_path)
    for profile in ("desk", "paper"):
        assert notebooks.inline("some", {"profile": profile}, tmp_path)["seen"] == ["all", profile, "both"]
    assert notebooks.inline("some", {}, tmp_path)["seen"] == ["all"]  # the default profile has no cells of its own
    run = jupytext.read(notebooks.execute("some", tmp_path / "run.ipynb", {"profile": "paper"}, tmp_path))
    assert [cell.source for cell in run.cells][-2:] == ['seen += ["paper"]', 'seen += ["both"]'] and "Narrow" not in str(run.cells)


def test_every_parameter_set_is_of_its_notebook():
    for name in notebooks.names():
        for given in notebooks.sets(name).values():
            assert notebooks.strict(name, given) == given
    assert {name for name, _ in notebooks.pages().values()} <= set(notebooks.names())


@pytest.mark.parametrize(
    "given, word",
    [
        ({"rate": "0.01"}, "rates"),
        ({"rates": "2"}, "2.0"),
        ({"rates": "high"}, "rates"),
        ({"rates": ""}, "at least one"),
        ({"rates": ",".join(["0.1"] * 101)}, "101 values"),
        ({"base_models": ""}, "nothing to measure"),
        ({"patterns": "ten"}, "patterns"),
        ({"patterns": "0"}, "patterns"),
        ({"patterns": "2.5"}, "patterns"),
        ({"patterns": "1e999"}, "patterns"),
        ({"rates": "1" + "0" * 400}, "rate"),
        ({"measure": "perhaps"}, "measure"),
        ({"base_models": "vgg11,vgg12"}, "vgg1"),
        ({"base_models": 3}, "base_models"),
        ({"error_models": "chip_map:"}, "chip map"),
        ({"datasets": "nowhere"}, "nowhere"),
        ({"rates": "[" * 50000}, "rates"),
    ],
)
def test_what_a_notebook_cannot_do_is_refused_before_a_kernel_starts(given, word, refused):
    with refused(word):
        notebooks.cells("accuracy", given)


WORDS = st.sampled_from(
    ["vgg11", "conv_s", "bit_flips", "chip_map:/dev/zero", "chip_map:/", "digits", "smoke", "eopm", "1e999", "nan", "-1", "0", "1", "0.01",
     "9" * 400, "true", "none", "[", "]", ",", "[[1]]", "'", "{}", "\0", "\n", "0x10", "1_0", "100000000", "é"]
)  # fmt: skip
VALUE = WORDS | st.integers(-3, 20) | st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=8)


@settings(max_examples=50)
@given(data=st.data())
def test_any_parameters_give_cells_or_one_line(data):
    name = data.draw(st.sampled_from(notebooks.names()))
    values = VALUE | st.lists(VALUE, max_size=3) | st.lists(WORDS, max_size=3).map(",".join)
    given = data.draw(st.dictionaries(st.sampled_from([*notebooks.parameters(name), "rate"]), values, min_size=1, max_size=3))
    try:
        assert all(isinstance(cell, Cell) for cell in notebooks.cells(name, given))
    except UserError as refusal:
        assert "\n" not in str(refusal) and len(str(refusal)) < 1000


def test_texts_of_the_command_line_become_values_of_the_annotated_types(refused):
    for text, layers in (("[[1, 2], []]", [[1, 2], []]), ("[]", []), ("[[3]]", [[3]])):
        assert notebooks.strict("base_recipe", {"fine_tuned": text}) == {"fine_tuned": layers}
    for text in ("1", "1, 2", "[1, 2]", "[[1.5]]", "1-4"):
        with refused("fine_tuned"):
            notebooks.strict("base_recipe", {"fine_tuned": text})
    given = {"rates": "0.02, 0.01", "patterns": "3", "measure": "false", "base_models": "vgg11", "profile": "smoke"}
    assert notebooks.strict("accuracy", given) == {
        "rates": [0.02, 0.01], "patterns": 3, "measure": False, "base_models": ["vgg11"], "profile": "smoke",
    }  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder that the notebooks share, as in a study: what one has trained and measured the next one finds."""
    return tmp_path_factory.mktemp("study")


@pytest.mark.parametrize("name", [name for name in notebooks.names() if "smoke" in notebooks.sets(name)])
def test_a_notebook_runs_with_other_parameters(name, study, workshop, monkeypatch, without_compiler):
    """Every cell measured, every table and picture made; on trainings of a few steps."""
    own_folders(monkeypatch, study)
    monkeypatch.setitem(recipes._BY_PROFILE, "smoke", small())
    defaults = notebooks.parameters(name)
    given = {key: value for key, value in OTHER.items() if key in defaults}
    namespace, store = notebooks.inline(name, given, workshop / "shown"), Store("smoke")
    cells = notebooks.cells(name, given)
    assert cells and all(store.has(cell) for cell in cells) and len(namespace["rows"])
    assert list((workshop / "shown").glob("*.csv"))


def test_plain_papermill_is_guarded_too(workshop, monkeypatch):
    """What is refused where cells are built is refused in the kernel, and nothing is stored."""
    import papermill

    plain = workshop / "accuracy.ipynb"
    jupytext.write(jupytext.read(notebooks.source("accuracy")), plain)
    with pytest.raises(papermill.PapermillExecutionError, match="patterns"):
        papermill.execute_notebook(
            plain, workshop / "out.ipynb", {"patterns": -1}, kernel_name="python3", progress_bar=False, log_output=False
        )
    assert not results().exists()


@pytest.fixture
def scratch(workshop, monkeypatch):
    """A notebook of one cell, which is given as text."""
    monkeypatch.setattr(notebooks, "SOURCES", workshop)
    (workshop / "parameters.yml").write_text("scratch:\n  smoke: {}\n")
    return lambda text: (workshop / "scratch.py").write_text(f"# %%\n{text}\n")


@pytest.mark.parametrize("text, word", [("import os; os.kill(os.getpid(), 9)", "died"), ("1 / 0", "ZeroDivisionError")])
def test_a_kernel_that_dies_and_a_cell_that_fails_are_told_in_one_line(text, word, scratch, workshop, refused, capfd):
    scratch(text)
    with refused(f"scratch.*{word}"):
        notebooks.execute("scratch", workshop / "out.ipynb", {}, workshop / "shown")
    gc.collect()  # tasks that are left behind tell of it when they go
    assert "Traceback" not in capfd.readouterr().err or word != "died"


def test_a_run_leaves_its_notebook_and_tables_in_build_and_no_table_of_an_earlier_one(workshop, monkeypatch, capsys):
    made, stale = [], workshop / "_build" / "runs" / "accuracy" / "old.csv"
    stale.parent.mkdir(parents=True)
    stale.touch()
    monkeypatch.setattr(cli, "ROOT", workshop)
    monkeypatch.setattr(notebooks, "execute", lambda *given: made.append(given))
    assert cli.main(["run", "accuracy", "-p", "patterns", "2", "--profile", "smoke"]) == 0 and not stale.exists()
    given = notebooks.sets("accuracy")["smoke"] | {"patterns": 2, "profile": "smoke"}
    assert made == [("accuracy", stale.parent.with_suffix(".ipynb"), given, stale.parent)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_one_line_and_leaves_nothing(number, scratch, workshop, monkeypatch, capfd):
    """The kernel goes with it, and so does what lay in the folder for temporary files."""
    (workshop / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(workshop / "tmp"))
    scratch(f"import os, signal, time; os.kill({os.getpid()}, {int(number)}); time.sleep(60)")
    usual = signal.signal(number, signal.default_int_handler)  # a shell's background job is born ignoring some
    try:
        assert cli.main(["run", "scratch", "--output", str(workshop / "out.ipynb")]) == 128 + number
    finally:
        signal.signal(number, usual)
    assert capfd.readouterr().err.splitlines()[-1].startswith("nflib: stopped") and not list((workshop / "tmp").iterdir())


@pytest.mark.parametrize("reader, status", [("nobody", 0), ("a full disk", 2)])
def test_what_cannot_be_printed_ends_in_a_line_at_most(reader, status, workshop, monkeypatch, capfd):
    """`nflib status | head -1`, and into a file on a full disk."""
    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(notebooks, "names", lambda: ["error_models"])
    with open(write if status == 0 else "/dev/full", "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        assert cli.main(["status", "--profile", "smoke"]) == status
    assert capfd.readouterr().err.count("\n") == (status == 2)


@pytest.mark.parametrize(
    "words, word",
    [
        (["run", "acuracy"], "accuracy"),
        (["run", "accuracy", "-p", "patterns"], "expected 2"),
        (["run", "accuracy", "-p", "rates", "9"], "9"),
        (["run", "accuracy", "-p", "rates", "0.1", "-p", "rates", "0.2"], "twice"),
        (["run", "/etc/passwd"], "notebook"),
        (["run", "accuracy", "--output", "x.txt"], "ipynb"),
        (["sweep", "accuracy", "--only", "colour=red"], "colour"),
        (["sweep", "nothing"], "notebook"),
        (["sweep", "--budget", "soon"], "time"),
        (["sweep", "--workers", "10000000"], "workers"),
        (["sweep", "--profile", "smok"], "smoke"),
        (["sweep", "--device", "tpu"], "tpu"),
        (["status", "--profile", "x"], "profile"),
        (["dance"], "dance"),
    ],
)
def test_a_wrong_word_is_answered_in_one_line_and_a_status(words, word, workshop, capsys):
    try:
        status = cli.main(words)
    except SystemExit as left:
        status = left.code
    told = capsys.readouterr()
    assert status == 2 and word in told.err and told.err.count("\n") == 1 and not results().exists()


def test_help_comes_without_torch():
    code = "import sys; from nflib import cli; cli.parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_status_counts_what_is_measured(workshop, monkeypatch, capsys):
    assert cli.main(["status", "--profile", "smoke"]) == 0
    count = len(notebooks.cells_of("smoke", "accuracy"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("accuracy")]
    assert line.split()[1:3] == ["0", str(count)] and runner.pending(Store("smoke"), notebooks.cells_of("smoke", "accuracy"))
