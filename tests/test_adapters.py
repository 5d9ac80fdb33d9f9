"""Adapters see what they should, get the textbook gradient, and leave the base model as it was."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from examples import same, seeded, state
from nflib import adapters, energy, eopm, generators, models
from nflib.adapters import Adapted
from nflib.eopm import GeneratorRecipe
from nflib.faults import BitFlips, perturbed
from nflib.quantize import Quantized
from nflib.study import recipes, runner

PLACES = ["block 1", "block 2", "beside"]
ERRORS = BitFlips(0.02)


def images(count: int = 6) -> torch.Tensor:
    return 2 * torch.rand(count, 3, 32, 32, generator=seeded(), dtype=torch.double) - 1


def parts(place: str, name: str = "vgg11") -> tuple[Quantized, nn.Module]:
    base = Quantized(models.build(name, width=0.125).double())
    return base, adapters.build("conv_s", place, base.model, 0.25).double()


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "preact_resnet18", "cct"])
@pytest.mark.parametrize("place, side", [("block 1", 16), ("block 2", 8)])
def test_an_adapter_within_the_model_sees_the_first_maps_of_their_size(name, place, side):
    base, adapter = parts(place, name)
    whole, seen = Adapted(base.model, adapter, place), []
    adapter.register_forward_hook(lambda module, given, result: seen.append((given[0], result)))
    whole(images())
    before, after = seen[0]
    assert before.shape == after.shape and before.shape[-1] == side
    assert [m for part in (whole.front, whole.rest) for m in part] == list(base.model)
    assert whole.front[:-1](images()).shape[-1] == 2 * side


@pytest.mark.parametrize("place", PLACES)
def test_the_gradient_is_the_textbook_s_and_the_models_are_untouched(place):
    base, one = parts(place)
    other, labels = copy.deepcopy(one), torch.arange(6)
    before, drawn = copy.deepcopy(base.model).state_dict(), [ERRORS.draw(base.sizes, k) for k in range(3)]

    def logits(brightness: float) -> torch.Tensor:  # by hand
        front = base.model if place == "beside" else base.model[: 4 * int(place[-1])]  # conv, norm, ReLU, pool
        inner = front(images())
        return base.model[len(front) :](brightness * inner + other(images() if place == "beside" else inner))

    whole = Quantized(copy.deepcopy(base.model))
    whole.model = Adapted(whole.model, one, place)
    whole.model.brightness = 0.4
    clean, hit = eopm.eopm_gradient(None, [whole], images(), labels, lambda base, k, _: drawn[k], 3, 5.0, brightness=0.4)
    losses = [F.cross_entropy(logits(0.4), labels)]
    losses[0].backward()
    for pattern in drawn:
        with perturbed(base, pattern):
            losses.append(5 / 3 * F.cross_entropy(logits(0.4), labels))
            losses[-1].backward()
    assert (clean + 5 * hit).item() == pytest.approx(sum(losses).item())
    for mine, textbook in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine.grad, textbook.grad, rtol=1e-5, atol=1e-8)
    assert same(base.model.state_dict(), before) and all(p.grad is None for p in base.model.parameters())


@pytest.mark.parametrize("place", PLACES)
def test_training_moves_the_adapter_alone_and_ends_at_full_brightness(place, digits):
    base, adapter = Quantized(models.build("vgg11", width=0.0625)), None
    before, adapter = copy.deepcopy(base.model.state_dict()), adapters.build("conv_s", place, base.model, 0.25)
    start, seen = state(adapter), []
    adapter.register_forward_hook(lambda *_: seen.append(base.model.brightness))
    recipe = GeneratorRecipe("conv_s", models_per_step=2, steps=4, batch=16, fade_in=0.75, width=0.25, place=place)
    eopm.train_generator(adapter, [base], digits.train.first(40), "crop", recipe, ERRORS)
    assert base.model.adapter is adapter and base.model.brightness == 1
    assert seen == [recipe.brightness(step) for step in range(4) for _ in range(3)] and len(set(seen)) > 1  # clean, two perturbed
    assert not same(start, state(adapter))
    model = base.model.front if place == "beside" else nn.Sequential(*base.model.front, *base.model.rest)
    assert same(model.state_dict(), before)


def test_beside_a_model_stands_an_encoder_and_not_every_generator_has_one(refused):
    base, adapter = parts("beside")
    assert same(adapter.state_dict(), models.build("conv_s_encoder", width=0.25).double().state_dict())
    with refused("'deconv_s'.*conv_s"):
        adapters.build("deconv_s", "beside", base.model)


def test_what_is_added_is_counted_where_it_stands():
    """Beside, the encoder; within, convolutions over a quarter of the pixels: ConvS's, but that maps have 16 channels, not 3."""
    base = recipes.base("desk", "cifar10", "vgg11")
    front, within, beside = (
        runner.macs(base, recipes.generator("desk", "conv_s", "eopm", "bit_flips", 0.01, place=place))
        for place in ("", "block 1", "beside")
    )
    assert beside == energy.macs(models.build("conv_s_encoder", width=0.25))
    c, pixels = 8, 32 * 32
    grown = {3: 0, 16: 0}
    for maps in grown:  # the first convolution, the last of a block at half of the side, the last of all
        grown[maps] = 9 * (maps * c * pixels + c * maps * pixels // 4 + maps * maps * pixels)
    assert 4 * within == front + grown[16] - grown[3]


def test_variants_differ_from_conv_l_in_what_their_names_say():
    def facts(name: str) -> tuple:
        built = generators.build(name).modules()
        kinds = [type(layer) for layer in built]
        convolutions = [m.out_channels for m in generators.build(name).modules() if isinstance(m, nn.Conv2d)]
        return len(convolutions), convolutions[0], {nn.ReLU, nn.LeakyReLU} & set(kinds)

    usual = {nn.ReLU}
    assert {name.removeprefix("conv_l"): facts(name) for name in ("conv_l", *generators.VARIANTS)} == {
        "": (13, 32, usual), "_narrow": (13, 16, usual), "_wide": (13, 64, usual), "_shallow": (8, 32, usual),
        "_deep": (18, 32, usual), "_leaky": (13, 32, {nn.LeakyReLU}),
    }  # fmt: skip
