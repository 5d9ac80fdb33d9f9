"""Error patterns follow their law, are one chip at every rate and on every machine, and are applied bit by bit."""

import hashlib
import itertools
import json
import math
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from nflib.faults import (
    _CHUNK,
    _DRAWS,
    DRAWING_THREADS,
    LAWS,
    BitFlips,
    ChipMap,
    LayerFaults,
    ReleaseMap,
    StuckAt,
    _bernoulli_positions,
    _faulty_on_map,
    _mark,
    _shared_out,
    ahead,
    changed_bits,
    compiled,
    error_model,
    perturbed,
)
from nflib.quantize import Quantized, encode

GOLDEN = json.loads((Path(__file__).parent / "data" / "release-map-golden.json").read_text())["cases"]
SIZES = {"a": 300, "b": 77, "c": 1}
WEIGHTS = 40_000
INDEPENDENT = [BitFlips, StuckAt]
PINNED = {
    ("bit_flips", 8): "24e8605a29b4672f",
    ("stuck_at", 8): "8c05f8e7c56cc025",
    ("release_map", 8): "c439b3a1a06ae22a",
    ("release_map_tiling_corrected", 8): "aeddb42933172ca4",
    ("release_map_per_layer", 8): "012ba08c2676ead1",
    ("bit_flips", 4): "c957b2fd3b285358",
    ("stuck_at", 3): "dd042effb5daf5f7",
    ("release_map", 5): "2d4eebb20b0d55c0",
    ("release_map_sign_slip", 8): "c439b3a1a06ae22a",  # the pattern of release_map: only reading back differs
    ("release_map_sign_slip", 5): "2d4eebb20b0d55c0",
}


