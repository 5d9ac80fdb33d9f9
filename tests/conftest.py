"""Shared by all tests: examples drawn the same way each time, refusals in one line, a workshop away from the checkout."""

import os
import tempfile
from contextlib import contextmanager

import pytest
import torch

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "hypothesis"))
from hypothesis import settings  # noqa: E402  (it reads the folder's name when it is imported)

from nflib import data, models, training
from nflib.names import UserError
from nflib.quantize import Quantized
from nflib.study import measures
from nflib.study import trained as stored

settings.register_profile("study", deadline=None, derandomize=True, database=None)
settings.load_profile("study")


@pytest.fixture
def refused():
    """`with refused("words"):` expects a UserError of one line in which the regular expression is found."""

    @contextmanager
    def expect(words: str):
        with pytest.raises(UserError, match=words) as refusal:
            yield
        assert "\n" not in str(refusal.value)

    return expect


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """Empty folders for data, results and checkpoints; the data sets that are kept in memory are forgotten."""
    for name in ("data", "results", "checkpoints"):
        monkeypatch.setenv(f"NFLIB_{name.upper()}", str(tmp_path / name))
    stored.dataset_on.cache_clear()
    yield tmp_path
    stored.dataset_on.cache_clear()


@pytest.fixture
def fp32(monkeypatch):
    monkeypatch.setattr(training, "precision", lambda device: "fp32")


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def trained(digits) -> Quantized:
    """A narrow VGG11 that knows the digits."""
    model = models.build("vgg11", width=0.125)
    recipe = training.BaseRecipe("modern", 4, 64, 0.1, weight_decay=5e-4, schedule="one_cycle")
    facts = training.train_base(model, digits.train, "crop", recipe)
    assert facts["losses"][-1] < 0.5 * facts["losses"][0]
    return Quantized(model.to(memory_format=torch.channels_last))


@pytest.fixture
def without_compiler(monkeypatch):
    """No C++ compiler, and latencies take the fewest rounds, however fast the machine is."""

    def refuse(*words, **options):
        raise RuntimeError("no C++ compiler\nbut many more lines")

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr(measures, "MODE_SECONDS", 0.0)
