"""Error patterns: drawn as the error model says, one chip at every rate and on every machine, applied bit by bit."""

import hashlib
import itertools
import json
import math
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from nflib import _kernels
from nflib.faults import _CHUNK, DRAWING_THREADS, ERROR_MODELS, LABELS, _successes, check_rate
from nflib.faults import BitFlips, ChipMap, LayerFaults, ReleaseMap, StuckAt, ahead, changed_bits, named, perturbed
from nflib.names import UserError
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


def dense_cells(model, sizes, seed=0, bits=8) -> tuple[np.ndarray, np.ndarray]:
    """Cells [weights, 8] in memory order: which do not keep their bit or toggle it, and which toggle it."""
    pattern, start = model.draw(sizes, seed, bits), 0
    keep, toggle = np.full(sum(sizes.values()), 255, np.uint8), np.zeros(sum(sizes.values()), np.uint8)
    for name, size in sizes.items():
        if name in pattern:
            index = pattern[name].index.numpy() + start
            keep[index], toggle[index] = pattern[name].keep.numpy(), pattern[name].toggle.numpy()
        start += size
    return tuple(((byte[:, None] >> np.arange(8)) & 1).astype(bool) for byte in (~keep | toggle, toggle))


def same(one, other) -> bool:
    return digest(one) == digest(other)


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


