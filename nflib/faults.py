"""Error models, and the error patterns (one draw: one "chip") that they give.

A pattern is sparse: for each layer the positions of the weights that it touches and, for each, two bytes, so that the
stored code becomes (code & keep) ^ toggle.  A flipped bit keeps and toggles; a cell stuck at 0 does not keep; a cell
stuck at 1 does not keep and toggles.  Patterns come from numpy generators on the host, seeded by a whole number: equal
on every device and for every number of threads, and nested in the rate (equal seeds, lower rate: a subset).

A memory holds the layers one after another, each weight in `bits` neighbouring cells, the lowest bit first: cell
bits * w + b is bit b of weight w.
"""

import hashlib
import itertools
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nflib.names import UserError, choose
from nflib.quantize import Quantized, check_bits, decode

CPU = torch.device("cpu")
TRAINING_PATTERNS = 30001  # seeds 0 to 30000, as in the official code; evaluation starts at 50000
DRAWING_THREADS = 6  # that draw ahead for a GPU
CHIP_BYTES = 2**28  # that the arrays of a profiled chip may take; more is not unpacked
MAP_ROWS, MAP_COLUMNS = 8192, 128  # of the official code's map
_BANDS = [0.0, *(0.01 * 2.0**k for k in range(-10, 7)), 1.0]  # of rates; one at an edge wastes no draw
_GAPS, _MARKS, _VALUES = range(3)  # what a stream is for
K, T = TypeVar("K"), TypeVar("T")


def check_rate(rate: float) -> float:
    """Return `rate` if it is a bit-error rate, a fraction in [0, 1); raise UserError otherwise."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise UserError(f"bit-error rate is {rate!r:.40}; allowed are fractions in [0, 1), for example 0.01 for 1 %")
    return rate


# ------------------------------------------------------------------------------------------------------- error patterns


@dataclass(frozen=True)
class LayerFaults:
    """Faults of one layer: index (int64 [n], flat, C order, ascending), keep and toggle (uint8 [n]).

    sign_slip: a code of b < 8 bits lies sign-extended in its byte and is read back as that byte, so that a fault in its
    sign bit does not change the sign; False reads b-bit two's complement.
    """

    index: Tensor
    keep: Tensor
    toggle: Tensor
    sign_slip: bool = False

    def to(self, device: torch.device) -> "LayerFaults":
        """The same faults on `device`."""
        parts = (part.to(device, non_blocking=device.type == "cuda") for part in (self.index, self.keep, self.toggle))
        return LayerFaults(*parts, self.sign_slip)

    def of_bits(self, mask: int) -> "LayerFaults":
        """The faults of the bits that `mask` has; the others are read as they are stored."""
        keep, toggle = self.keep | (0xFF ^ mask), self.toggle & mask
        left = (keep != 0xFF) | (toggle != 0)
        return LayerFaults(self.index[left], keep[left], toggle[left], self.sign_slip)

    def read(self, codes: Tensor, bits: int = 8) -> Tensor:
        """Codes (int8 [n]) that are read back where `codes` (int8 [n], those at `index`) of `bits` bits are stored."""
        raw = (codes.view(torch.uint8) & self.keep) ^ self.toggle
        return raw.view(torch.int8) if self.sign_slip else (raw << (8 - bits)).view(torch.int8) >> (8 - bits)


Pattern = dict[str, LayerFaults]


def by_layer(sizes: Mapping[str, int], faults: LayerFaults) -> Pattern:
    """Cut the faults of a whole memory into those of its layers, of `sizes` weights each."""
    starts = np.cumsum([0, *sizes.values()])
    cuts = np.searchsorted(faults.index.numpy(), starts)
    return {
        name: LayerFaults(faults.index[a:b] - int(start), faults.keep[a:b], faults.toggle[a:b])
        for name, start, a, b in zip(sizes, starts, cuts, cuts[1:])
    }


def ahead(draw: Callable[[K], T], keys: Iterable[K], device: torch.device) -> Iterator[T]:
    """draw(key) for each of the keys, in order.

    For a GPU, threads of the host draw ahead of time: it would wait several times as long for a pattern as it computes
    with one.  Where the host itself computes, it draws when it is asked to.  What `draw` raises is raised in its turn.
    """
    if device.type == "cpu":
        yield from map(draw, keys)
        return
    keys = iter(keys)
    with ThreadPoolExecutor(DRAWING_THREADS) as pool:
        waiting = deque(pool.submit(draw, key) for key in itertools.islice(keys, 2 * DRAWING_THREADS))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(draw, key) for key in itertools.islice(keys, 1))


# ------------------------------------------------------------------------------------ error models by independent cells


@dataclass(frozen=True)
class ErrorModel:
    """How bits err.

    rate: share of cells that are faulty, a fraction in [0, 1).  hit_bits, layers: numbers of the bits (0 is the lowest) and
    names of the layers that errors hit; empty means all.  A limited pattern is the full pattern of the same seed with the
    other bits and layers left out.  Raises UserError for a rate outside [0, 1).
    """

    rate: float
    hit_bits: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        check_rate(self.rate)

    @property
    def ber(self) -> float:
        """The bit-error rate of its chips, a fraction: the rate, unless a map decides."""
        return self.rate

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        """The pattern of `seed` (whole number >= 0) for layers of `sizes` (weights each, in memory order), on `device`.

        Raises UserError where `layers` has a name that the model does not have, or for a width outside 2 to 8.
        """
        for name in self.layers:
            choose("layer", name, sizes)
        pattern = self._pattern(sizes, seed, check_bits(bits))
        if self.hit_bits:
            mask = sum(1 << bit for bit in self.hit_bits)
            pattern = {name: faults.of_bits(mask) for name, faults in pattern.items()}
        return {name: pattern[name].to(device) for name in sizes if name in (self.layers or sizes)}

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        """The pattern of all layers, on the host."""
        raise NotImplementedError


@dataclass(frozen=True)
class BitFlips(ErrorModel):
    """Every stored bit flips with probability `rate`, independently: the definition in the paper's text."""

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        index, faulty, _ = _faulty_weights(sum(sizes.values()), bits, self.rate, seed)
        return by_layer(sizes, _layer(index, np.full_like(faulty, 0xFF), faulty))


