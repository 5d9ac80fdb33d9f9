"""Published models give the accuracies of the checkpoints that they were made of, and need no training."""

import re
import shutil

import pytest
import torch

import nflib
from examples import TINY
from nflib.study import notebooks, recipes, runner, trained, weights
from nflib.study.records import Store
from nflib.study.runner import run


def accuracies() -> list:
    store = Store("smoke")
    return [[store.read(store.path(cell))["metrics"][name] for name in ("clean", "perturbed")] for cell in TINY]


def test_cells_are_measured_again_from_published_weights_to_the_digit(workshop, monkeypatch):
    assert run(TINY, "smoke", "cpu", quiet=True) == 0
    first, made = accuracies(), trained.publish(TINY)
    assert len(made) == 2 and trained.publish(TINY) == [] and sum(path.stat().st_size for path in made) < 120_000
    shutil.rmtree(workshop / "checkpoints")
    shutil.rmtree(workshop / "results" / "records")
    monkeypatch.setattr(trained, "train_base", None)  # calling it would fail
    assert run(TINY, "smoke", "cpu", quiet=True) == 0 and accuracies() == first
    assert not list((workshop / "checkpoints").glob("*.safetensors"))
    assert {card["key"] for card in weights.cards()} == {path.stem for path in made}


def test_load_gives_a_published_model_by_its_name(workshop, monkeypatch, refused, capsys):
    monkeypatch.setattr(recipes, "base", lambda profile, dataset, model, recipe: TINY[0].base)
    monkeypatch.setattr(recipes, "generator", lambda *given: TINY[1].generator)
    with refused("not published"):
        nflib.load("smoke/digits/vgg11")
    assert run(TINY, "smoke", "cpu", quiet=True) == 0 and trained.publish(TINY)
    base, generator = nflib.load("smoke/digits/vgg11"), nflib.load("smoke/digits/vgg11/conv_s")
    images = torch.zeros(2, 3, 32, 32)
    assert base(images).shape == (2, 10) and generator(images).shape == images.shape
    for cell, named in zip(TINY, (base, generator)):
        assert torch.equal(nflib.load(f"smoke/{cell.digest}")(images), named(images))
    assert runner.macs(TINY[0].base) > 0
    (code,) = re.findall(r"^# ```python\n(.*?)^# ```$", notebooks.source("published").read_text("utf-8"), re.M | re.S)
    code = re.sub("^# ?", "", code, flags=re.M).replace("desk/cifar10", "smoke/digits")
    exec(code.replace("cifar10", "digits").replace("conv_l", "conv_s"), {})
    assert re.fullmatch(r"\d+\.\d % .*\n", capsys.readouterr().out)
    page = notebooks.inline("published", {"profile": "smoke"}, workshop / "shown")
    calls = {f"nflib.load('smoke/digits/vgg11{front}', recipe='modern'" for front in ("", "/conv_s")}
    assert {call.partition(", training=")[0].rstrip(")") for call in page["rows"]["load"]} == calls


@pytest.mark.parametrize("name, word", [("smok/digits/vgg11", "smoke"), ("smoke/digits", "base model"), ("", "profile"), ("smoke/digits/vgg11/conv_s/x", "GENERATOR")])
def test_a_name_that_is_none_is_refused(name, word, refused):
    with refused(word):
        nflib.load(name)