def dense(faults: LayerFaults, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells [size, 8] of a layer: which do not keep their bit or toggle it, and which toggle it."""
    keep, toggle = np.full(size, 255, np.uint8), np.zeros(size, np.uint8)
    keep[faults.index.numpy()], toggle[faults.index.numpy()] = faults.keep.numpy(), faults.toggle.numpy()
    cells = [((byte[:, None] >> np.arange(8)) & 1).astype(bool) for byte in (~keep | toggle, toggle)]
    return cells[0], cells[1]


def dense_cells(law, sizes, seed=0, bits=8) -> tuple[np.ndarray, np.ndarray]:
    """The same over all layers, in memory order; layers without faults in the pattern are whole."""
    pattern = law.draw(sizes, seed, bits)
    nothing = LayerFaults(torch.zeros(0, dtype=torch.int64), *(torch.zeros(0, dtype=torch.uint8),) * 2)
    parts = [dense(pattern.get(name, nothing), size) for name, size in sizes.items()]
    return tuple(np.concatenate(part) for part in zip(*parts))


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(getattr(one[name], part), getattr(other[name], part))
        for name in one
        for part in ("index", "keep", "toggle")
    )


def digest(pattern) -> str:
    content = hashlib.sha256()
    for name, faults in pattern.items():
        content.update(name.encode())
        for part, form in ((faults.index, "<i8"), (faults.keep, "u1"), (faults.toggle, "u1")):
            content.update(part.numpy().astype(form).tobytes())
    return content.hexdigest()[:16]


def assert_share(found: int, trials: int, probability: float) -> None:
    """A binomial count lies within five standard errors of its expectation."""
    error = math.sqrt(trials * probability * (1 - probability))
    assert abs(found - trials * probability) <= 5 * error + 1e-9, (found, trials * probability, error)


def assert_even(counts: np.ndarray, trials: int, probability: float) -> None:
    """Chi-square of binomial counts, each of `trials`, against `probability`."""
    statistic = ((counts - trials * probability) ** 2).sum() / (trials * probability * (1 - probability))
    assert 1e-6 < stats.chi2.sf(statistic, len(counts)) < 1 - 1e-6


def small_base(bits: int = 8) -> Quantized:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.Flatten()]
    return Quantized(nn.Sequential(*layers, nn.Linear(4 * 7 * 7, 10)), bits)


def read_back(codes: np.ndarray, faults: LayerFaults, bits: int) -> np.ndarray:
    """Reference: every stored bit of every code, one plane at a time, put together again as two's complement.

    With the sign slip the byte that holds the code, sign-extended, is read instead.
    """
    bits = 8 if faults.sign_slip else bits
    keep, toggle = np.full(len(codes), 255), np.zeros(len(codes), int)
    keep[faults.index.numpy()], toggle[faults.index.numpy()] = faults.keep.numpy(), faults.toggle.numpy()
    value = np.zeros(len(codes), int)
    for bit in range(bits):
        stored, kept, toggled = ((byte.astype(int) >> bit) & 1 for byte in (codes, keep, toggle))
        value += (stored * kept ^ toggled) * (-(2**bit) if bit == bits - 1 else 2**bit)
    return value


# --------------------------------------------------------------------------------------------- the official map


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['seed']}-{c['p']}-{'x'.join(map(str, c['shape']))}")
def test_release_map_equals_the_official_code(case):
    i = np.arange(case["n"], dtype=np.float64)
    weights = (np.sin(0.7 * i + 0.1) * np.cos(0.013 * i)).astype(np.float32).reshape(case["shape"])
    codes = encode(torch.from_numpy(weights))[0].flatten()
    faults = ReleaseMap(case["p"]).draw({"w": case["n"]}, case["seed"])["w"]
    read = codes.clone()
    read[faults.index] = faults.hit(codes[faults.index])
    changed = (read ^ codes).view(torch.uint8).numpy()
    assert read[:8].tolist() == case["first_codes"]
    assert int((changed != 0).sum()) == case["changed_weights"]
    assert int(np.unpackbits(changed).sum()) == case["flipped_bits"]
    assert hashlib.sha256(read.numpy().tobytes()).hexdigest() == case["sha256"]


def map_of(rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Faulty cells, and those that read one: method.md 3b, by the global generator as the official code does."""
    state = np.random.get_state()
    np.random.seed(seed)
    faulty = np.random.random((8192, 128)) < rate
    np.random.seed(seed + 1)
    ones = faulty & (np.random.random((8192, 128)) < 0.5)
    np.random.set_state(state)
    return faulty, ones


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("slip", [True, False])
def test_release_map_reads_the_documented_row_and_word(slip, bits):
    """With the slip a row is laid out as often as it has words: weight i reads row i // words**2; without, row i // words."""
    words = 128 // bits
    i = np.arange(5000)
    row, first = (i // words**2 if slip else i // words) % 8192, (i % words) * bits
    cells = tuple(cells[row[:, None], first[:, None] + np.arange(bits)] for cells in map_of(0.1, 7))
    for mine, theirs in zip(dense_cells(ReleaseMap(0.1, tiling_slip=slip), {"w": len(i)}, 7, bits), cells):
        np.testing.assert_array_equal(mine[:, :bits], theirs)
        assert not mine[:, bits:].any()


def test_the_tiling_slip_repeats_each_word_at_i_and_i_plus_16_up_to_i_plus_240():
    for cells in dense_cells(ReleaseMap(0.05), {"w": 2560}, 3):
        blocks = cells.reshape(10, 16, 16, 8)  # row of the map, repetition, word, bit
        assert (blocks == blocks[:, :1]).all()
        assert len({block.tobytes() for block in blocks[:, 0]}) == 10  # and the next row is another one


def test_the_corrected_tiling_has_the_slip_s_words_once_each():
    slipped = dense_cells(ReleaseMap(0.05), {"w": 2560}, 3)
    corrected = dense_cells(ReleaseMap(0.05, tiling_slip=False), {"w": 160}, 3)
    for long, short in zip(slipped, corrected):
        np.testing.assert_array_equal(long.reshape(10, 16, 16, 8)[:, 0].reshape(160, 8), short)


def test_the_map_starts_over_when_it_is_full():
    size = 8192 * 16
    faulty, _ = dense_cells(ReleaseMap(0.02, tiling_slip=False), {"w": size + 500}, 0)
    np.testing.assert_array_equal(faulty[size:], faulty[:500])


def test_all_layers_read_one_map_from_its_start_unless_each_has_its_own():
    sizes = {"a": 400, "b": 400, "c": 100}
    one = ReleaseMap(0.05, tiling_slip=False).draw(sizes, 5)
    own = ReleaseMap(0.05, tiling_slip=False, map_per_layer=True).draw(sizes, 5)
    np.testing.assert_array_equal(dense(one["a"], 400)[0], dense(one["b"], 400)[0])
    np.testing.assert_array_equal(dense(one["a"], 400)[0][:100], dense(one["c"], 100)[0])
    for number, (name, size) in enumerate(sizes.items()):
        alone = ReleaseMap(0.05, tiling_slip=False).draw({name: size}, 5 + 100003 * number)
        assert same({name: own[name]}, alone)
    assert digest({"x": own["a"]}) != digest({"x": own["b"]})


@pytest.mark.parametrize("slip", [True, False])
@pytest.mark.parametrize("bits", [8, 5])
def test_what_a_layer_reads_does_not_depend_on_how_far_the_map_is_drawn(slip, bits):
    """Only the rows that the largest layer reaches are drawn; a layer as long as three maps needs them all."""
    law = ReleaseMap(0.05, tiling_slip=slip)
    whole = {"a": 5000, "b": 3 * 8192 * (128 // bits) ** (2 if slip else 1)}
    for narrow in ({"a": 5000}, {"a": 5000, "b": 1}):
        assert same({"a": law.draw(narrow, 7, bits)["a"]}, {"a": law.draw(whole, 7, bits)["a"]})


# ------------------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize("law", INDEPENDENT)
@pytest.mark.parametrize("rate", [1e-5, 0.0035, 0.005, 0.01, 0.015, 0.3, 0.9])
def test_the_share_of_faulty_cells_is_the_rate(law, rate):
    """All cells; each bit plane; each of 64 blocks of memory; and words with at least one faulty cell, as if independent."""
    seeds = range(5)
    faulty = np.stack([dense_cells(law(rate), {"a": WEIGHTS - 7, "b": 7}, seed)[0] for seed in seeds])
    assert_share(faulty.sum(), faulty.size, rate)
    if rate * WEIGHTS >= 100:
        assert_even(faulty.sum((0, 1)), len(seeds) * WEIGHTS, rate)
        assert_even(faulty.reshape(len(seeds), 64, -1).sum((0, 2)), faulty.size // 64, rate)
    assert_share(faulty.any(2).sum(), len(seeds) * WEIGHTS, 1 - (1 - rate) ** 8)


@pytest.mark.parametrize("rate", [0.01, 0.015, 0.3])
def test_neighbouring_cells_and_other_seeds_fail_independently(rate):
    one, other = (dense_cells(BitFlips(rate), {"a": WEIGHTS}, seed)[0].ravel() for seed in (1, 2))
    assert_share((one & other).sum(), one.size, rate**2)
    assert_share((one[1:] & one[:-1]).sum(), one.size - 1, rate**2)
    assert_share((one[8:] & one[:-8]).sum(), one.size - 8, rate**2)


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_a_flipped_bit_always_changes_and_a_faulty_cell_half_the_time(rate):
    """On random codes: the flips' share is the rate, stuck cells change rate / 2, and read one as often as zero."""
    codes = torch.from_numpy(np.random.default_rng(0).integers(-128, 128, WEIGHTS).astype(np.int8))
    for law, share in ((BitFlips(rate), rate), (StuckAt(rate), rate / 2)):
        faults = law.draw({"w": WEIGHTS}, 4)["w"]
        changed = (faults.hit(codes[faults.index]) ^ codes[faults.index]).view(torch.uint8).numpy()
        assert_share(np.unpackbits(changed).sum(), 8 * WEIGHTS, share)
    faulty, ones = dense_cells(StuckAt(rate), {"w": WEIGHTS}, 4)
    assert_share(ones.sum(), int(faulty.sum()), 0.5)


def test_flips_keep_the_bit_and_stuck_cells_do_not():
    assert (BitFlips(0.1).draw(SIZES, 0)["a"].keep == 255).all()
    stuck = StuckAt(0.1).draw(SIZES, 0)["a"]
    assert not (stuck.toggle & stuck.keep).any()
    codes = torch.arange(-128, 128).to(torch.int8)[torch.arange(len(stuck.index)) % 256]
    assert torch.equal(stuck.hit(stuck.hit(codes)), stuck.hit(codes))  # a cell reads its value, whatever was written


@pytest.mark.parametrize("law", INDEPENDENT)
def test_each_bit_may_have_a_rate_of_its_own(law):
    rates = (0.0, 0.3, 0.01, 0.0, 0.02, 0.005, 0.1, 0.001)
    faulty, _ = dense_cells(law(0.01, rates), {"a": WEIGHTS}, 6)
    for found, rate in zip(faulty.sum(0), rates):
        assert_share(found, WEIGHTS, rate)


@pytest.mark.parametrize("name", LAWS)
def test_rate_zero_is_no_fault(name):
    assert not any(len(faults.index) for faults in error_model(name, 0).draw(SIZES, 1).values())


# --------------------------------------------------------------------------------------------------- nestedness

rates = st.floats(0, 0.999)
seeds = st.integers(0, 2**32 - 2)


def assert_nested(lower: tuple[np.ndarray, np.ndarray], higher: tuple[np.ndarray, np.ndarray]) -> None:
    """Every cell faulty in `lower` is faulty in `higher`, and reads the same there."""
    assert not (lower[0] & ~higher[0]).any()
    np.testing.assert_array_equal(lower[1], higher[1] & lower[0])


@pytest.mark.parametrize("law", INDEPENDENT)
@settings(max_examples=60)
@given(one=rates, other=rates, seed=seeds, bits=st.integers(2, 8))
def test_the_pattern_at_a_lower_rate_is_a_subset(law, one, other, seed, bits):
    low, high = sorted((one, other))
    assert_nested(dense_cells(law(low), SIZES, seed, bits), dense_cells(law(high), SIZES, seed, bits))


@settings(max_examples=6)
@given(one=rates, other=rates, seed=seeds)
def test_release_maps_are_nested_too(one, other, seed):
    low, high = sorted((one, other))
    assert_nested(dense_cells(ReleaseMap(low), SIZES, seed), dense_cells(ReleaseMap(high), SIZES, seed))


@pytest.mark.parametrize("law", INDEPENDENT)
@settings(max_examples=60)
@given(pairs=st.lists(st.tuples(rates, rates), min_size=8, max_size=8), seed=seeds)
def test_patterns_with_a_rate_for_each_bit_are_nested(law, pairs, seed):
    low, high = (tuple(pick(pair) for pair in pairs) for pick in (min, max))
    assert_nested(dense_cells(law(0.1, low), SIZES, seed), dense_cells(law(0.1, high), SIZES, seed))


# ------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("law", [BitFlips, StuckAt, ReleaseMap])
@settings(max_examples=15)
@given(bits=st.sets(st.integers(0, 7)), seed=seeds)
def test_a_pattern_limited_to_bits_is_the_full_one_s_restriction(law, bits, seed):
    chosen = np.isin(np.arange(8), list(bits))
    limited = law(0.03, tuple(0.03 if keep else 0.0 for keep in chosen))
    for part, whole in zip(dense_cells(limited, SIZES, seed), dense_cells(law(0.03), SIZES, seed)):
        np.testing.assert_array_equal(part, whole & chosen)


@pytest.mark.parametrize("law", [BitFlips, StuckAt, ReleaseMap])
@pytest.mark.parametrize("layers", [("b",), ("a", "c"), ("c", "b", "a")])
def test_a_pattern_limited_to_layers_is_the_full_one_s_restriction(law, layers):
    whole, part = law(0.05).draw(SIZES, 9), law(0.05, layers=layers).draw(SIZES, 9)
    assert same(part, {name: whole[name] for name in SIZES if name in layers})


def test_an_unknown_layer_is_refused_with_the_nearest_name(refused):
    with refused("unknown layer '0.weigth'; did you mean '0.weight'"):
        BitFlips(0.1, layers=("0.weigth",)).draw({"0.weight": 4, "classifier": 4}, 0)


def test_bit_rates_must_fit_the_width_and_the_map(refused):
    with refused("7 bit rates for codes of 8 bits"):
        StuckAt(0.1, (0.1,) * 7).draw(SIZES, 0)
    with refused("a bit rate must be 0 or the map's rate 0.1"):
        ReleaseMap(0.1, (0.1,) * 7 + (0.2,)).draw(SIZES, 0)


@pytest.mark.parametrize("rate", [-0.01, 1, 1.0, 1.5, math.nan, math.inf, -math.inf, "0.01", None, True, [0.1]])
def test_rates_outside_zero_to_one_are_refused(rate, refused):
    for name in LAWS:
        with refused(r"bit-error rate is .*; allowed are fractions in \[0, 1\)"):
            error_model(name, rate)
    with refused("bit-error rate is"):
        BitFlips(0.1, (rate,) * 8)


def test_an_unknown_law_is_refused_with_the_nearest_name(refused):
    with refused("unknown error model 'bit_flip'; did you mean 'bit_flips'"):
        error_model("bit_flip", 0.01)


# ------------------------------------------------------------------------------------------------------ one chip


@pytest.mark.parametrize("name", LAWS)
def test_patterns_depend_on_the_seed_alone(name):
    """Equal for every number of threads, after any use of the global generators, and a second time; and leave those alone."""
    law, threads = error_model(name, 0.02), torch.get_num_threads()
    first = law.draw(SIZES, 11)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert same(first, law.draw(SIZES, 11))
    finally:
        torch.set_num_threads(threads)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1), torch.manual_seed(1)
    assert same(first, law.draw(SIZES, 11))
    assert len({digest(law.draw(SIZES, seed)) for seed in range(11, 16)}) == 5


def test_every_law_is_pinned():
    assert {name for name, _ in PINNED} == set(LAWS)


@pytest.fixture(params=["compiled", "without numba"])
def loops(request, monkeypatch):
    """Loops over faults as numba compiles them, and what stands in for them on a machine that has only torch and numpy."""
    compiled.cache_clear()
    if request.param == "without numba":
        monkeypatch.setitem(sys.modules, "numba", None)  # an import of it fails
    assert (compiled(_mark) is None) == (request.param == "without numba")
    yield
    compiled.cache_clear()


@pytest.mark.parametrize("name, bits", PINNED)
def test_patterns_never_change(name, bits, loops):
    """Pinned: a record's accuracies mean nothing for another pattern of the same seed."""
    assert digest(error_model(name, 0.0123).draw({"a": 3000, "b": 1000}, 50000, bits)) == PINNED[name, bits]


@pytest.mark.parametrize("law", [BitFlips(0.05), StuckAt(0.05)])
def test_a_large_pattern_is_the_same_without_numba(law, monkeypatch):
    """More faulty cells than are drawn at a time, in layers that differ in size."""
    sizes = {"a": 1000, "b": 400_000, "c": 50}
    fast = law.draw(sizes, 4, 7)
    monkeypatch.setattr("nflib.faults.compiled", lambda loop: None)
    assert same(fast, law.draw(sizes, 4, 7)) and len(fast["b"].index) > 3 * _CHUNK


@pytest.mark.parametrize("cells", [0, 1, 312, _DRAWS, _DRAWS + 1, 3 * _DRAWS + 5])
@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.01, 0.9999])
def test_a_map_is_drawn_as_the_official_code_draws_it(cells, rate, loops):
    faulty, values = (np.random.RandomState(seed).rand(cells) for seed in (50000, 50001))
    found, ones = _faulty_on_map(50000, cells, rate)
    assert found.tolist() == np.flatnonzero(faulty < rate).tolist()
    assert ones.tolist() == (values < 0.5)[faulty < rate].tolist()


@pytest.mark.parametrize("place", [0, 311, 312, 999])
def test_a_map_is_exact_to_the_last_digit_of_a_draw(place, loops):
    draw = np.random.RandomState(50000).rand(1000)[place]
    assert place not in _faulty_on_map(50000, 1000, draw)[0]
    assert place in _faulty_on_map(50000, 1000, np.nextafter(draw, 1))[0]


def test_positions_go_on_where_more_cells_fail_than_six_deviations_allow_for(loops):
    class Dense:
        def standard_exponential(self, count: int) -> np.ndarray:
            return np.zeros(count)  # every gap is the shortest: every cell fails

    found = _bernoulli_positions(Dense(), 100, 0.01)
    assert found.dtype == np.int64 and (found == np.arange(100)).all()


@pytest.mark.parametrize("name", LAWS)
def test_faults_are_sparse_ascending_and_within_their_layer(name):
    for layer, faults in error_model(name, 0.1).draw(SIZES, 2).items():
        assert (faults.index.dtype, faults.keep.dtype, faults.toggle.dtype) == (torch.int64, torch.uint8, torch.uint8)
        assert len(faults.index) == len(faults.keep) == len(faults.toggle)
        assert (faults.index.diff() > 0).all() and (faults.index < SIZES[layer]).all() and (faults.index >= 0).all()
        assert ((faults.keep != 255) | (faults.toggle != 0)).all()


# ------------------------------------------------------------------------------------------------- applied to codes


@pytest.mark.parametrize("bits", range(2, 9))
def test_any_two_bytes_read_back_a_code_of_the_width(bits):
    """Every code under every flip stays within b-bit two's complement; the sign bit alone moves by half the range."""
    half = 2 ** (bits - 1)
    codes = torch.arange(-half, half).repeat_interleave(2 * half).to(torch.int8)
    masks = torch.arange(2 * half).repeat(2 * half).to(torch.uint8)
    index, keep = torch.arange(len(codes)), torch.full_like(masks, 255)
    for faults in (LayerFaults(index, keep, masks), LayerFaults(index, ~masks, torch.zeros_like(masks))):
        read = faults.hit(codes, bits).numpy()
        assert read.min() >= -half and read.max() < half
        np.testing.assert_array_equal(read, read_back(codes.numpy(), faults, bits))
    sign = LayerFaults(index, keep, torch.full_like(masks, half))
    read = sign.hit(codes, bits).int()
    assert torch.equal(read, codes.int() + torch.where(codes < 0, half, -half))
    assert ((read < 0) != (codes < 0)).all()


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("name", LAWS)
def test_a_perturbed_model_s_weights_are_the_faulted_codes_decoded(name, bits, loops):
    """Against a dense reference: codes from the float weights, each stored bit read on its own, then times the scale."""
    torch.manual_seed(1)
    base, pattern = small_base(bits), error_model(name, 0.1).draw(small_base(bits).sizes, 3, bits)
    original, changed = {name: p.clone() for name, p in base.model.state_dict().items()}, 0
    with perturbed(base, pattern) as model:
        assert model is base
        state = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if layer not in base.layers or kind != "weight":
            assert torch.equal(tensor, original[key])  # biases and batch norm are never hit
            continue
        scale = np.float32(base.scales[layer])
        codes = np.rint(original[key].numpy().ravel() / scale).astype(int)
        np.testing.assert_array_equal(codes, base.codes[layer].numpy())
        read = read_back(codes, pattern[layer], bits)
        np.testing.assert_array_equal(tensor.numpy().ravel(), read.astype(np.float32) * scale)
        changed += sum(bin(x).count("1") for x in ((read ^ codes) & (2**bits - 1)))  # the slip never leaves these bits
    assert changed == changed_bits(base, pattern) > 0


def test_a_model_in_double_precision_is_patched_and_restored_in_it(loops):
    base = small_base()
    base.model.double()
    base.scales = {name: scale.double() / 3 for name, scale in base.scales.items()}  # no power of two: float32 would round
    weight, codes = base.layers["0"].weight, base.codes["0"]
    weight.data.copy_((codes.double() * base.scales["0"]).view_as(weight))
    before, pattern = weight.clone(), BitFlips(0.2).draw(base.sizes, 0)
    with perturbed(base, pattern):
        index = pattern["0"].index
        assert torch.equal(weight.flatten()[index], pattern["0"].hit(codes[index]).double() * base.scales["0"])
    assert torch.equal(weight, before)


@pytest.mark.parametrize("channels_last", [False, True])
def test_leaving_restores_every_bit(channels_last, loops):
    base = small_base()
    if channels_last:
        base = Quantized(base.model.to(memory_format=torch.channels_last))
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}

    def intact() -> bool:
        return all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())

    with perturbed(base, StuckAt(0.2).draw(base.sizes, 0)):
        assert not intact()
    assert intact()
    with pytest.raises(ZeroDivisionError), perturbed(base, BitFlips(0.2).draw(base.sizes, 0)):
        assert not intact()
        1 / 0
    assert intact()
    with perturbed(base, BitFlips(0.2).draw(base.sizes, 0)), perturbed(base, StuckAt(0.2).draw(base.sizes, 1)):
        pass
    assert intact()
    with torch.inference_mode(), perturbed(base, BitFlips(0.2).draw(base.sizes, 0)):
        pass
    assert intact()


