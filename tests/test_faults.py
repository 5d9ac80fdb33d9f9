"""Error patterns: drawn as the error model says, one chip at every rate and on every machine, applied bit by bit."""

import hashlib
import itertools
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nflib.faults import DRAWING_THREADS, ERROR_MODELS, LABELS, _successes, check_rate
from nflib.faults import BitFlips, ChipMap, LayerFaults, ReleaseMap, StuckAt, ahead, changed_bits, named, perturbed
from nflib.quantize import Quantized, encode

GOLDEN = json.loads((Path(__file__).parent / "data" / "release-map-golden.json").read_text())["cases"]
SIZES, WEIGHTS = {"a": 300, "b": 77, "c": 1}, 40_000
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


def digest(pattern) -> str:
    content = hashlib.sha256()
    for name, faults in pattern.items():
        parts = (faults.index.numpy().astype("<i8"), faults.keep.numpy(), faults.toggle.numpy())
        content.update(name.encode() + b"".join(part.tobytes() for part in parts))
    return content.hexdigest()[:16]


def same(one, other) -> bool:
    return digest(one) == digest(other)


def assert_share(found: int, trials: int, probability: float) -> None:
    """A binomial count lies within five standard errors of its expectation."""
    assert abs(found - trials * probability) <= 5 * math.sqrt(trials * probability * (1 - probability)) + 1e-9


def small_base(bits: int = 8) -> Quantized:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.Flatten()]
    return Quantized(nn.Sequential(*layers, nn.Linear(4 * 7 * 7, 10)), bits)


def read_back(codes: np.ndarray, faults: LayerFaults, bits: int) -> np.ndarray:
    """Reference: the bits of every code (with the sign slip, of its byte) as they are read, as two's complement."""
    stored, bits = codes.astype(int), 8 if faults.sign_slip else bits
    for i, keep, toggle in zip(faults.index.tolist(), faults.keep.tolist(), faults.toggle.tolist()):
        stored[i] = stored[i] & keep ^ toggle
    return sum(((stored >> bit) & 1) * (-(2**bit) if bit == bits - 1 else 2**bit) for bit in range(bits))


# ----------------------------------------------------------------------------------------------------- the official map
@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['seed']}-{c['p']}-{'x'.join(map(str, c['shape']))}")
def test_release_map_equals_the_official_code(case):
    i = np.arange(case["n"], dtype=np.float64)
    weights = (np.sin(0.7 * i + 0.1) * np.cos(0.013 * i)).astype(np.float32).reshape(case["shape"])
    codes = encode(torch.from_numpy(weights))[0].flatten()
    faults = ReleaseMap(case["p"]).draw({"w": case["n"]}, case["seed"])["w"]
    read = codes.clone()
    read[faults.index] = faults.read(codes[faults.index])
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


