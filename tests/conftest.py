"""Shared by all tests: examples drawn the same way each time, refusals in one line, a workshop away from the checkout."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "hypothesis"))
from hypothesis import settings  # noqa: E402  (it reads the folder's name when it is imported)

from nflib.names import UserError
from nflib.study import base, trained
from nflib.study.recipes import RECIPES

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
    trained.dataset_on.cache_clear()
    yield tmp_path
    trained.dataset_on.cache_clear()


@pytest.fixture(scope="session")
def vgg11_checkpoints(tmp_path_factory) -> Path:
    """A folder with the smoke profile's VGG11 of both recipes, trained once for all notebooks that measure with it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch, trained.arithmetic_of("smoke"):
        patch.setenv("NFLIB_CHECKPOINTS", str(folder))
        for recipe in RECIPES:
            trained.base_model(base("smoke", "digits", "vgg11", recipe), trained.choose_device("cpu"))
    return folder


@pytest.fixture
def trained_workshop(workshop, vgg11_checkpoints) -> Path:
    """A workshop without records whose VGG11 is trained already; `test_runner` has one that trains from nothing."""
    shutil.copytree(vgg11_checkpoints, workshop / "checkpoints", dirs_exist_ok=True)
    return workshop