@pytest.mark.parametrize("caller_fails", [False, True])
def test_where_one_part_fails_the_others_have_ended_before_it_is_told(caller_fails):
    """What goes on behind the caller's back would patch weights that were restored already."""
    ended, before = [], torch.get_num_threads()

    def work(number: int) -> None:
        if (threading.current_thread() is threading.main_thread()) == caller_fails:
            raise ValueError("one thread fails at once")
        time.sleep(0.2)
        ended.append(number)

    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="one thread"):
            _shared_out(work, [1, 9, 2])
    finally:
        torch.set_num_threads(before)
    assert len(ended) == len(set(ended)) == 2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_shared_out_comes_back_in_order(threads):
    """Each part once, the dearest first, and the calling thread takes its share."""
    begun, where, before = [], set(), torch.get_num_threads()

    def work(number: int) -> int:
        begun.append(number)
        where.add(threading.current_thread())
        time.sleep(0.05)
        return 10 * number

    torch.set_num_threads(threads)
    try:
        assert _shared_out(work, [1, 9, 2, 5]) == [0, 10, 20, 30] and _shared_out(work, []) == []
    finally:
        torch.set_num_threads(before)
    assert len(where) == threads and threading.main_thread() in where
    assert (begun if threads == 1 else sorted(begun)) == ([1, 3, 2, 0] if threads == 1 else [0, 1, 2, 3])  # threads tell in any order


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("last, failure", [("no such layer", KeyError), ("3", IndexError)])
def test_weights_are_restored_when_applying_itself_fails(last, failure, threads, loops):
    """Whether a layer is not there or a fault lies beyond its end, and where layers are patched side by side."""
    base, before = small_base(), torch.get_num_threads()
    weights = {name: layer.weight.clone() for name, layer in base.layers.items()}
    pattern = BitFlips(0.3).draw({"0": base.sizes["0"], last: 9 * base.sizes["3"]}, 0)
    torch.set_num_threads(threads)
    try:
        with pytest.raises(failure), perturbed(base, pattern):
            pass
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(layer.weight, weights[name]) for name, layer in base.layers.items())