# ---------------------------------------------------------------------------------------------------------------- rates
@pytest.mark.parametrize("kind", INDEPENDENT)
@pytest.mark.parametrize("rate", [1e-5, 0.0035, 0.005, 0.01, 0.015, 0.3, 0.9])
def test_cells_are_faulty_at_the_rate_and_independently(kind, rate):
    """All cells; each bit; 64 blocks; words with faulty cells; neighbouring cells, words and seeds."""
    faulty = np.stack([dense_cells(kind(rate), {"a": WEIGHTS - 7, "b": 7}, seed)[0] for seed in range(5)])
    for counts in (faulty.sum(keepdims=True).ravel(), faulty.sum((0, 1)), faulty.reshape(5, 64, -1).sum((0, 2))):
        for found in counts:
            assert_share(found, faulty.size // len(counts), rate)
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
        read = faults.read(codes[faults.index])
        assert_share(np.unpackbits((read ^ codes[faults.index]).view(torch.uint8).numpy()).sum(), 8 * WEIGHTS, share)
        assert torch.equal(faults.read(read), codes[faults.index] if share == rate else read)  # and stays so
    faulty, ones = dense_cells(model, {"w": WEIGHTS}, 4)
    assert_share(ones.sum(), int(faulty.sum()), 0.5)


# ------------------------------------------------------------------------------------------------ nestedness and limits
@pytest.mark.parametrize("kind", [BitFlips, StuckAt, ReleaseMap])
@settings(max_examples=80)
@given(rates=st.tuples(*2 * [st.floats(0, 0.999)]).map(sorted), seed=st.integers(0, 2**32 - 2), bits=st.integers(2, 8))
def test_a_pattern_at_a_lower_rate_is_a_subset(kind, rates, seed, bits):
    """What is faulty stays so and reads the same."""
    (faulty, ones), (more, more_ones) = (dense_cells(kind(rate), SIZES, seed, bits) for rate in rates)
    assert not (faulty & ~more).any()
    np.testing.assert_array_equal(ones, more_ones & faulty)


def test_a_limited_pattern_is_the_full_one_s_restriction(chip):
    """To some bits, to some layers, and to both."""
    kinds = [BitFlips(0.03), StuckAt(0.03), ReleaseMap(0.03), ChipMap(path=chip[0])]
    for whole, number in itertools.product(kinds, range(30)):
        bits, layers = np.random.default_rng(number).random(8) < 0.5 * (number % 3), tuple(sorted(SIZES)[: number % 4])
        limited = replace(whole, hit_bits=tuple(np.flatnonzero(bits).tolist()), layers=layers[::-1])
        there = np.repeat([not layers or name in layers for name in SIZES], list(SIZES.values()))[:, None]
        there = there & (bits | (not bits.any()))
        for part, cells in zip(dense_cells(limited, SIZES, number), dense_cells(whole, SIZES, number)):
            np.testing.assert_array_equal(part, cells & there)
        assert list(limited.draw(SIZES, number)) == [name for name in SIZES if not layers or name in layers]


def test_names_and_layers_that_do_not_fit_are_refused(refused):
    for name in ("bit_flip", None, 3):
        with refused("bit_flips"):
            named(name, 0.01)
    with refused("'layer'"):  # the nearest name
        BitFlips(0.1, layers=("layre",)).draw({"layer": 4, "classifier": 4}, 0)


@pytest.mark.parametrize("rate", [-0.01, 1, math.nan, math.inf, "0.01", None, [0.1], 10**400], ids=lambda x: f"{x!s:.9}")
def test_what_is_no_fraction_below_one_is_refused_in_one_short_line(rate, refused):
    for build in (check_rate, StuckAt, lambda rate: named("stuck_at", rate)):
        with refused("^bit-error rate is.{,150}$"):
            build(rate)


# ------------------------------------------------------------------------------------------------------------- one chip
@pytest.mark.parametrize("name", ERROR_MODELS)
def test_patterns_are_sparse_and_depend_on_the_seed_alone(name):
    """Equal for every number of threads, after any use of the global generators, and twice; and leave those alone."""
    model, threads = named(name, 0.02), torch.get_num_threads()
    first, before = model.draw(SIZES, 11), (np.random.get_state()[1].copy(), torch.get_rng_state())
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert same(first, model.draw(SIZES, 11))
    finally:
        torch.set_num_threads(threads)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(1), torch.manual_seed(1)
    assert same(first, model.draw(SIZES, 11)) and not same(first, model.draw(SIZES, 12))
    for layer, faults in first.items():
        assert (faults.index.dtype, faults.keep.dtype, faults.toggle.dtype) == (torch.int64, torch.uint8, torch.uint8)
        assert len(faults.index) == len(faults.keep) == len(faults.toggle)
        assert (faults.index.diff() > 0).all() and (faults.index < SIZES[layer]).all() and (faults.index >= 0).all()
        assert ((faults.keep != 255) | (faults.toggle != 0)).all()
    assert not any(len(faults.index) for faults in named(name, 0).draw(SIZES, 1).values())


@pytest.mark.parametrize("name, bits", PINNED)
def test_patterns_never_change(name, bits):
    """Pinned: a record's accuracies mean nothing for another pattern of the same seed."""
    assert {name for name, _ in PINNED} == set(ERROR_MODELS) == set(LABELS)
    assert digest(named(name, 0.0123).draw({"a": 3000, "b": 1000}, 50000, bits)) == PINNED[name, bits]


def test_a_large_pattern_never_changes():
    """Tens of thousands of faulty cells in a band, layers that differ in size."""
    for kind, pinned in ((BitFlips, "a8d5d384a7f1b44e"), (StuckAt, "bf117b71a5e7851a")):
        assert digest(kind(0.05).draw({"a": 1000, "b": 400_000, "c": 50}, 4, 7)) == pinned


def test_positions_go_on_where_more_cells_fail_than_six_deviations_allow_for():
    stream = SimpleNamespace(standard_exponential=np.zeros)  # every gap is the shortest: every cell fails
    assert _successes(stream, 100, 0.01).tolist() == list(range(100))


# ----------------------------------------------------------------------------------------------------- applied to codes
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_under_any_two_bytes_is_read_back_as_two_s_complement(bits):
    half = 2 ** (bits - 1)
    codes = torch.arange(-half, half).repeat_interleave(2 * half).to(torch.int8)
    masks = torch.arange(2 * half).repeat(2 * half).to(torch.uint8)
    for keep, toggle in ((torch.full_like(masks, 255), masks), (~masks, torch.zeros_like(masks)), (~masks, masks)):
        faults = LayerFaults(torch.arange(len(codes)), keep, toggle)
        np.testing.assert_array_equal(faults.read(codes, bits).numpy(), read_back(codes.numpy(), faults, bits))


def test_the_sign_slip_leaves_signs_alone_and_leaves_the_range():
    """At 4 bits, +3 with its sign bit stuck at 1 becomes +11 in the official code, and -5 in a memory."""
    codes, index = torch.tensor([3, -5], dtype=torch.int8), torch.tensor([0, 1])
    keep, toggle = torch.tensor([0b11110111] * 2, dtype=torch.uint8), torch.tensor([0b1000] * 2, dtype=torch.uint8)
    assert LayerFaults(index, keep, toggle, sign_slip=True).read(codes, 4).tolist() == [11, -5]
    assert LayerFaults(index, keep, toggle).read(codes, 4).tolist() == [-5, -5]


@pytest.mark.parametrize("bits, double", [(2, False), (5, True), (8, False), (8, True)])
@pytest.mark.parametrize("name", ERROR_MODELS)
def test_a_perturbed_model_s_weights_are_the_faulted_codes_decoded(name, bits, double):
    """Against a reference: codes from the float weights, each stored bit read on its own, then times the scale."""
    base, pattern = small_base(bits), named(name, 0.1).draw(small_base(bits).sizes, 3, bits)
    if double:
        base.model.double()
        base.scales = {name: scale.double() / 3 for name, scale in base.scales.items()}  # which float32 would round
        for name, layer in base.layers.items():
            layer.weight.data = (base.codes[name] * base.scales[name]).view_as(layer.weight)
    original, changed = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}, 0
    with perturbed(base, pattern) as entered:
        state = {name: tensor.clone() for name, tensor in entered.model.state_dict().items()}
    for key, tensor in state.items():
        layer, _, kind = key.rpartition(".")
        if layer not in base.layers or kind != "weight":
            assert torch.equal(tensor, original[key])  # biases and batch norm are never hit
            continue
        scale = base.scales[layer].numpy()
        codes = np.rint(original[key].numpy().ravel() / scale).astype(int)
        read = read_back(codes, pattern[layer], bits)
        np.testing.assert_array_equal(tensor.numpy().ravel(), read.astype(scale.dtype) * scale)
        changed += sum(bin(x).count("1") for x in ((read ^ codes) & (2**bits - 1)))  # the slip never leaves these bits
    assert entered is base and changed == changed_bits(base, pattern) > 0


