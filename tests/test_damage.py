"""Damage: the statistics of every layer are those of a computation by hand; records are whole; weights come back."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from examples import noise, same, state
from nflib import damage, faults, models
from nflib.eopm import GeneratorRecipe
from nflib.quantize import Quantized
from nflib.study.cells import Base, Cell
from nflib.study.measures import measure
from nflib.study.records import Store
from nflib.study.runner import measure_and_store, work
from nflib.training import BaseRecipe

CPU = torch.device("cpu")
BASE = Base("digits", "vgg11", BaseRecipe(epochs=0), width=0.0625)
CELL = Cell(BASE, kind="damage", error_model="bit_flips", patterns=2, images=30)
ERRORS, SEEDS = faults.BitFlips(0.02), (7, 8)


pytestmark = pytest.mark.usefixtures("fp32")


def tiny() -> Quantized:
    """conv, batch norm, ReLU, pool, linear."""
    torch.manual_seed(0)
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), *head)
    values = {"running_mean": noise(4), "running_var": noise(4, seed=1).square() + 0.5}
    values |= {"weight": torch.tensor([1.0, 0.1, -2.0, 0.5]), "bias": torch.tensor([-5.0, 3.0, 4.5, 0.1])}
    model[1].load_state_dict(values, strict=False)
    return Quantized(model)


def batches(images: torch.Tensor, labels: torch.Tensor, size: int = 4) -> list:
    return list(zip(images.split(size), labels.split(size)))


def test_every_statistic_by_hand():
    base, images, labels = tiny(), noise(10, 3, 6, 6), torch.arange(10) % 3
    found = damage.damage(base, ERRORS, SEEDS, batches(images, labels))
    conv, norm, linear, (name, last) = base.layers["0"], base.model[1], base.layers["5"], base.layers
    head = base.model[2:5]
    f = norm(conv(images))
    logits = linear(head(f))
    sums, accuracy = {key: [] for key in ("noise", "weight", "last")}, []
    for seed in SEEDS:
        pattern = ERRORS.draw(base.sizes, seed)
        with faults.perturbed(base, pattern):
            hit, out = norm(conv(images)), base(images)
        with faults.perturbed(base, {last: pattern[last]}):
            own = linear(head(f))
        before = conv.weight.clone()
        with faults.perturbed(base, {name: pattern[name]}):
            sums["weight"].append((conv.weight - before).square().sum() / before.square().sum())
        sums["noise"].append((hit - f).square().sum())
        sums["last"].append((own - logits).square().sum())
        accuracy.append(100 * (out.argmax(1) == labels).double().mean())
    mean = {key: torch.stack(values).mean().item() for key, values in sums.items()}
    signal = [(value - value.mean(0)).square().sum().item() for value in (f, logits)]
    near = lambda value: pytest.approx(value, rel=1e-4)  # noqa: E731
    assert found["layers"] == [name, last]
    assert found["own_noise"] == near([mean["noise"] / signal[0], mean["last"] / signal[1]])
    assert found["weight_noise"][0] == near(mean["weight"])
    assert found["range_over_rms"][0] == near((conv.weight.abs().max() / conv.weight.square().mean().sqrt()).item())
    assert found["perturbed"] == near([a.item() for a in accuracy])
    assert found["clean"] == near(100 * (logits.argmax(1) == labels).double().mean().item())


def test_without_errors_there_is_no_noise_and_what_cannot_be_known_is_none():
    found = damage.damage(tiny(), faults.BitFlips(0.0), SEEDS, batches(noise(6, 3, 6, 6), torch.arange(6) % 3))
    assert found["own_noise"] == found["weight_noise"] == [0, 0] and found["perturbed"] == 2 * [found["clean"]]
    same = damage.damage(tiny(), ERRORS, SEEDS, batches(noise(1, 3, 6, 6).expand(6, 3, 6, 6), torch.arange(6) % 3))
    assert same["own_noise"][1] is None or same["own_noise"][1] > 1e6  # one image: no signal, or its rounding


def test_after_each_cut_every_pattern_is_measured_and_the_model_stays():
    base, images, labels = tiny(), noise(10, 3, 6, 6), torch.arange(10) % 3
    before = state(base.model)
    rows = damage.after_cuts(base, ERRORS, SEEDS, batches(images, labels))
    assert [(row["cut"], len(row["perturbed"])) for row in rows] == [(cut, 2) for cut in damage.CUTS]
    assert same(before, base.model.state_dict())


def test_batches_do_not_matter():
    images, labels = noise(9, 3, 6, 6), torch.arange(9) % 3
    one, other = (damage.damage(tiny(), ERRORS, SEEDS, batches(images, labels, size)) for size in (9, 2))
    for key, value in one.items():
        assert value == other[key] or value == pytest.approx(other[key], rel=1e-4)


@pytest.mark.parametrize("name", ["vgg11", "resnet50", "preact_resnet18", "cct"])
def test_a_layer_is_looked_at_after_the_batch_norm_that_takes_its_output(name):
    base = Quantized(models.build(name, width=0.0625))
    images = noise(2, 3, 32, 32)
    after, before = damage.followers(base.model, images), state(base.model)
    norms = [after.get(layer) for layer in base.layers.values() if isinstance(after.get(layer), nn.BatchNorm2d)]
    modules = [module for module in base.model.modules() if isinstance(module, nn.BatchNorm2d)]
    unfed = {"preact_resnet18": 8}.get(name, 0)  # they take sums
    assert len(set(norms)) == len(norms) == len(modules) - unfed
    found = damage.damage(base, ERRORS, SEEDS[:1], [(images, torch.tensor([0, 1]))])
    assert len(found["own_noise"]) == len(base.layers) and all(value > 0 for value in found["own_noise"])
    assert same(before, base.model.state_dict())


def test_a_record_is_whole_and_its_cost_is_known(workshop):
    generator = GeneratorRecipe("conv_s", models_per_step=1, steps=2, width=0.125)
    cell, store = dataclasses.replace(CELL, generator=generator), Store("smoke")
    metrics = measure_and_store(cell, store, CPU)
    record = store.read(store.path(cell))
    assert record["metrics"] == json.loads(json.dumps(metrics)) and len(metrics["perturbed"]) == 2
    assert {"base_training", "generator_training", "evaluation_seconds"} <= metrics.keys() and metrics["images"] == 30
    plain = dataclasses.replace(cell, kind="accuracy")
    alone = measure(plain, CPU)[0]
    assert metrics["perturbed"] == alone["perturbed"] and metrics["clean"] == alone["clean"]
    assert [row["cut"] for row in metrics["after_cuts"]] == list(damage.CUTS)
    assert work(cell)["evaluation"] == 5 * work(plain)["evaluation"]  # 15 passes to 3