def test_patching_does_not_disturb_gradients_to_the_images():
    """A pattern is applied once, outside forward: the gradient is that of a model that always had those weights."""
    base, copy = small_base(), small_base()
    pattern = BitFlips(0.05).draw(base.sizes, 2)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for name, layer in copy.layers.items():
        read = read_back(copy.codes[name].numpy(), pattern[name], 8).astype(np.float32)
        layer.weight.data = (torch.from_numpy(read) * copy.scales[name]).view_as(layer.weight)
    gradients = []
    with perturbed(base, pattern):
        for model in (base, copy):
            leaf = images.clone().requires_grad_()
            model(leaf).square().sum().backward()
            gradients.append(leaf.grad)
    assert torch.equal(*gradients) and gradients[0].any()


# ------------------------------------------------------------------------------------------------------ profiled chips


@pytest.fixture
def chip(tmp_path):
    """A chip of 6 rows and 20 columns: (path, stuck at 0, stuck at 1)."""
    draw = np.random.default_rng(0).random((6, 20))
    zero, one = draw < 0.2, draw > 0.8
    path = tmp_path / "chip.npz"
    np.savez(path, stuck_at_0=zero, stuck_at_1=one)
    return str(path), zero, one


def words(cells: np.ndarray, weights: int, bits: int) -> np.ndarray:
    """Cells [weights, bits]: words row after row, over and over; columns that make no whole word are left out."""
    per_row = cells.shape[1] // bits
    rows = [cells[row, k * bits : (k + 1) * bits] for row in range(len(cells)) for k in range(per_row)]
    return np.array([rows[i % len(rows)] for i in range(weights)])


