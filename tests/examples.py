"""Cells, records and measurements that several tests use."""

import dataclasses
import itertools
import multiprocessing.forkserver
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from nflib import data
from nflib.eopm import GeneratorRecipe
from nflib.study import recipes, runner, trained
from nflib.study.cells import Base, Cell
from nflib.study.records import device_name
from nflib.training import BaseRecipe

CELL = Cell(
    Base("digits", "vgg11", BaseRecipe()), GeneratorRecipe(), surrogates=(Base("cifar10", "vgg19", BaseRecipe()),)
)
METRICS = {
    "clean": 91.25,
    "perturbed": [10.0, 40.0, 1.25, 55.5, 66.75, 70.0, 12.5, 13.0, 14.0, 15.0],
    "changed_bits": [0.01] * 10,
    "images": 400,
    "evaluation_seconds": 2.5,
    "base_training": {"seconds": 1.5, "epochs": 300, "losses": [2.3, 0.1]},
    "generator_training": None,
}
PROVENANCE = {"commit": "0" * 40, "dirty": False, "device": "none", "threads": 1}

# Two cells that share a base model; small enough to train within a second.
BASE = Base(
    "digits", "vgg11", BaseRecipe("modern", 2, 256, 0.1, weight_decay=5e-4, schedule="one_cycle"), width=0.0625
)
GENERATOR = GeneratorRecipe(
    "conv_s", models_per_step=1, steps=3, batch=64, momentum=0.1, initial_gain=0.1, width=0.125
)
TINY = (
    Cell(BASE, error_model="bit_flips", patterns=2, images=100),
    Cell(BASE, GENERATOR, patterns=3, images=100),
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the model's tensors by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def own_folders(monkeypatch, folder: Path) -> None:
    """Results and checkpoints go into `folder`."""
    for name in ("results", "checkpoints"):
        monkeypatch.setenv(f"NFLIB_{name.upper()}", str(folder / name))


def environment() -> dict[str, str]:
    """What the variables of nflib are here: for processes that have another environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("NFLIB_")}


def without_gtsrb(monkeypatch) -> None:
    """GTSRB's only source cannot be reached."""

    def unreachable():
        raise OSError("no route to host")

    monkeypatch.setitem(data.SOURCES, "gtsrb", [("torchvision", unreachable)])


def small() -> recipes.Profile:
    """The smoke profile with trainings of a few steps: for what has to run and need not learn."""
    whole = recipes._BY_PROFILE["smoke"]
    bases = {name: dataclasses.replace(recipe, epochs=1) for name, recipe in whole.base_recipes.items()}
    eopm, short = dataclasses.replace(whole.eopm, steps=2), {"distillation_steps": 2}
    return dataclasses.replace(whole, base_recipes=bases, eopm=eopm, distillation=short, teacher={"steps": 2, "batch": 64})


def forkserver() -> multiprocessing.context.ForkServerContext:
    """A context whose processes are forks of one that has imported what they need; they have its environment, not this one's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nflib.study.cluster", "distributed", "pytest", "hypothesis.strategies", "torch._dynamo"])
    multiprocessing.forkserver.ensure_running()
    return context


def fake(monkeypatch, after=lambda cell: None) -> list[Cell]:
    """Replace measuring by something instant; returns the cells measured, in order, as they come."""
    order = []

    def measure(cell, device, deadline=None):
        after(cell)
        order.append(cell)
        metrics = METRICS | {"perturbed": [50.0] * cell.patterns, "changed_bits": [0.01] * cell.patterns}
        return metrics, PROVENANCE | {"device": device_name(device)}, None

    monkeypatch.setattr(runner, "measure", measure)
    return order


def changed(cell: Cell, **base: object) -> Cell:
    """The cell with fields of its base model's recipe changed."""
    recipe = dataclasses.replace(cell.base.recipe, **base)
    return dataclasses.replace(cell, base=dataclasses.replace(cell.base, recipe=recipe))


def own_data(workshop: Path, seed: int) -> None:
    """A data set "mine" of 60 images of noise and three classes."""
    chance = np.random.default_rng(seed)
    images = [chance.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in (60, 12)]
    labels = [np.arange(count, dtype=np.uint8) % 3 for count in (60, 12)]
    (workshop / "data").mkdir(exist_ok=True)
    arrays = {"train_images": images[0], "train_labels": labels[0], "test_images": images[1], "test_labels": labels[1]}
    np.savez(workshop / "data" / "mine.npz", **arrays)
    trained.dataset_on.cache_clear()


def small_cells(workshop: Path, epochs: int = 2) -> list[Cell]:
    """A base model, and it behind a generator, on 60 images: trained and measured in no time, and six patterns and more."""
    own_data(workshop, 0)
    base = dataclasses.replace(BASE, dataset="mine", recipe=dataclasses.replace(BASE.recipe, epochs=epochs, batch=27))
    return [Cell(base, patterns=1), Cell(base, dataclasses.replace(GENERATOR, batch=27), patterns=6)]


CALLS = [(os, "mkdir"), (os, "open"), (os, "fsync"), (os, "chmod"), (os, "replace"), (Path, "write_bytes"), (trained, "save_file")]


def at_call(number: int, happens: Callable[[], None], replace: Callable) -> Iterator[int]:
    """Let something happen at one of the calls that write files, in the middle of what it writes; counts those calls.

    replace(owner, name, function): puts the function in place, as monkeypatch.setattr does.
    """
    calls = itertools.count()

    def disturbed(usual, *given, **more):
        of_a_part = any(str(each).endswith(".part") for each in given[:2])
        if (of_a_part or usual in (os_fsync, os_mkdir)) and next(calls) == number:
            if usual.__name__ == "write_bytes":
                usual(given[0], given[1][: len(given[1]) // 2])
            happens()
        return usual(*given, **more)

    os_fsync, os_mkdir = os.fsync, os.mkdir
    for owner, name in CALLS:
        usual = getattr(owner, name)
        replace(owner, name, lambda *given, usual=usual, **more: disturbed(usual, *given, **more))
    return calls


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """The content with a few bytes changed, lost or more, or cut off."""
    for _ in range(draw(st.integers(1, 3))):
        place, more = draw(st.integers(0, len(content))), draw(st.binary(max_size=4))
        content = content[:place] + more + content[place + draw(st.sampled_from([0, 1, len(more), 100, 10**9])) :]
    return content
