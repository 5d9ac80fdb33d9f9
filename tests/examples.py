"""Cells, records and measurements that several tests use."""

import dataclasses

from nflib.eopm import GeneratorRecipe
from nflib.study import runner
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