@dataclass(frozen=True)
class StuckAt(ErrorModel):
    """Every cell is faulty with probability `rate`, independently, and then reads 0 or 1 with equal chance.

    Where the stored bits are as often 0 as 1, half as many bits change as are faulty.
    """

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        index, faulty, ones = _faulty_weights(sum(sizes.values()), bits, self.rate, seed)
        return by_layer(sizes, _layer(index, ~faulty, ones))


def _layer(index: np.ndarray, keep: np.ndarray, toggle: np.ndarray, sign_slip: bool = False) -> LayerFaults:
    return LayerFaults(*map(torch.from_numpy, (index, keep, toggle)), sign_slip)


def _faulty_weights(weights: int, bits: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights with a faulty cell (int64 [n], ascending), their faulty bits, and those that read one (uint8 [n]).

    Each cell has a uniform mark in [0, 1) and is faulty where the rate is above the mark: hence the nestedness.  Marks
    are drawn band by band of rates, and only for the cells in a band, so that the work goes with the rate.  A cell is
    drawn into a band with probability width / (1 - lower edge) and counts in the lowest band that it is drawn into:
    it is there with probability (1 - lower edge) * width / (1 - lower edge), which is the band's width.
    """
    bands = range(max(1, np.searchsorted(_BANDS, rate)))
    cells, ones = map(np.concatenate, zip(*(_in_band(band, weights * bits, rate, seed) for band in bands)))
    cells, first = np.unique(cells, return_index=True)  # of a cell in several bands the lowest one
    index, starts = np.unique(cells // bits, return_index=True)
    masks = np.left_shift(1, cells % bits).astype(np.uint8)
    return index, *(np.bitwise_or.reduceat(some, starts) for some in (masks, masks * ones[first]))


def _in_band(band: int, cells: int, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The faulty ones of the cells drawn into a band (int64 [n], ascending), and which of these read one (bool [n])."""
    low, high = _BANDS[band : band + 2]
    found = _successes(_stream(seed, band, _GAPS), cells, (high - low) / (1 - low))
    ones = _stream(seed, band, _VALUES).random(len(found)) < 0.5
    if rate >= high:  # every mark is below it
        return found, ones
    below = low + (high - low) * _stream(seed, band, _MARKS).random(len(found)) < rate
    return found[below], ones[below]  # a cell that is dropped here is so in higher bands, too: marks are larger there


def _stream(seed: int, band: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, band, purpose])))


def _successes(stream: np.random.Generator, trials: int, probability: float) -> np.ndarray:
    """Ascending positions (int64) of the successes among `trials` independent trials.

    The gap from one to the next is geometric: an exponential number over -log(1 - probability), rounded up.
    """
    if probability >= 1:
        return np.arange(trials)
    mean, positions = trials * probability, np.array([-1])
    while positions[-1] < trials:  # once, but for a draw beyond six standard deviations
        gaps = stream.standard_exponential(int(mean + 6 * mean**0.5 + 16)) / -np.log1p(-probability)
        positions = np.append(positions, positions[-1] + np.cumsum(gaps.astype(np.int64) + 1))
    return positions[1 : np.searchsorted(positions, trials)]


