"""Notebooks: strict parameters, short cells, and a run from nothing with other parameters than the defaults."""

import ast
import json

import jupytext
import pytest

from nflib import cli, notebooks, study
from nflib.names import UserError
from nflib.store import results


@pytest.mark.parametrize("name", notebooks.names())
def test_a_notebook_has_one_parameters_cell_and_little_code(name):
    cells = jupytext.read(notebooks.source(name)).cells
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1
    assert all(len(cell.source.splitlines()) <= 20 for cell in cells if cell.cell_type == "code")
    for node in ast.walk(ast.parse("\n".join(c.source for c in cells if c.cell_type == "code"))):
        assert not isinstance(node, ast.FunctionDef) or node.end_lineno - node.lineno < 10
    assert cells[0].source.startswith("# ")


def test_every_page_is_a_notebook_with_parameters_that_it_has():
    for name, given in notebooks.PAGES.values():
        assert notebooks.strict(name, given) == given


def test_a_page_shows_its_parameters_once_and_no_line_that_only_shows_something(tmp_path):
    def code(source: str, *tags: str) -> dict:
        return {"cell_type": "code", "metadata": {"tags": list(tags), "papermill": {"duration": 3}}, "source": source, "outputs": [1]}

    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Shift\n", "Text"]},
        code("rate: float = 0.01\nlaw: str = 'a'", "parameters", "hide-input"),
        code('# Parameters\nrate = 0.02\n', "injected-parameters"),
        code("rows = frame(records)\nsummary(rows)", "hide-input"),
        code("page.table(rows)", "hide-input"),
        code("found = page.table(rows)", "hide-input"),
    ]  # fmt: skip
    path = tmp_path / "shift_smoke.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"papermill": {}}}))
    notebooks._tidy(path, full_size="shift")
    first, *rest = json.loads(path.read_text())["cells"]
    assert first["source"].startswith("# Shift, at smoke scale\n\n:::{note}\nThis page is [Shift](shift.ipynb) at **smoke scale**") and first["source"].endswith("Text")
    assert [cell["source"] for cell in rest] == ["rate: float = 0.01\nlaw: str = 'a'\n\n# on this page\nrate = 0.02\n", *(cell["source"] for cell in cells[3:])]
    assert [cell["metadata"]["tags"][-1] for cell in rest] == ["hide-input", "hide-input", "remove-input", "hide-input"]
    assert "duration" not in path.read_text() and all(cell["outputs"] == [1] for cell in rest)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": "0.01"}, "did you mean 'rates'"),
        ({"rates": "2"}, r"bit-error rate is 2\.0"),
        ({"rates": "0.01,-0.5"}, r"bit-error rate is -0\.5"),
        ({"rates": "high"}, "'rates'.*like"),
        ({"patterns": "ten"}, "'patterns' is 'ten'"),
        ({"patterns": "0"}, "at least 1"),
        ({"patterns": "2.5"}, "'patterns' is '2.5'"),
        ({"measure": "perhaps"}, "'measure' is 'perhaps'"),
        ({"base_models": "resnet81"}, "did you mean 'resnet18'"),
        ({"generators": "conv_x"}, "did you mean 'conv_s'|did you mean 'conv_l'"),
        ({"error_models": "bitflips"}, "did you mean 'bit_flips'"),
        ({"datasets": "cifar11"}, "did you mean 'cifar10"),
        ({"profile": "papre"}, "did you mean 'paper'"),
        ({"device": "gpu"}, "allowed: auto, cpu, cuda"),
        ({"base_recipe": "modem"}, "did you mean 'modern'"),
        ({"error_models": "chip_map:/nowhere.npz"}, "chip map '/nowhere.npz' cannot be read"),
        ({"error_models": "[]"}, "no error model given"),
        ({"rates": "[]"}, "no bit-error rate given"),
    ],
)
def test_bad_parameters_are_refused_in_one_line_before_anything_runs(given, message, capsys, monkeypatch):
    monkeypatch.setattr(study, "run", lambda *a, **k: pytest.fail("work was begun"))
    words = [word for key, value in given.items() for word in ("-p", key, value)]
    assert cli.main(["run", "accuracy", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("nflib: ")
    with pytest.raises(UserError, match=message):
        notebooks.strict("accuracy", given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accuracy", "-p", "patterns", "2", "-p", "patterns", "3"], "parameter 'patterns' is given twice, as '2' and '3'"),
        (["accuracy", "--profile", "paper", "-p", "profile", "smoke"], "parameter 'profile' is given twice"),
        (["/elsewhere/accuracy.py"], "/elsewhere/accuracy.py is no notebook of this study"),
        (["accuracy", "--output", "page.html"], "output page.html must be a file that ends in .ipynb"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused_in_one_line(words, message, capsys):
    assert cli.main(["run", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tradeoff", "-p", "profile", "paper"], "-p dataset cifar10"),
        (["accuracy", "--profile", "paper"], "-p datasets cifar10"),
        (["tradeoff", "-p", "profile", "paper", "-p", "dataset", "digits"], ""),
        (["tradeoff"], ""),
        (["tradeoff", "-p", "profile", "paper", "-p", "measure", "False"], ""),  # it shows the records that there are
        (["questions", "-p", "profile", "paper"], ""),
    ],
)
def test_who_asks_for_full_size_is_told_that_the_data_set_is_the_small_one(words, said, capsys, monkeypatch):
    monkeypatch.setattr(notebooks, "execute", lambda *given: None)
    assert cli.main(["run", *words]) == 0
    error = capsys.readouterr().err
    assert error.count("\n") == bool(said) and said in error


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("tradeoff", {"safe_ber": "0.01"}, "safe_ber is 0.01; it must be above 0 and below 0.01"),
        ("energy", {"safe_ber": "0"}, "safe_ber is 0"),
        ("accuracy", {"base_recipe": "awp"}, "unknown base recipe 'awp'; allowed: release, modern"),
    ],
)
def test_what_a_page_could_not_show_is_refused(name, given, message):
    with pytest.raises(UserError, match=message):
        notebooks.strict(name, given)


@pytest.mark.parametrize("text", ["vgg11,resnet18", "vgg11, resnet18", "[vgg11, resnet18]", "['vgg11', 'resnet18']"])
def test_a_list_may_be_spelt_in_several_ways(text):
    assert notebooks.strict("accuracy", {"base_models": text}) == {"base_models": ["vgg11", "resnet18"]}


def test_an_image_size_that_is_not_counted_is_refused_in_one_line(capsys):
    assert cli.main(["run", "energy", "-p", "image_size", "33"]) == 2
    assert capsys.readouterr().err == "nflib: unknown image size 33; allowed: 32, 224\n"


def test_texts_become_values_of_the_parameters_type():
    given = {"rates": "0.02", "base_models": "vgg11,resnet18", "measure": "false", "patterns": "3", "generators": "[]"}
    wanted = {"rates": [0.02], "base_models": ["vgg11", "resnet18"], "measure": False, "patterns": 3, "generators": []}
    assert notebooks.strict("accuracy", given) == wanted


def test_the_accuracy_notebook_runs_from_nothing_with_other_parameters(workshop, tmp_path, monkeypatch):
    given = {"base_models": "vgg11", "generators": "conv_s", "error_models": "bit_flips", "rates": "0.02", "patterns": "3"}
    output = notebooks.execute("accuracy", tmp_path / "out.ipynb", given)
    records = list((results() / "records" / "smoke" / "accuracy").glob("*.json"))
    cells = [json.loads(path.read_text())["cell"] for path in records]
    assert {cell["rate"] for cell in cells} == {0.02} and {cell["patterns"] for cell in cells} == {3}
    assert sorted(str(cell["generator"] and cell["generator"]["name"]) for cell in cells) == ["None", "conv_s"]
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]])
    assert "BitFlips" in shown and "ConvS" in shown and "recovery from" in shown and "brings accuracy back" in shown


def test_the_accuracy_notebook_runs_without_generators_and_by_the_other_recipe(workshop, tmp_path):
    given = {"base_models": "vgg16", "generators": "[]", "base_recipe": "modern", "patterns": "2", "rates": "0.03", "error_models": "release_map,stuck_at"}
    output = notebooks.execute("accuracy", tmp_path / "out.ipynb", given)
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]])
    assert "VGG16" in shown and "StuckAt" in shown and "at 3 % bit-error rate" in shown and "There is nothing to conclude yet" in shown


@pytest.mark.parametrize("name", ["index", "questions", "performance"])
def test_a_notebook_that_only_shows_runs_on_no_records(name, workshop, tmp_path, monkeypatch):
    monkeypatch.setenv("NFLIB_RESULTS", str(results()))
    given = {"profile": "smoke"} if "profile" in notebooks.parameters(name) else {}
    cells = json.loads(notebooks.execute(name, tmp_path / "out.ipynb", given).read_text())["cells"]
    assert not [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "error"]
