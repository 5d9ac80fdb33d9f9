"""Mitigations: against a memory of single bits, word by word; what they add; what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from nflib import evaluation, faults
from nflib.study import measures, recipes, trained
from nflib.study.cells import Base, Cell, cell_of, as_json
from nflib.faults import changed_bits, named, perturbed
from nflib.mitigations import MITIGATIONS, WORD
from nflib.quantize import Quantized
from nflib.training import BaseRecipe

LAWS = ("release_map", "stuck_at", "bit_flips")


@pytest.fixture(scope="module")
def base() -> Quantized:
    """Two layers whose numbers of weights, 19 x 27 and 19 x 7, are no multiples of a word's."""
    torch.manual_seed(0)
    return Quantized(nn.Sequential(nn.Conv2d(3, 19, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(19, 7)))


def read(base: Quantized, pattern) -> dict[str, np.ndarray]:
    """The codes of every layer as they are read under a pattern."""
    found = {}
    for name, codes in base.codes.items():
        found[name] = codes.clone().numpy()
        if name in pattern:
            one = pattern[name]
            found[name][one.index.numpy()] = one.hit(codes[one.index], base.bits).numpy()
    return found


def bits(codes: np.ndarray) -> np.ndarray:
    return np.unpackbits(codes.view(np.uint8)[:, None], axis=1, bitorder="little")


def draw(base: Quantized, law: str, rate: float, seed: int):
    return named(law, rate).draw(base.sizes, seed, base.bits)


@pytest.mark.parametrize("law", LAWS)
def test_a_spared_sign_bit_never_fails_and_the_others_fail_as_before(base, law):
    pattern = draw(base, law, 0.2, 50000)
    before, after = read(base, pattern), read(base, MITIGATIONS["spare_sign"].apply(base, pattern, 50000))
    for name, codes in base.codes.items():
        assert (bits(after[name])[:, 7] == bits(codes.numpy())[:, 7]).all()
        assert (bits(after[name])[:, :7] == bits(before[name])[:, :7]).all()
    assert any((bits(before[name])[:, 7] != bits(after[name])[:, 7]).any() for name in before)


def parity_alarms(base: Quantized, wrong: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The parity cells that fail themselves, as `zero_by_parity` draws them."""
    share = sum(w.sum() for w in wrong.values()) / (8 * sum(base.sizes.values()))
    chance = np.random.default_rng([seed, 8])
    return {name: chance.random(size) < share for name, size in base.sizes.items()}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rate", [0.02, 0.2])
def test_weights_of_wrong_parity_are_zero_and_an_even_number_of_wrong_bits_passes(base, law, rate):
    pattern = draw(base, law, rate, 3)
    before, after = read(base, pattern), read(base, MITIGATIONS["zero_by_parity"].apply(base, pattern, 3))
    wrong = {name: bits(before[name]) != bits(codes.numpy()) for name, codes in base.codes.items()}
    alarms, even = parity_alarms(base, wrong, 3), 0
    for name, codes in base.codes.items():
        for weight in range(len(codes)):
            failed = (wrong[name][weight].sum() + alarms[name][weight]) % 2
            assert after[name][weight] == (0 if failed else before[name][weight])
            even += wrong[name][weight].sum() >= 2 and not failed
    assert even > 0 or rate < 0.1


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_words_with_one_wrong_bit_are_corrected_and_others_are_read_as_they_are(base, law, rate):
    pattern = draw(base, law, rate, 4)
    before, after = read(base, pattern), read(base, MITIGATIONS["secded"].apply(base, pattern, 4))
    wrong = {name: bits(before[name]) != bits(codes.numpy()) for name, codes in base.codes.items()}
    share, chance = sum(w.sum() for w in wrong.values()) / (8 * sum(base.sizes.values())), np.random.default_rng([4, 8])
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
def test_without_errors_nothing_is_done(base, name):
    assert changed_bits(base, MITIGATIONS[name].apply(base, draw(base, "bit_flips", 0.0, 1), 1)) == 0


@pytest.mark.parametrize("name", MITIGATIONS)
def test_a_pattern_is_left_as_it_was_and_gives_the_same_again(base, name):
    pattern = draw(base, "release_map", 0.05, 5)
    kept = {layer: tuple(part.clone() for part in (f.index, f.keep, f.toggle)) for layer, f in pattern.items()}
    one, two = (MITIGATIONS[name].apply(base, pattern, 5) for _ in range(2))
    for layer, f in pattern.items():
        assert all(torch.equal(a, b) for a, b in zip(kept[layer], (f.index, f.keep, f.toggle)))
        assert torch.equal(one[layer].index, two[layer].index) and torch.equal(one[layer].keep, two[layer].keep)
        assert (np.diff(one[layer].index.numpy()) > 0).all()


def test_a_code_word_is_left_with_errors_as_often_as_the_binomial_law_says():
    """A million weights under flips: a word keeps errors when two or more of its 72 bits are wrong, one of them data."""
    base = Quantized(nn.Linear(1000, 1000))
    rate = 0.01
    pattern = MITIGATIONS["secded"].apply(base, draw(base, "bit_flips", rate, 6), 6)
    word = np.unique(next(iter(pattern.values())).index.numpy() // WORD)
    none_of_data = (1 - rate) ** 64
    one_of_data = 64 * rate * (1 - rate) ** 63
    expected = 1 - none_of_data - one_of_data * (1 - rate) ** 8
    words = 1_000_000 / WORD
    assert abs(len(word) / words - expected) < 5 * np.sqrt(expected * (1 - expected) / words)


def test_cut_weights_keep_all_but_the_largest_and_have_a_finer_code(base):
    """By hand: clipped at three root mean squares, and as far from the clipped values as half a step; the original stays."""
    before = {name: layer.weight.clone() for name, layer in base.layers.items()}
    with torch.no_grad():
        base.layers["0"].weight.view(-1)[5:7] = torch.tensor([2.0, -1.5])  # far beyond, on both sides
    try:
        stored = {name: layer.weight.clone() for name, layer in base.layers.items()}
        narrow = MITIGATIONS["cut_weights"].prepare(base)
        assert all(torch.equal(layer.weight, stored[name]) for name, layer in base.layers.items())
        for name, weight in stored.items():
            limit = 3 * weight.square().mean().sqrt()
            assert (narrow.layers[name].weight - weight.clamp(-limit, limit)).abs().max() <= narrow.scales[name] / 2 + 1e-6
            assert narrow.scales[name] <= base.scales[name] * 1.001 or name == "0"
        assert narrow.layers["0"].weight.abs().max() < 0.5 and narrow.bits == base.bits
    finally:
        base.layers["0"].weight.data.copy_(before["0"])


def test_measuring_prepares_the_base_model(trained_workshop):
    base, device = recipes.base("smoke", "digits", "vgg11", "release"), torch.device("cpu")
    with trained.arithmetic_of("smoke"):
        cell = Cell(base, kind="mitigation", rate=0.02, patterns=2, images=100, mitigation="cut_weights")
        metrics = measures.measure(cell, device)[0]
        narrow = MITIGATIONS["cut_weights"].prepare(measures._models(cell, device, None)[0])
        batches = evaluation.prepared(measures.dataset_on("digits", device).test.first(100), None)
        found, _ = evaluation.perturbed_accuracies(narrow, faults.named("release_map", 0.02), (50000, 50001), batches)
        assert metrics["perturbed"] == found and metrics["clean"] == evaluation.accuracy(narrow, batches)


def test_evaluation_applies_the_mitigation(base):
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    batches = [(images, torch.arange(50) % 7)]
    law = faults.named("bit_flips", 0.05)
    plain_ones, before = evaluation.perturbed_accuracies(base, law, (1, 2), batches)
    spared, after = evaluation.perturbed_accuracies(base, law, (1, 2), batches, mitigate=MITIGATIONS["spare_sign"].apply)
    assert all(a < b for a, b in zip(after, before))
    with perturbed(base, MITIGATIONS["spare_sign"].apply(base, law.draw(base.sizes, 2), 2)):
        assert spared[1] == evaluation.accuracy(base, batches)


BASE = Base("digits", "vgg11", BaseRecipe())


def test_cells_of_before_keep_their_digest_and_a_mitigation_is_read_back():
    assert "mitigation" not in as_json(Cell(BASE))
    cell = Cell(BASE, kind="mitigation", mitigation="secded")
    assert cell_of(as_json(cell)) == cell and cell.digest != Cell(BASE).digest
    assert "(secded)" in cell.words


@pytest.mark.parametrize("kind,name,words", [("mitigation", "ecc", "unknown mitigation 'ecc'"), ("mitigation", "", "says what"), ("accuracy", "secded", "says what")])
def test_a_mitigation_that_is_unknown_or_misplaced_is_refused(kind, name, words, refused):
    with refused(words):
        Cell(BASE, kind=kind, mitigation=name)