def test_leaving_restores_every_bit():
    """In the end, after a failure, from within another pattern, without gradients, and where applying itself fails."""
    base = Quantized(small_base().model.to(memory_format=torch.channels_last))
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
    draw, path = np.random.default_rng(0).random((6, 20)), tmp_path / "chip.npz"
    np.savez(path, stuck_at_0=draw < 0.2, stuck_at_1=draw > 0.8)
    return str(path), draw < 0.2, draw > 0.8


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
        found.append(possible.index([cells[:, :bits].tobytes() for cells in read if not cells[:, bits:].any()]))
    assert found[0] == 0 and set(found) == set(range(6))


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


def test_files_that_are_no_chip_map_or_contradict_themselves_are_refused(chip, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("nflib.faults.CHIP_BYTES", 10**6)
    path, zero, one = chip
    np.save(tmp_path / "one.npy", zero)
    np.savez(tmp_path / "half.npz", stuck_at_0=zero)
    (tmp_path / "cut.npz").write_bytes(Path(path).read_bytes()[:500])
    (tmp_path / "bits.npz").write_bytes(Path(path).read_bytes().replace(b"\0\1", b"\1\0"))
    (tmp_path / "chip.csv").write_text("0,1\n")
    names = {"one.npy": "a single .npy array", "chip.csv": "text", "cut.npz": "cannot be read", "bits.npz": "CRC", "half.npz": "stuck_at_1"}
    pairs = {"shapes": (zero, one[:-1]), "flat": (zero.ravel(), one.ravel()), "nothing": (zero[:0], one[:0])}
    values = {"nan": np.where(zero, 1, np.nan), "less": np.where(zero, -1, 0), "share": np.where(zero, 0.3, 0)}
    values |= {"indices": np.tile([[19], [0]], (3, 20)), **{kind: zero.astype(kind) for kind in ("str", "complex")}}
    for name, (first, second) in (pairs | {name: (cells, one) for name, cells in values.items()}).items():
        np.savez(tmp_path / f"{name}.npz", stuck_at_0=first, stuck_at_1=second)
        names[f"{name}.npz"] = "arrays" if name in pairs else "0 and 1"
    np.savez(tmp_path / "both.npz", stuck_at_0=zero, stuck_at_1=one | zero)
    np.savez(tmp_path / "objects.npz", stuck_at_0=zero.astype(object), stuck_at_1=one)
    np.savez_compressed(tmp_path / "bomb.npz", stuck_at_0=np.zeros(10**6, bool), stuck_at_1=one)
    os.mkfifo(tmp_path / "pipe.npz")
    names |= {"both.npz": "stuck at 0 and at 1", "objects.npz": "read", "bomb.npz": "bytes", "pipe.npz": "file", "none.npz": "No such file"}
    for name, word in names.items():
        _refuses(refused, tmp_path / name, word)
    np.savez(tmp_path / "narrow.npz", stuck_at_0=zero[:, :7], stuck_at_1=one[:, :7])
    with refused("7 columns"):
        ChipMap(path=str(tmp_path / "narrow.npz")).draw(SIZES, 0)
    with refused("No such file"):
        ChipMap(path=str(tmp_path / "none.npz")).digest


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_patterns_drawn_ahead_come_in_order_each_once_and_not_far_ahead(device):
    drawn, device = [], torch.device(device)  # of which no GPU is needed: it only says whether threads draw ahead

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
