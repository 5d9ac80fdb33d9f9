"""Mitigations: against a memory of single bits, word by word; what they add; what is refused."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from examples import TINY
from torch import nn

from nflib import evaluation
from nflib.faults import changed_bits, named, perturbed
from nflib.mitigations import MITIGATIONS, WORD
from nflib.quantize import Quantized
from nflib.study import measures, trained

ERROR_MODELS = ("release_map", "stuck_at", "bit_flips")


@pytest.fixture(scope="module")
def base() -> Quantized:
    """Two layers whose numbers of weights, 19 x 27 and 19 x 7, are no multiples of a word's."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 19, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(19, 7)]
    return Quantized(nn.Sequential(*layers))


def read(base: Quantized, pattern) -> dict[str, np.ndarray]:
    """The codes of every layer as they are read under a pattern."""
    found = {}
    for name, codes in base.codes.items():
        found[name] = codes.clone().numpy()
        if name in pattern:
            one = pattern[name]
            found[name][one.index.numpy()] = one.read(codes[one.index], base.bits).numpy()
    return found


def bits(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes.view(np.uint8)[:, None], axis=1, bitorder="little")


def draw(base: Quantized, errors: str, rate: float, seed: int):
    return named(errors, rate).draw(base.sizes, seed, base.bits)


def before_and_after(base: Quantized, name: str, errors: str, rate: float, seed: int):
    """The codes as they are read without and with a mitigation, which bits are wrong without, and their share."""
    pattern = draw(base, errors, rate, seed)
    before, after = read(base, pattern), read(base, MITIGATIONS[name].apply(base, pattern, seed))
    wrong = {layer: bits(before[layer]) != bits(codes.numpy()) for layer, codes in base.codes.items()}
    return before, after, wrong, sum(w.sum() for w in wrong.values()) / (8 * sum(base.sizes.values()))


@pytest.mark.parametrize("errors", ERROR_MODELS)
def test_a_spared_sign_bit_never_fails_and_the_others_fail_as_before(base, errors):
    before, after, wrong, _ = before_and_after(base, "spare_sign", errors, 0.2, 50000)
    for name, codes in base.codes.items():
        assert (bits(after[name])[:, 7] == bits(codes.numpy())[:, 7]).all()
        assert (bits(after[name])[:, :7] == bits(before[name])[:, :7]).all()
    assert any(wrong[name][:, 7].any() for name in before)


@pytest.mark.parametrize("errors", ERROR_MODELS)
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_weights_of_wrong_parity_are_zero_and_an_even_number_of_wrong_bits_passes(base, errors, rate):
    before, after, wrong, share = before_and_after(base, "zero_by_parity", errors, rate, 3)
    chance, even = np.random.default_rng([3, 8]), 0  # for the parity cells that fail themselves
    for name, codes in base.codes.items():
        count = wrong[name].sum(1)
        failed = (count + (chance.random(len(codes)) < share)) % 2 == 1
        assert (after[name] == np.where(failed, 0, before[name])).all()
        even += ((count >= 2) & ~failed).sum()
    assert even > 0 or rate < 0.1


