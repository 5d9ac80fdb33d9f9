"""Adversarial error patterns hit the weights and bits that brute force chooses, and change nothing else."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from examples import same, state
from nflib import data, models
from nflib.eopm import adversarial_pattern, ascent_bits
from nflib.faults import BitFlips, changed_bits, perturbed
from nflib.quantize import Quantized


def flip(code: int, bit: int, bits: int) -> int:
    raw = (code % 2**bits) ^ (1 << bit)
    return raw - 2**bits if raw >= 2 ** (bits - 1) else raw


def best_bit(code: int, up: bool, bits: int) -> int:
    """The most significant bit whose flip moves the code the right way, found by trying them all; else the lowest."""
    return 1 << max([bit for bit in range(bits) if (flip(code, bit, bits) > code) == up], default=0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_ascent_bits_are_the_most_significant_that_move_the_code_the_right_way(bits):
    """All codes, both directions; only the code at the end has nowhere to go, and loses its lowest bit."""
    codes = list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    for up, end in ((True, codes[-1]), (False, codes[0])):
        found = ascent_bits(torch.tensor(codes, dtype=torch.int8), torch.full((len(codes),), up), bits).tolist()
        assert found == [best_bit(code, up, bits) for code in codes]
        wrong = [c for c, mask in zip(codes, found) if (flip(c, mask.bit_length() - 1, bits) > c) != up]
        assert wrong == [end]


@pytest.fixture(scope="module", params=[4, 8])
def by_hand(request):
    """A smooth base model of 156 weights in double precision, images, labels, and how the loss changes with a weight:
    found by moving it."""
    torch.manual_seed(0)
    convolution = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2)]
    base = Quantized(nn.Sequential(*convolution, nn.Flatten(), nn.Linear(16, 3)).double(), request.param)
    images, labels, slopes = torch.rand(6, 3, 8, 8).double(), torch.randint(0, 3, (6,)), {}
    with torch.no_grad():
        for name, layer in base.layers.items():
            flat = layer.weight.view(-1)
            for i in range(len(flat)):
                value, losses = flat[i].item(), []
                for moved in (value + 1e-5, value - 1e-5):
                    flat[i] = moved
                    losses.append(F.cross_entropy(base(images), labels).item())
                flat[i] = value
                slopes[name, i] = losses[0] - losses[1]
    return base, images, labels, slopes


@pytest.mark.parametrize("flips", [0, 1, 12, 156])
def test_patterns_flip_the_weights_and_bits_that_brute_force_chooses(flips, by_hand, fp32):
    base, images, labels, slopes = by_hand
    wanted = {name: {} for name in base.layers}
    for name, i in sorted(slopes, key=lambda place: -abs(slopes[place]))[:flips]:
        wanted[name][i] = best_bit(int(base.codes[name][i]), slopes[name, i] > 0, base.bits)
    pattern = adversarial_pattern(base, images, labels, flips)
    assert list(pattern) == list(base.layers)
    for name, faults in pattern.items():
        assert (faults.index.dtype, faults.keep.dtype, faults.toggle.dtype) == (torch.int64, torch.uint8, torch.uint8)
        assert faults.index.tolist() == sorted(wanted[name]) and (faults.keep == 255).all()
        assert dict(zip(faults.index.tolist(), faults.toggle.tolist())) == wanted[name]
    assert changed_bits(base, pattern) == flips


def test_more_flips_than_weights_are_refused(by_hand, refused):
    with refused("flips are 157.*156"):
        adversarial_pattern(*by_hand[:3], 157)


def test_flips_raise_the_loss_more_than_about_twice_as_many_random_ones(trained, digits):
    images, labels, flips = data.to_float(digits.test.images[:128]), digits.test.labels[:128], 50

    @torch.no_grad()
    def loss(pattern) -> float:
        with perturbed(trained, pattern):
            return F.cross_entropy(trained(images), labels).item()

    errors = BitFlips(2 * flips / (8 * sum(trained.sizes.values())))
    random = [loss(errors.draw(trained.sizes, seed)) - loss({}) for seed in range(5)]
    worst = adversarial_pattern(trained, images, labels, flips)
    assert loss(worst) - loss({}) > 5 * max(0, np.mean(random)) and changed_bits(trained, worst) == flips


def test_making_a_pattern_leaves_the_base_model_and_the_images_as_they_were(digits):
    base, labels = Quantized(models.build("vgg11", width=0.0625)), digits.train.labels[:8]
    images = data.to_float(digits.train.images[:8]).requires_grad_()
    weights, codes = state(base.model), copy.deepcopy(base.codes)
    first, second = (adversarial_pattern(base, images, labels, 100) for _ in range(2))
    assert all(torch.equal(first[name].index, second[name].index) for name in first)
    with pytest.raises(ValueError):
        adversarial_pattern(base, images, labels[:3], 100)
    assert same(weights, base.model.state_dict()) and same(codes, base.codes)
    assert images.grad is None and all(p.grad is None and not p.requires_grad for p in base.model.parameters())