@pytest.mark.parametrize("bits", [3, 8])
def test_a_chip_map_is_read_as_it_was_profiled(chip, bits):
    path, zero, one = chip
    sizes = {"a": 50, "b": 13}
    faulty, ones = dense_cells(error_model(f"chip_map:{path}", 0.01), sizes, 0, bits)
    np.testing.assert_array_equal(faulty[:, :bits], words(zero | one, 63, bits))
    np.testing.assert_array_equal(ones[:, :bits], words(one, 63, bits))
    codes = torch.from_numpy(np.random.default_rng(1).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 50).astype(np.int8))
    faults = ChipMap(path=path).draw(sizes, 0, bits)["a"]
    read = faults.hit(codes[faults.index], bits).numpy()
    stored = (read[:, None].astype(int) >> np.arange(bits)) & 1
    index = faults.index.numpy()
    assert not stored[words(zero, 63, bits)[index]].any() and stored[words(one, 63, bits)[index]].all()


def test_a_seed_rotates_the_chip_by_rows(chip):
    path, zero, one = chip
    possible = {words(np.roll(zero | one, -k, axis=0), 12, 8).tobytes(): k for k in range(6)}
    found = [dense_cells(ChipMap(path=path), {"a": 12}, seed)[0] for seed in range(40)]
    assert {possible[cells.tobytes()] for cells in found} == set(range(6)) and possible[found[0].tobytes()] == 0