# ----------------------------------------------------------------------------------------------------- the official map
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


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("slip", [True, False])
def test_release_map_reads_the_documented_row_and_word(slip, bits):
    """Method.md 3b: weight i reads row i // words**2 with the slip, row i // words without; the map starts over."""
    faulty = np.random.RandomState(7).rand(8192, 128) < 0.1
    ones = faulty & (np.random.RandomState(8).rand(8192, 128) < 0.5)
    words, i = 128 // bits, np.arange(132_000 if bits == 8 else 5000)
    row, first = (i // words**2 if slip else i // words) % 8192, (i % words) * bits
    for mine, cells in zip(dense_cells(ReleaseMap(0.1, tiling_slip=slip), {"w": len(i)}, 7, bits), (faulty, ones)):
        np.testing.assert_array_equal(mine[:, :bits], cells[row[:, None], first[:, None] + np.arange(bits)])
        assert not mine[:, bits:].any()


def test_all_layers_read_one_map_from_its_start_unless_each_has_its_own():
    sizes, model = {"a": 400, "b": 300}, ReleaseMap(0.05, tiling_slip=False)
    one, own = model.draw(sizes, 5), ReleaseMap(0.05, tiling_slip=False, map_per_layer=True).draw(sizes, 5)
    assert same({"a": one["a"]}, model.draw({"a": 400}, 5)) and same({"b": one["b"]}, model.draw({"b": 300}, 5))
    assert same({"a": own["a"]}, model.draw({"a": 400}, 5)) and same({"b": own["b"]}, model.draw({"b": 300}, 100008))


@pytest.mark.parametrize("slip", [True, False])
@pytest.mark.parametrize("bits", [8, 5])
def test_what_a_layer_reads_does_not_depend_on_how_far_the_map_is_drawn(slip, bits):
    """Only the rows that the largest layer reaches are drawn; a layer as long as three maps needs them all."""
    model = ReleaseMap(0.05, tiling_slip=slip)
    whole = {"a": 5000, "b": 3 * 8192 * (128 // bits) ** (2 if slip else 1)}
    for narrow in ({"a": 5000}, {"a": 5000, "b": 1}):
        assert same({"a": model.draw(narrow, 7, bits)["a"]}, {"a": model.draw(whole, 7, bits)["a"]})


# ---------------------------------------------------------------------------------------------------------------- rates
@pytest.mark.parametrize("kind", INDEPENDENT)
@pytest.mark.parametrize("rate", [1e-5, 0.0035, 0.005, 0.01, 0.015, 0.3, 0.9])
def test_cells_are_faulty_at_the_rate_and_independently(kind, rate):
    """All cells; each bit; each of 64 blocks; words with a faulty cell or more; neighbours, cells or words; two seeds."""
    faulty = np.stack([dense_cells(kind(rate), {"a": WEIGHTS - 7, "b": 7}, seed)[0] for seed in range(5)])
    assert_share(faulty.sum(), faulty.size, rate)
    if rate * WEIGHTS >= 100:
        assert_even(faulty.sum((0, 1)), 5 * WEIGHTS, rate)
        assert_even(faulty.reshape(5, 64, -1).sum((0, 2)), faulty.size // 64, rate)
    assert_share(faulty.any(2).sum(), 5 * WEIGHTS, 1 - (1 - rate) ** 8)
    one, other = faulty[0].ravel(), faulty[1].ravel()
    for both in (one & other, one[1:] & one[:-1], one[8:] & one[:-8]):
        assert_share(both.sum(), both.size, rate**2)


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_a_flipped_bit_always_changes_and_a_faulty_cell_half_the_time(rate):
    """On random codes: the flips' share is the rate, stuck cells change rate / 2, and read one as often as zero."""
    codes = torch.from_numpy(np.random.default_rng(0).integers(-128, 128, WEIGHTS).astype(np.int8))
    for model, share in ((BitFlips(rate), rate), (StuckAt(rate), rate / 2)):
        faults = model.draw({"w": WEIGHTS}, 4)["w"]
        read = faults.hit(codes[faults.index])
        assert_share(np.unpackbits((read ^ codes[faults.index]).view(torch.uint8).numpy()).sum(), 8 * WEIGHTS, share)
        once_more = codes[faults.index] if share == rate else read  # a cell reads its value, whatever was written
        assert torch.equal(faults.hit(read), once_more)
    faulty, ones = dense_cells(model, {"w": WEIGHTS}, 4)
    assert_share(ones.sum(), int(faulty.sum()), 0.5)


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_each_bit_may_have_a_rate_of_its_own(kind):
    rates = (0.0, 0.3, 0.01, 0.0, 0.02, 0.005, 0.1, 0.001)
    faulty, _ = dense_cells(kind(0.01, rates), {"a": WEIGHTS}, 6)
    for found, rate in zip(faulty.sum(0), rates):
        assert_share(found, WEIGHTS, rate)


@pytest.mark.parametrize("name", ERROR_MODELS)
def test_faults_are_sparse_ascending_and_within_their_layer(name):
    for layer, faults in named(name, 0.1).draw(SIZES, 2).items():
        assert (faults.index.dtype, faults.keep.dtype, faults.toggle.dtype) == (torch.int64, torch.uint8, torch.uint8)
        assert len(faults.index) == len(faults.keep) == len(faults.toggle)
        assert (faults.index.diff() > 0).all() and (faults.index < SIZES[layer]).all() and (faults.index >= 0).all()
        assert ((faults.keep != 255) | (faults.toggle != 0)).all()
    assert not any(len(faults.index) for faults in named(name, 0).draw(SIZES, 1).values())


# ----------------------------------------------------------------------------------------------------------- nestedness
rates = st.floats(0, 0.999)
seeds = st.integers(0, 2**32 - 2)


def assert_nested(lower: tuple[np.ndarray, np.ndarray], higher: tuple[np.ndarray, np.ndarray]) -> None:
    """Every cell faulty in `lower` is faulty in `higher`, and reads the same there."""
    assert not (lower[0] & ~higher[0]).any()
    np.testing.assert_array_equal(lower[1], higher[1] & lower[0])


@settings(max_examples=6)
@given(one=rates, other=rates, seed=seeds)
def test_a_release_map_at_a_lower_rate_is_a_subset(one, other, seed):
    low, high = sorted((one, other))
    assert_nested(dense_cells(ReleaseMap(low), SIZES, seed), dense_cells(ReleaseMap(high), SIZES, seed))


@pytest.mark.parametrize("kind", INDEPENDENT)
@settings(max_examples=80)
@given(pairs=st.lists(st.tuples(rates, rates), min_size=1, max_size=8), seed=seeds)
def test_a_pattern_at_lower_rates_is_a_subset(kind, pairs, seed):
    """With a rate for each bit, or, from a single pair, one rate for all of them."""
    pairs = pairs if len(pairs) > 1 else pairs * 8
    low, high = (tuple(pick(pair) for pair in pairs) for pick in (min, max))
    low, high = ((kind(each[0]) if len(set(each)) == 1 else kind(0.1, each)) for each in (low, high))
    assert_nested(dense_cells(low, SIZES, seed, len(pairs)), dense_cells(high, SIZES, seed, len(pairs)))


# --------------------------------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("kind", [BitFlips, StuckAt, ReleaseMap])
@settings(max_examples=15)
@given(bits=st.sets(st.integers(0, 7)), seed=seeds)
def test_a_pattern_limited_to_bits_is_the_full_one_s_restriction(kind, bits, seed):
    chosen = np.isin(np.arange(8), list(bits))
    limited = kind(0.03, tuple(0.03 if keep else 0.0 for keep in chosen))
    for part, whole in zip(dense_cells(limited, SIZES, seed), dense_cells(kind(0.03), SIZES, seed)):
        np.testing.assert_array_equal(part, whole & chosen)


@pytest.mark.parametrize("kind", [BitFlips, StuckAt, ReleaseMap])
@pytest.mark.parametrize("layers", [("b",), ("a", "c"), ("c", "b", "a")])
def test_a_pattern_limited_to_layers_is_the_full_one_s_restriction(kind, layers):
    whole, part = kind(0.05).draw(SIZES, 9), kind(0.05, layers=layers).draw(SIZES, 9)
    assert same(part, {name: whole[name] for name in SIZES if name in layers})


def test_layers_and_bit_rates_that_do_not_fit_are_refused(refused):
    with refused("'0.weight'"):  # the nearest name
        BitFlips(0.1, layers=("0.weigth",)).draw({"0.weight": 4, "classifier": 4}, 0)
    with refused("7 bit rates"):
        StuckAt(0.1, (0.1,) * 7).draw(SIZES, 0)
    with refused("ReleaseMap"):
        ReleaseMap(0.1, (0.1,) * 7 + (0.2,)).draw(SIZES, 0)


LONG = [10**399, -(10**399), 10**5000, 10**5000 * -1]
NO_RATES = [-0.01, 1, 1.0, 1.5, math.nan, math.inf, -math.inf, 1e-2j, "0.01", "", "nan", None, True, [0.1], np.eye(9), *LONG]


@pytest.mark.parametrize("rate", NO_RATES, ids=lambda rate: type(rate).__name__)
def test_what_is_no_fraction_below_one_is_refused_in_one_short_line(rate, refused):
    with pytest.raises(UserError) as refusal:
        check_rate(rate)
    assert len(str(refusal.value)) < 200 and "\n" not in str(refusal.value)
    for build in (*(lambda name=name: named(name, rate) for name in ERROR_MODELS), lambda: BitFlips(0.1, (rate,) * 8)):
        with refused("bit-error rate"):
            build()


@pytest.mark.parametrize("name", ["bit_flip", None, 3])
def test_an_unknown_error_model_is_refused_with_right_names(name, refused):
    with refused("bit_flips"):
        named(name, 0.01)


# ------------------------------------------------------------------------------------------------------------- one chip
@pytest.mark.parametrize("name", ERROR_MODELS)
def test_patterns_depend_on_the_seed_alone(name):
    """Equal for every number of threads, after any use of the global generators, and twice; and leave those alone."""
    model, threads = named(name, 0.02), torch.get_num_threads()
    first = model.draw(SIZES, 11)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert same(first, model.draw(SIZES, 11))
    finally:
        torch.set_num_threads(threads)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1), torch.manual_seed(1)
    assert same(first, model.draw(SIZES, 11))
    assert len({digest(model.draw(SIZES, seed)) for seed in range(11, 16)}) == 5


@pytest.fixture(params=["compiled", "without numba"])
def loops(request, monkeypatch):
    """Loops over faults as numba compiles them, and what stands in for them where there are only torch and numpy."""
    _kernels._compiled.cache_clear()
    if request.param == "without numba":
        monkeypatch.setitem(sys.modules, "numba", None)  # an import of it fails
    assert bool(_kernels._compiled(_kernels.patch.__wrapped__)) == (request.param == "compiled")
    yield
    _kernels._compiled.cache_clear()


@pytest.mark.parametrize("name, bits", PINNED)
def test_patterns_never_change(name, bits, loops):
    """Pinned: a record's accuracies mean nothing for another pattern of the same seed."""
    assert {name for name, _ in PINNED} == set(ERROR_MODELS) == set(LABELS)
    assert digest(named(name, 0.0123).draw({"a": 3000, "b": 1000}, 50000, bits)) == PINNED[name, bits]


@pytest.mark.parametrize("kind, pinned", [(BitFlips, "d100f3bc6e5aa9ba"), (StuckAt, "054725b874b4441a")])
def test_a_large_pattern_never_changes(kind, pinned, loops):
    """More faulty cells in a band than are drawn at a time, in layers that differ in size."""
    pattern = kind(0.05, (0.05, 0.001, 0.05, 0.0, 0.3, 0.01, 0.05)).draw({"a": 1000, "b": 400_000, "c": 50}, 4, 7)
    assert digest(pattern) == pinned and len(pattern["b"].index) > 3 * _CHUNK


def test_positions_go_on_where_more_cells_fail_than_six_deviations_allow_for():
    class Dense:
        def standard_exponential(self, count: int) -> np.ndarray:
            return np.zeros(count)  # every gap is the shortest: every cell fails

    found = _successes(Dense(), 100, 0.01)
    assert found.dtype == np.int64 and (found == np.arange(100)).all()


@pytest.mark.parametrize("trouble", ["no place for a cache", "damaged cache"])
def test_where_numba_fails_numpy_goes_on_and_says_nothing(trouble, tmp_path, monkeypatch, capfd):
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    if trouble == "damaged cache":
        _kernels._compiled.cache_clear()
        named("stuck_at", 0.1).draw(SIZES, 0)
        for file in [*tmp_path.rglob("*.nbi"), *tmp_path.rglob("*.nbc")]:
            file.write_bytes(file.read_bytes()[:40])
    else:
        monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    _kernels._compiled.cache_clear()
    pattern = named("stuck_at", 0.0123).draw({"a": 3000, "b": 1000}, 50000)
    assert not _kernels._compiled(_kernels._merge.__wrapped__) and not _kernels._compiled(_kernels._gather.__wrapped__)
    _kernels._compiled.cache_clear()
    assert digest(pattern) == PINNED["stuck_at", 8] and capfd.readouterr() == ("", "")


# ----------------------------------------------------------------------------------------------------- applied to codes
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
    read = LayerFaults(index, keep, torch.full_like(masks, half)).hit(codes, bits).int()
    assert torch.equal(read, codes.int() + torch.where(codes < 0, half, -half))


def test_the_sign_slip_leaves_signs_alone_and_leaves_the_range():
    """At 4 bits, +3 with its sign bit stuck at 1 becomes +11 in the official code, and -5 in a memory."""
    codes, index = torch.tensor([3, -5], dtype=torch.int8), torch.tensor([0, 1])
    keep, toggle = torch.tensor([0b11110111] * 2, dtype=torch.uint8), torch.tensor([0b1000] * 2, dtype=torch.uint8)
    assert LayerFaults(index, keep, toggle, sign_slip=True).hit(codes, 4).tolist() == [11, -5]
    assert LayerFaults(index, keep, toggle).hit(codes, 4).tolist() == [-5, -5]


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("name", ERROR_MODELS)
def test_a_perturbed_model_s_weights_are_the_faulted_codes_decoded(name, bits, loops):
    """Against a dense reference: codes from the float weights, each stored bit read on its own, then times the scale."""
    base, pattern = small_base(bits), named(name, 0.1).draw(small_base(bits).sizes, 3, bits)
    original, changed = {name: p.clone() for name, p in base.model.state_dict().items()}, 0
    with perturbed(base, pattern) as entered:
        assert entered is base
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
    base.scales = {name: scale.double() / 3 for name, scale in base.scales.items()}  # no power of two: float32 rounds
    weight, codes = base.layers["0"].weight, base.codes["0"]
    weight.data.copy_((codes.double() * base.scales["0"]).view_as(weight))
    before, pattern = weight.clone(), BitFlips(0.2).draw(base.sizes, 0)
    with perturbed(base, pattern):
        index = pattern["0"].index
        assert torch.equal(weight.flatten()[index], pattern["0"].hit(codes[index]).double() * base.scales["0"])
    assert torch.equal(weight, before)


@pytest.mark.parametrize("channels_last", [False, True])
def test_leaving_restores_every_bit(channels_last, loops):
    """In the end, after a failure, from within another pattern, without gradients, and where applying itself fails."""
    base = small_base()
    if channels_last:
        base = Quantized(base.model.to(memory_format=torch.channels_last))
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    flips, stuck = (kind(0.2).draw(base.sizes, 0) for kind in INDEPENDENT)

    def intact() -> bool:
        return all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())

    with pytest.raises(ZeroDivisionError), perturbed(base, flips):
        assert not intact()
        1 / 0
    assert intact()
    with perturbed(base, flips), torch.inference_mode(), perturbed(base, stuck):
        assert not intact()
    assert intact()
    for last, failure in (("no such layer", KeyError), ("3", IndexError)):  # which has no weight so far behind
        pattern = BitFlips(0.3).draw({"0": base.sizes["0"], last: 9 * base.sizes["3"]}, 0)
        with pytest.raises(failure), perturbed(base, pattern):
            pass
        assert intact()


# ------------------------------------------------------------------------------------------------------- profiled chips
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
    rows = [row[k * bits : (k + 1) * bits] for row in cells for k in range(cells.shape[1] // bits)]
    return np.array([rows[i % len(rows)] for i in range(weights)])


@pytest.mark.parametrize("bits", [3, 8])
def test_a_chip_map_is_read_as_it_was_profiled(chip, bits):
    """From a row that goes by the seed: the first one for seed 0."""
    path, zero, one = chip
    possible = [[words(np.roll(cells, -k, 0), 63, bits).tobytes() for cells in (zero | one, one)] for k in range(6)]
    model, found = named(f"chip_map:{path}", 0.01), []
    for seed in range(40):
        read = dense_cells(model, {"a": 50, "b": 13}, seed, bits)
        assert not read[0][:, bits:].any()
        found.append(possible.index([cells[:, :bits].tobytes() for cells in read]))
    assert found[0] == 0 and set(found) == set(range(6))


def test_a_chip_map_limited_to_layers_or_bits(chip):
    sizes = {"a": 50, "b": 13}
    limited = ChipMap(path=chip[0], layers=("b",)).draw(sizes, 0)
    assert same(limited, {"b": ChipMap(path=chip[0]).draw(sizes, 0)["b"]})
    faulty, _ = dense_cells(ChipMap(0.01, (0.0,) * 7 + (0.01,), path=chip[0]), sizes, 0)
    assert faulty[:, 7].any() and not faulty[:, :7].any()


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float64])
def test_a_chip_has_a_bit_error_rate_of_its_own_whatever_its_zeros_and_ones_are_stored_as(kind, chip, tmp_path):
    path, zero, one = chip
    np.savez_compressed(tmp_path / "same.npz", stuck_at_0=zero.astype(kind), stuck_at_1=one.astype(kind))
    model = ChipMap(0.5, path=str(tmp_path / "same.npz"))
    assert model.ber == named(f"chip_map:{path}", 0.01).ber == (zero | one).sum() / zero.size
    assert same(model.draw(SIZES, 3), ChipMap(path=path).draw(SIZES, 3))


def _refuses(refused, path: Path, word: str) -> None:
    """Every use of the file is refused in one line that names it and has the word in it."""
    for use in (ChipMap.load, lambda chip: chip.ber, lambda chip: chip.draw(SIZES, 0)):
        with refused(rf"chip map '.*{path.name}'.*{word}"):
            use(ChipMap(path=str(path)))


NO_CELLS = {
    "nan": lambda cells: np.where(cells, 1, np.nan),
    "-1": lambda cells: np.where(cells, 1, -1),
    "0.3": lambda cells: np.where(cells, 0.3, 0),  # probabilities
    "19": lambda cells: np.tile([[19], [0]], (3, 20)),  # indices of cells
    "str": lambda cells: cells.astype(str),  # "False" would be true
    "Object": lambda cells: cells.astype(object),
    "complex": lambda cells: cells.astype(complex),
}


@pytest.mark.parametrize("word", NO_CELLS)
def test_chip_maps_of_other_values_than_zero_and_one_are_refused(word, chip, tmp_path, refused):
    _, zero, one = chip
    np.savez(tmp_path / "bad.npz", stuck_at_0=NO_CELLS[word](zero), stuck_at_1=one & ~zero)
    _refuses(refused, tmp_path / "bad.npz", word)


def test_files_that_are_no_chip_map_or_contradict_themselves_are_refused(chip, tmp_path, refused):
    path, zero, one = chip
    whole, nothing = Path(path).read_bytes(), np.zeros((0, 16), bool)
    np.save(tmp_path / "one.npy", zero)
    np.savetxt(tmp_path / "table.csv", zero, delimiter=",")
    np.savez(tmp_path / "half.npz", stuck_at_0=zero)
    for name, content in {"cut": whole[:500], "bits": whole.replace(b"\0\1", b"\1\0"), "empty": b""}.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "inner.npz", "w") as archive:
        archive.writestr("stuck_at_0.npy", whole)
    pairs = {"both": (zero, one | zero), "shapes": (zero, one[:-1]), "flat": (zero.ravel(), one.ravel())}
    for name, (first, second) in (pairs | {"nothing": (nothing, nothing), "narrow": (zero[:, :7], one[:, :7])}).items():
        np.savez(tmp_path / f"{name}.npz", stuck_at_0=first, stuck_at_1=second)
    found = {"one.npy": ".npy", "half.npz": "stuck_at_1", "missing.npz": "no such file", ".": "no such file"}
    found |= {f"{name}.npz": "read" for name in ("cut", "bits", "empty", "inner")} | {"table.csv": "zip"}
    for name, word in (found | {f"{name}.npz": "arrays" for name in pairs} | {"nothing.npz": "arrays"}).items():
        _refuses(refused, tmp_path / name, word)
    with refused("7 columns"):
        ChipMap(path=str(tmp_path / "narrow.npz")).draw(SIZES, 0)
    with refused("no such file"):
        ChipMap(path="a\0b").digest


def test_a_chip_map_is_not_unpacked_where_it_is_too_large(tmp_path, monkeypatch, refused):
    """By its declared size, which is looked at before; a member that lies about it is not unpacked any further."""
    monkeypatch.setattr("nflib.faults.CHIP_BYTES", 2000)
    cells, unpacked, read = np.zeros((1000, 50), bool), [], zipfile.ZipFile.read
    np.savez(tmp_path / "long.npz", stuck_at_0=cells, stuck_at_1=cells)
    np.savez_compressed(tmp_path / "bomb.npz", stuck_at_0=cells, stuck_at_1=cells)
    content = (tmp_path / "bomb.npz").read_bytes()
    liar = content.replace((50128).to_bytes(4, "little"), (1128).to_bytes(4, "little"))
    (tmp_path / "liar.npz").write_bytes(liar)
    assert len(content) < 2000 and liar != content
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *given: unpacked.append(given) or read(*given))
    for name in ("bomb.npz", "long.npz"):
        _refuses(refused, tmp_path / name, "too large")
    assert not unpacked
    _refuses(refused, tmp_path / "liar.npz", "CRC")


# ---------------------------------------------------------------------------------------------------------- drawn ahead
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_patterns_drawn_ahead_come_in_order_each_once_and_not_far_ahead(device):
    """The threads need no GPU to be tried: the device only says whether they draw ahead."""
    drawn, device = [], torch.device(device)

    def draw(key: int) -> int:
        time.sleep(0.001 * (key % 3))
        drawn.append(key)
        return 10 // (31 - key)

    stream = ahead(draw, itertools.count(), device)
    assert [next(stream) for _ in range(31)] == [10 // (31 - key) for key in range(31)]
    assert len(drawn) == len(set(drawn)) <= 31 + 2 * DRAWING_THREADS
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert list(ahead(draw, range(3), device)) == [0, 0, 0] and list(ahead(draw, [], device)) == []
