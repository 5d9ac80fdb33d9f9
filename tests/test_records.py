"""A record keeps what was measured whole or not at all, and says where it comes from."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from examples import CELL, METRICS, PROVENANCE
from nflib.names import UserError
from nflib.study import records
from nflib.study.cells import cell_of
from nflib.study.records import Store


@pytest.fixture
def store(workshop) -> Store:
    return Store("smoke")


@pytest.fixture
def stored(store) -> Path:
    return store.write(CELL, METRICS, PROVENANCE)


def test_a_record_is_read_as_it_was_written(store):
    assert not store.has(CELL)
    path = store.write(CELL, METRICS, PROVENANCE)
    assert path == store.path(CELL) and path.name == f"{CELL.digest}.json" and path.parent.name == "accuracy"
    record = store.read(path)
    assert record["metrics"] == METRICS and record["provenance"] == PROVENANCE and cell_of(record["cell"]) == CELL
    assert store.records() == store.records("accuracy") == [record] and store.records("tsne") == []


def test_equal_records_are_equal_bytes(stored, tmp_path):
    turned = [dict(reversed(value.items())) for value in (METRICS, PROVENANCE)]
    other = Store("smoke", tmp_path / "elsewhere").write(CELL, *turned)
    assert other.read_bytes() == stored.read_bytes() and stored.read_bytes().endswith(b"}\n")


EDITS = {
    "another cell": lambda body: body["cell"].update(rate=0.02),
    "another kind": lambda body: body["cell"].update(kind="tsne"),
    "a default said twice": lambda body: body["cell"].update(images=0),
    "a pattern lost": lambda body: body["metrics"]["perturbed"].pop(),
    "an accuracy above 100": lambda body: body["metrics"].update(clean=100.5),
    "an accuracy that no count of images gives": lambda body: body["metrics"].update(clean=91.2),
    "an accuracy in words": lambda body: body["metrics"].update(clean="high"),
    "no provenance": lambda body: body.pop("provenance"),
    "no commit": lambda body: body["provenance"].pop("commit"),
    "an attachment that is not there": lambda body: body.update(attachment="0" * 64),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_record_that_cannot_be_right_is_refused_whatever_its_checksum(edit, store, stored, refused, capsys):
    body = json.loads(stored.read_text())
    EDITS[edit](body)
    stored.write_text(json.dumps({**body, "sha256": records.checksum(body)}))
    with refused("damaged"):
        store.read(stored)
    assert store.records() == [] and str(stored) in capsys.readouterr().err  # named, and the rest goes on


@pytest.mark.parametrize("content", ["", "[]", "null", "7", '"text"', "{}", '{"sha256": 1}', "{" * 50, "[" * 50000])
def test_what_is_no_record_is_refused(content, store, stored, refused):
    stored.write_text(content)
    with refused("damaged"):
        store.read(stored)


def test_a_record_in_another_s_place_and_one_that_is_not_there_are_refused(store, stored, refused):
    other = stored.with_name("0" * 16 + ".json")
    stored.rename(other)
    with refused("belongs"):
        store.read(other)
    with refused("cannot be read"):
        store.read(stored)


def test_nothing_is_overwritten(store, stored, refused):
    before = stored.read_bytes()
    with refused("there already"):
        store.write(CELL, METRICS | {"clean": 1.0}, PROVENANCE)
    assert stored.read_bytes() == before and list(stored.parent.iterdir()) == [stored]


@pytest.mark.parametrize(
    "metrics",
    [{"clean": float("nan")}, {"clean": torch.ones(1)}, {"clean": 91.2}, {"perturbed": [50.0]}, {"perturbed": [101.0] * 10}],
)
def test_what_the_reader_would_refuse_is_never_written(metrics, store, refused):
    with refused("no record"):
        store.write(CELL, METRICS | metrics, PROVENANCE)
    assert not store.has(CELL) and not list(store.root.rglob("*.*"))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """The package as a copy without a repository of its own, inside another repository."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", tmp_path, *name, "commit", "-q", "--allow-empty", "-m", "another"], check=True)
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(records, "ROOT", tmp_path / "copy")
    records._code.cache_clear()
    yield tmp_path
    records._code.cache_clear()


def test_the_commit_of_another_repository_is_never_given(elsewhere, monkeypatch):
    assert records._code() | {"sources": ""} == {"commit": "unknown", "dirty": None, "sources": ""}
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    records._code.cache_clear()
    assert records._code()["commit"] == "unknown"
    monkeypatch.setenv("NFLIB_COMMIT", "a" * 40)
    records._code.cache_clear()
    code = records._code()
    assert code["commit"] == "a" * 40 and code["dirty"] is None and len(code["sources"]) == 16
