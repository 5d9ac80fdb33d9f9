"""Stored numbers of desk scale, measured again from the published weights alone: `pytest -m claims`.

A random sample, drawn anew each time; NFLIB_SAMPLE=all takes all of them, another number that many.
"""

import os
import random

import numpy as np
import pytest

from nflib.study.cells import cell_of, digest_of
from nflib.study.measures import measure
from nflib.study.records import Store, device_name
from nflib.study.trained import arithmetic_of, choose_device, generator_key
from nflib.study.weights import path_of

KINDS = ("accuracy", "validation", "mitigation", "shift", "sensitivity")
TOLERANCE = 1.0  # points, of the mean over chips, on another processor: it rounds sums otherwise


def published(record: dict) -> bool:
    cell = cell_of(record["cell"])
    keys = [f"base-{digest_of(base)}" for base in (cell.base, cell.selector) if base]
    keys += [generator_key(cell)] if cell.generator else []
    own_codes = cell.bits in (0, cell.base.recipe.bits)  # other widths were encoded from float weights, not from 8-bit codes
    return cell.kind in KINDS and own_codes and all(path_of(key).exists() for key in keys)


RECORDS = [record for record in Store("desk").records() if published(record)]
COUNT = os.environ.get("NFLIB_SAMPLE", "5")
SAMPLE = RECORDS if COUNT == "all" else random.sample(RECORDS, min(int(COUNT), len(RECORDS)))


@pytest.mark.claims
@pytest.mark.parametrize("record", SAMPLE, ids=lambda record: cell_of(record["cell"]).digest)
def test_published_weights_give_the_stored_number(record, tmp_path, monkeypatch):
    monkeypatch.setenv("NFLIB_CHECKPOINTS", str(tmp_path))
    cell, device = cell_of(record["cell"]), choose_device("cpu")
    with arithmetic_of("desk"):
        metrics, _, _ = measure(cell, device)
    again, stored = ([found["clean"], *found["perturbed"]] for found in (metrics, record["metrics"]))
    if record["provenance"]["device"] == device_name(device):
        assert again == stored
    else:
        assert abs(again[0] - stored[0]) <= TOLERANCE and abs(np.mean(again[1:]) - np.mean(stored[1:])) <= TOLERANCE
    assert not list(tmp_path.glob("*.safetensors")), "nothing was trained"


@pytest.mark.claims
def test_there_are_numbers_to_measure_again():
    assert len(RECORDS) >= 10