# ------------------------------------------------------------------------------------------------- error models by maps


def _words(cells: np.ndarray, bits: int) -> np.ndarray:
    """Words (uint8 [rows, columns // bits]) of a map's cells (bool [rows, columns]); columns left over are unused."""
    words = cells.shape[1] // bits
    return cells[:, : words * bits].reshape(len(cells), words, bits) @ (1 << np.arange(bits)).astype(np.uint8)


def _read_over_and_over(stuck: np.ndarray, ones: np.ndarray, weights: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, keep and toggle of `weights` weights, read from a map's words one after another, from the first again when it
    is full.  stuck, ones: the faulty bits of each word, and those of them that read one (uint8 [words])."""
    index = np.flatnonzero(np.resize(stuck, weights) != 0)
    word = index % len(stuck)
    return index, ~stuck[word], ones[word]


@dataclass(frozen=True)
class ReleaseMap(ErrorModel):
    """The official code's stuck-at map of 8192 x 128 cells, bit for bit: the published numbers were measured under it.

    Seeds are the official ones (training 0 to 30000, evaluation 50000 to 50009).  Each layer starts at row 0.
    tiling_slip: True lays each row out as often as it has words (the code's slip: weight i reads row i // 256 and word
    i % 16 at 8 bits); False reads row after row, as was meant.  map_per_layer: True draws a map of its own for each
    layer (seed + 100003 * layer number); False uses one for all, as the code does.
    sign_slip: True reads codes of fewer than 8 bits back as the code does (see LayerFaults); False, two's complement.
    Source: `randomfault.py` and `zs_faultinjection_ops.py` of the official code; golden cases in tests/data.
    """

    tiling_slip: bool = True
    map_per_layer: bool = False
    sign_slip: bool = False

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        pattern, largest = {}, max(sizes.values(), default=0)
        for number, (name, size) in enumerate(sizes.items()):
            if self.map_per_layer or number == 0:
                words = self._map((seed + 100003 * number) % 2**32, bits, largest)
            pattern[name] = _layer(*_read_over_and_over(*words, size), self.sign_slip)
        return pattern

    def _map(self, seed: int, bits: int, weights: int) -> tuple[np.ndarray, np.ndarray]:
        """Stuck bits and those that read one, of the words in the order in which weights are read from them; rows that
        the first `weights` weights do not reach are left out."""
        words = MAP_COLUMNS // bits
        repeats = words if self.tiling_slip else 1
        rows = min(MAP_ROWS, -(-weights // (repeats * words)))
        stuck = np.random.RandomState(seed).rand(rows, MAP_COLUMNS) < self.rate
        ones = stuck & (np.random.RandomState(seed + 1).rand(rows, MAP_COLUMNS) < 0.5)
        return tuple(np.repeat(_words(cells, bits), repeats, axis=0).ravel() for cells in (stuck, ones))


@dataclass(frozen=True)
class ChipMap(ErrorModel):
    """A profiled chip, read from an .npz file.

    The file holds arrays `stuck_at_0` and `stuck_at_1` [rows, columns], boolean or of 0 and 1.
    Weights lie in the rows one after another, layer after layer, lowest bit first, and start over when the map is full.
    The seed rotates the map by a drawn number of rows (seed 0: none).  The map decides which cells are faulty: their
    share is `ber`; `rate` has no effect.  Drawing, loading and `ber` raise UserError where the file is missing, damaged,
    of another kind, or contradicts itself.
    """

    rate: float = 0.0
    path: str = ""

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells stuck at 0 and at 1, bool [rows, columns]."""
        try:
            if not Path(self.path).is_file():
                raise FileNotFoundError("No such file")
            with open(self.path, "rb") as file:
                start = file.read(6)
            if start == b"\x93NUMPY":
                raise ValueError("it is a single .npy array")
            if start.isascii() and start[:2] not in (b"", b"PK"):
                raise ValueError("it is text")
            with zipfile.ZipFile(self.path) as archive:
                if sum(member.file_size for member in archive.infolist()) > CHIP_BYTES:
                    raise ValueError(f"its arrays declare more than {CHIP_BYTES:,} bytes")
            with np.load(self.path) as file:
                zero, one = file["stuck_at_0"], file["stuck_at_1"]
        except Exception as error:  # zipfile, zlib and numpy have a dozen of them
            raise self._refusal(f"cannot be read as an .npz file: {error}") from None
        if zero.ndim != 2 or not zero.size or zero.shape != one.shape:
            raise self._refusal("is not two filled arrays [rows, columns] of one shape")
        for name, cells in (("stuck_at_0", zero), ("stuck_at_1", one)):
            if cells.dtype.kind not in "biuf":
                raise self._refusal(f"has {cells.dtype.name} in {name}, not booleans or 0 and 1")
            if (wrong := cells[~np.isin(cells, (0, 1))]).size:
                raise self._refusal(f"has {wrong[0]:g} in {name}, not booleans or 0 and 1 only")
        if (zero.astype(bool) & one.astype(bool)).any():
            raise self._refusal("has cells that are stuck at 0 and at 1")
        return zero.astype(bool), one.astype(bool)

    @property
    def ber(self) -> float:
        """The chip's own bit-error rate: the share of its cells that are stuck, a fraction."""
        zero, one = self.load()
        return float((zero | one).mean())

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        try:
            return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()
        except OSError as error:
            raise self._refusal(f"cannot be read: {error.strerror}") from None

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"chip map {self.path!r} {reason}")

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        zero, one = self.load()
        if zero.shape[1] < bits:
            raise self._refusal(f"has {zero.shape[1]} columns, fewer than the {bits} bits of a code")
        start = 0 if seed == 0 else int(np.random.default_rng(seed).integers(len(zero)))
        words = (np.roll(_words(cells, bits), -start, axis=0).ravel() for cells in (zero | one, one))
        return by_layer(sizes, _layer(*_read_over_and_over(*words, sum(sizes.values()))))


