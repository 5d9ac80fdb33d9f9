"""Whatever happens to a stored file, it is refused in one line that names it, or reads as it was; never taken for another's."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from examples import METRICS, PROVENANCE, TINY, changed, damaged, own_folders
from nflib import models
from nflib.faults import ChipMap
from nflib.names import UserError
from nflib.report import book
from nflib.study import measures, trained, weights
from nflib.study.cells import canonical, digest_of
from nflib.study.records import MANIFEST, Store
from nflib.study.runner import run
from nflib.training import OutOfTime, Resumable

CPU, CELL = torch.device("cpu"), changed(TINY[0], epochs=0)
KEY, PATTERNS = f"base-{digest_of(CELL.base)}", dataclasses.replace(CELL, patterns=9)


def values(model: nn.Module) -> str:
    return digest_of({name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in model.state_dict().items()})


def read_chip(path: Path) -> list:
    return [cells.tolist() for cells in ChipMap(path=str(path)).load()]


def read_checkpoint(path: Path) -> tuple:
    model = models.build("vgg11", 10, 32, CELL.base.width)
    return trained._read(path, model), values(model)


def read_published(path: Path) -> tuple:
    model, card, digest = weights.read(path.stem, lambda card: models.build("vgg11", card["classes"], 32, CELL.base.width))
    return values(model), card, digest, weights.card(path)


def read_state(path: Path) -> tuple:
    model = nn.Linear(40, 3)
    return Resumable(path, model=model).load(), values(model)


def read_patterns(path: Path, cell=PATTERNS, accuracy: float = 1.0, deadline: float | None = None) -> list[float]:
    """Accuracies of nine patterns; the first five are kept at `path`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFLIB_CHECKPOINTS", str(path.parent))
        assert measures.chips_path(cell) == path
        return measures._by_chip(cell, lambda seeds, tick: ([accuracy] * len(seeds), [0.0] * len(seeds)), {}, deadline)[0]


def read_record(path: Path) -> str:
    return canonical(Store("smoke", path.parents[3]).read(path))  # damaged, it may have other blanks


READERS = {"chip.npz": read_chip, f"checkpoints/{KEY}.safetensors": read_checkpoint, "state.resume.pt": read_state}
READERS |= {f"results/records/smoke/accuracy/{CELL.digest}.json": read_record}
READERS |= {f"results/models/{KEY}.safetensors": read_published, f"{PATTERNS.digest}.chips.json": read_patterns}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with one file of each kind, whole."""
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        own_folders(patch, folder)
        trained.base_model(CELL.base, CPU)
        trained.publish([CELL])
        Store("smoke").write(CELL, METRICS | {"perturbed": [50.0, 1.25], "changed_bits": [0.01] * 2}, PROVENANCE)
        (folder / "results" / MANIFEST).write_text(book.manifest())
        cells = np.random.default_rng(0).random((6, 20)) < 0.3
        np.savez(folder / "chip.npz", stuck_at_0=cells, stuck_at_1=~cells)
        Resumable(folder / "state.resume.pt", seconds=-1, model=nn.Linear(40, 3)).save(lambda: {"step": 3, "losses": [0.5]})
        with pytest.raises(OutOfTime):
            read_patterns(folder / f"{PATTERNS.digest}.chips.json", accuracy=2.0, deadline=0.0)
        yield folder
    trained.dataset_on.cache_clear()


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_file_is_refused_in_one_line_and_left_or_reads_as_it_was(name, data, shelf):
    path, read = shelf / name, READERS[name]
    content, whole = path.read_bytes(), read(path)
    path.write_bytes(changed := data.draw(damaged(content)))
    try:
        assert read(path) == whole
    except UserError as refusal:
        assert str(path) in str(refusal) and "\n" not in str(refusal)
    finally:
        assert path.read_bytes() == changed
        path.write_bytes(content)


@settings(max_examples=200)
@given(data=st.data())
def test_any_changed_byte_below_results_is_named(data, shelf):
    """Of the manifest too; what a line of it says of another file may be named instead."""
    path = data.draw(st.sampled_from([*filter(Path.is_file, sorted((shelf / "results").rglob("*")))]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :])
    try:
        with pytest.raises(UserError, match=str(shelf / "results" if path.name == MANIFEST else path)):
            book._check_manifest()
    finally:
        path.write_bytes(content)


def test_a_checkpoint_whose_training_facts_were_edited_is_refused(shelf, refused):
    path = shelf / "checkpoints" / f"{KEY}.safetensors"
    content = path.read_bytes()
    assert content.count(fact := b'\\"epochs\\": 0') == 1
    path.write_bytes(content.replace(fact, fact[:-1] + b"9"))
    with refused(f"{KEY}.*damaged"):
        trained.base_model(CELL.base, CPU)
    path.write_bytes(content)


def test_a_file_in_the_place_of_another_is_not_taken_for_it(shelf, tmp_path, refused):
    for name, place in ((f"checkpoints/{KEY}.safetensors", "base-0.safetensors"), ("state.resume.pt", "other.resume.pt")):
        shutil.copy(shelf / name, tmp_path / place)
        with refused(place):
            READERS[name](tmp_path / place)
        (tmp_path / place).unlink()
        (tmp_path / place).mkdir()
        with refused(f"{place} cannot be read: Is a directory"):
            READERS[name](tmp_path / place)
    published = shelf / "results" / "models"
    shutil.copy(published / f"{KEY}.safetensors", published / "base-0.safetensors")
    with refused("base-0"):
        read_published(published / "base-0.safetensors")
    cell = dataclasses.replace(PATTERNS, rate=0.02)
    shutil.copy(shelf / f"{PATTERNS.digest}.chips.json", tmp_path / f"{cell.digest}.chips.json")
    assert read_patterns(tmp_path / f"{cell.digest}.chips.json", cell) == [1.0] * 9


def test_weights_that_are_not_finite_are_no_model(workshop, monkeypatch, refused):
    """The loss of the last step is finite, and what that step makes of the weights is not: a training that diverged."""
    def train(model, *given, **more) -> dict:
        nn.init.constant_(next(model.parameters()), float("nan"))
        return {"seconds": 1.0, "epochs": 2, "losses": [0.5]}

    monkeypatch.setattr(trained, "train_base", train)
    assert run([CELL], "smoke", "cpu", quiet=True) == 0
    assert "not finite" in Store("smoke").records()[0]["metrics"]["diverged"] and not list((workshop / "checkpoints").iterdir())
    model = models.build("vgg11", 10, 32, CELL.base.width)
    train(model)
    trained._write(workshop / "checkpoints" / f"{KEY}.safetensors", model, {"provenance": {}})
    with refused("not finite"):
        trained.base_model(CELL.base, CPU)