@pytest.mark.parametrize("errors", ERROR_MODELS)
@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_words_with_one_wrong_bit_are_corrected_and_others_are_read_as_they_are(base, errors, rate):
    before, after, wrong, share = before_and_after(base, "secded", errors, rate, 4)
    chance = np.random.default_rng([4, 8])
    corrected = left = 0
    for name, codes in base.codes.items():
        checks = chance.binomial(8, share, -(-len(codes) // WORD))
        for word, check in enumerate(checks):
            place = slice(word * WORD, (word + 1) * WORD)
            errors = wrong[name][place].sum() + check
            expected = codes.numpy()[place] if errors <= 1 else before[name][place]
            assert (after[name][place] == expected).all()
            corrected, left = corrected + (errors == 1), left + (errors > 1)
    assert corrected and left


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_pattern_is_left_as_it_was_and_gives_the_same_again_and_without_errors_nothing_is_done(base, name):
    pattern = draw(base, "release_map", 0.05, 5)
    kept = {layer: tuple(part.clone() for part in (f.index, f.keep, f.toggle)) for layer, f in pattern.items()}
    one, two = (MITIGATIONS[name].apply(base, pattern, 5) for _ in range(2))
    for layer, f in pattern.items():
        assert all(torch.equal(a, b) for a, b in zip(kept[layer], (f.index, f.keep, f.toggle)))
        assert torch.equal(one[layer].index, two[layer].index) and torch.equal(one[layer].keep, two[layer].keep)
        assert (np.diff(one[layer].index.numpy()) > 0).all()
    assert changed_bits(base, MITIGATIONS[name].apply(base, draw(base, "bit_flips", 0.0, 1), 1)) == 0


def test_a_code_word_is_left_with_errors_as_often_as_it_should():
    """A million weights under flips: a word keeps errors when two or more of its 72 bits are wrong, one in data."""
    base, rate, words = Quantized(nn.Linear(1000, 1000)), 0.01, 1_000_000 / WORD
    (pattern,) = MITIGATIONS["secded"].apply(base, draw(base, "bit_flips", rate, 6), 6).values()
    left = len(np.unique(pattern.index.numpy() // WORD)) / words
    none_of_data, one_of_data = (1 - rate) ** 64, 64 * rate * (1 - rate) ** 63
    expected = 1 - none_of_data - one_of_data * (1 - rate) ** 8
    assert abs(left - expected) < 5 * np.sqrt(expected * (1 - expected) / words)


def test_cut_weights_keep_all_but_the_largest_and_have_a_finer_code(base):
    """By hand: clipped at three root mean squares, within half a step of the clipped values; the original stays."""
    base = copy.deepcopy(base)
    with torch.no_grad():
        base.layers["0"].weight.view(-1)[5:7] = torch.tensor([2.0, -1.5])  # far beyond, on both sides
    stored = {name: layer.weight.clone() for name, layer in base.layers.items()}
    narrow = MITIGATIONS["cut_weights"].prepare(base)
    for name, weight in stored.items():
        limit, found = 3 * weight.square().mean().sqrt(), narrow.layers[name].weight
        assert torch.equal(base.layers[name].weight, weight)
        assert (found - weight.clamp(-limit, limit)).abs().max() <= narrow.scales[name] / 2 + 1e-6
        assert narrow.scales[name] <= base.scales[name] * 1.001 or name == "0"
    assert narrow.layers["0"].weight.abs().max() < 0.5 and narrow.bits == base.bits


def test_measuring_prepares_the_base_model(workshop):
    cell = dataclasses.replace(TINY[0], kind="mitigation", rate=0.02, mitigation="cut_weights")
    device = torch.device("cpu")
    with trained.arithmetic_of("smoke"):
        metrics = measures.measure(cell, device)[0]
        narrow = MITIGATIONS["cut_weights"].prepare(trained.base_model(cell.base, device)[0])
        batches = evaluation.prepared(trained.dataset_on("digits", device).test.first(100), None)
        found, _ = evaluation.perturbed_accuracies(narrow, named("bit_flips", 0.02), (50000, 50001), batches)
        assert metrics["perturbed"] == found and metrics["clean"] == evaluation.accuracy(narrow, batches)


def test_evaluation_applies_the_mitigation(base):
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [(images, torch.arange(50) % 7)]
    errors, spare = named("bit_flips", 0.05), MITIGATIONS["spare_sign"].apply
    _, before = evaluation.perturbed_accuracies(base, errors, (1, 2), batches)
    spared, after = evaluation.perturbed_accuracies(base, errors, (1, 2), batches, mitigate=spare)
    assert all(a < b for a, b in zip(after, before))
    with perturbed(base, spare(base, errors.draw(base.sizes, 2), 2)):
        assert spared[1] == evaluation.accuracy(base, batches)


def test_recalibrated_batch_norm_has_the_statistics_of_the_perturbed_model_and_its_own_again_afterwards():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.ReLU(), nn.Flatten(), nn.Linear(9 * 36, 7)]
    small = Quantized(nn.Sequential(*layers).eval())
    own = copy.deepcopy(small.model[1].state_dict())
    batches = [(torch.rand(40, 3, 8, 8), torch.arange(40) % 7) for _ in range(3)]
    with trained.arithmetic_of("smoke"), perturbed(small, draw(small, "bit_flips", 0.1, 1)):
        before = small(batches[0][0])
        with evaluation.recalibrated(small, batches):
            assert not small.model[1].training
            seen = torch.cat([small.model[:2](images) for images, _ in batches]).detach()
            assert seen.mean((0, 2, 3)).abs().max() < 1e-4
            torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(9), rtol=0.01, atol=0)
            assert (small(batches[0][0]) - before).abs().max() > 0.01
        assert torch.equal(small(batches[0][0]), before)
    assert own.keys() == small.model[1].state_dict().keys()
    assert all(torch.equal(value, own[name]) for name, value in small.model[1].state_dict().items())