def test_a_chip_map_limited_to_layers(chip):
    law, sizes = ChipMap(path=chip[0], layers=("b",)), {"a": 50, "b": 13}
    assert same(law.draw(sizes, 0), {"b": ChipMap(path=chip[0]).draw(sizes, 0)["b"]})


def test_a_chip_map_limited_to_bits(chip):
    sign_only = (0.0,) * 7 + (0.01,)
    faulty, _ = dense_cells(ChipMap(0.01, sign_only, path=chip[0]), {"a": 50}, 0)
    assert faulty[:, 7].any() and not faulty[:, :7].any()


def test_chip_maps_that_are_missing_damaged_or_contradict_themselves_are_refused(chip, tmp_path, refused):
    path, zero, one = chip
    whole = Path(path).read_bytes()
    bad = {"cut": whole[: len(whole) // 2], "not a map": b"hello", "empty": b""}
    for name, content in bad.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    np.savez(tmp_path / "half.npz", stuck_at_0=zero)
    np.savez(tmp_path / "objects.npz", stuck_at_0=np.array([{}]), stuck_at_1=one)
    for name in ("no such file", "cut", "not a map", "empty", "half", "objects"):
        with refused(rf"chip map '.*{name}\.npz' cannot be read"):
            ChipMap(path=str(tmp_path / f"{name}.npz")).draw(SIZES, 0)
    np.savez(tmp_path / "both.npz", stuck_at_0=zero, stuck_at_1=one | zero)
    np.savez(tmp_path / "other shapes.npz", stuck_at_0=zero, stuck_at_1=one[:-1])
    np.savez(tmp_path / "flat.npz", stuck_at_0=zero.ravel(), stuck_at_1=one.ravel())
    for name in ("both", "other shapes", "flat"):
        with refused("without a cell in both"):
            ChipMap(path=str(tmp_path / f"{name}.npz")).draw(SIZES, 0)
    np.savez(tmp_path / "narrow.npz", stuck_at_0=zero[:, :7], stuck_at_1=one[:, :7])
    with refused("has 7 columns, fewer than the 8 bits of a code"):
        ChipMap(path=str(tmp_path / "narrow.npz")).draw(SIZES, 0)


def test_a_chip_map_without_rows_is_refused(tmp_path, refused):
    nothing = np.zeros((0, 16), bool)
    np.savez(tmp_path / "nothing.npz", stuck_at_0=nothing, stuck_at_1=nothing)
    with refused("chip map"):
        ChipMap(path=str(tmp_path / "nothing.npz")).draw(SIZES, 0)


def test_the_sign_slip_leaves_signs_alone_and_leaves_the_range():
    """Code-notes A7: at 4 bits, +3 with its sign bit stuck at 1 becomes +11 in the official code, and -5 in a memory."""
    codes, sign = torch.tensor([3, -5], dtype=torch.int8), torch.tensor([0, 1])
    keep, toggle = torch.tensor([0b11110111] * 2, dtype=torch.uint8), torch.tensor([0b1000] * 2, dtype=torch.uint8)
    assert LayerFaults(sign, keep, toggle, sign_slip=True).hit(codes, 4).tolist() == [11, -5]
    assert LayerFaults(sign, keep, toggle).hit(codes, 4).tolist() == [-5, -5]
    law, plain = error_model("release_map_sign_slip", 0.05), error_model("release_map", 0.05)
    codes = torch.arange(-7, 8, dtype=torch.int8).repeat(1000)
    slipped, right = (each.draw({"a": len(codes)}, 50000, 4)["a"] for each in (law, plain))
    stored = codes[slipped.index]
    read = slipped.hit(stored, 4)
    assert ((read < 0) == (stored < 0)).all() and read.abs().max() > 8
    assert right.hit(stored, 4).min() >= -8 and right.hit(stored, 4).max() <= 7
    assert torch.equal(slipped.hit(stored, 8), right.hit(stored, 8))


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_patterns_drawn_ahead_come_in_order_each_once_and_not_far_ahead(kind):
    """The threads need no GPU to be tried: the device only says whether they draw ahead."""
    drawn, device = [], torch.device(kind)

    def draw(key: int) -> int:
        time.sleep(0.001 * (key % 3))
        drawn.append(key)
        return 10 * key

    stream = ahead(draw, itertools.count(), device)
    assert [next(stream) for _ in range(30)] == [10 * key for key in range(30)]
    stream.close()
    assert len(drawn) == len(set(drawn)) <= 30 + 2 * DRAWING_THREADS
    assert list(ahead(draw, range(3), device)) == [0, 10, 20] and list(ahead(draw, [], device)) == []


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_what_goes_wrong_while_drawing_ahead_is_raised_where_it_is_asked_for(kind):
    def draw(key: int) -> int:
        return 1 // (3 - key)

    stream = ahead(draw, range(5), torch.device(kind))
    assert [next(stream) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(stream)