ERROR_MODELS = {
    "bit_flips": BitFlips,
    "stuck_at": StuckAt,
    "release_map": ReleaseMap,
    "release_map_tiling_corrected": lambda rate: ReleaseMap(rate, tiling_slip=False),
    "release_map_per_layer": lambda rate: ReleaseMap(rate, tiling_slip=False, map_per_layer=True),
    "release_map_sign_slip": lambda rate: ReleaseMap(rate, sign_slip=True),
}
LABELS = {
    "bit_flips": "BitFlips",
    "stuck_at": "StuckAt",
    "release_map": "ReleaseMap",
    "release_map_tiling_corrected": "ReleaseMap, tiling corrected",
    "release_map_per_layer": "ReleaseMap, a map per layer",
    "release_map_sign_slip": "ReleaseMap, sign slip",
}


def is_chip_map(name: str) -> bool:
    """Whether an error model's name is "chip_map:PATH", a profiled chip's."""
    return isinstance(name, str) and name.startswith("chip_map:")


def named(name: str, rate: float) -> ErrorModel:
    """The error model of a name in ERROR_MODELS at a bit-error rate (fraction), or a ChipMap for "chip_map:PATH".

    Raises UserError for an unknown name or a rate outside [0, 1).  A chip has its own (`ber`): `rate` is not looked at.
    """
    if is_chip_map(name):
        return ChipMap(path=name.removeprefix("chip_map:"))
    return ERROR_MODELS[choose("error model", name, ERROR_MODELS)](check_rate(rate))


# ------------------------------------------------------------------------------------------ patterns applied to weights


@contextmanager
def perturbed(base: Quantized, pattern: Pattern) -> Iterator[Quantized]:
    """Patch the weights of `base` that `pattern` changes; put the old ones back on leaving, whatever happens."""
    undo = []
    try:
        for name, faults in pattern.items():
            weight = base.layers[name].weight.data.view(-1)
            faults = faults.to(weight.device)
            undo.append((weight, faults.index, weight.index_select(0, faults.index)))
            read = faults.read(base.codes[name].index_select(0, faults.index), base.bits)
            weight.index_copy_(0, faults.index, decode(read, base.scales[name]))
        yield base
    finally:
        for weight, index, old in reversed(undo):  # layers may share a weight
            weight.index_copy_(0, index, old)


def wrong_bits(base: Quantized, name: str, faults: LayerFaults) -> np.ndarray:
    """The bits of layer `name` that read differently under `faults`: marks in a byte a weight at `faults.index` (uint8 [n])."""
    faults = faults.to(base.codes[name].device)
    codes = base.codes[name].index_select(0, faults.index)
    return ((codes ^ faults.read(codes, base.bits)).view(torch.uint8) & (2**base.bits - 1)).cpu().numpy()


def changed_bits(base: Quantized, pattern: Pattern) -> int:
    """Number of stored bits that read differently under `pattern`."""
    return sum(int(np.bitwise_count(wrong_bits(base, name, faults)).sum()) for name, faults in pattern.items())
