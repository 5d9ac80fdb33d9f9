"""Error models, and the error patterns (one draw: one "chip") that they give.

A pattern is sparse: for each layer the positions of the weights that it touches and, for each, two bytes, so that the
stored code becomes (code & keep) ^ toggle.  A flipped bit keeps and toggles; a cell stuck at 0 does not keep; a cell
stuck at 1 does not keep and toggles.  Patterns come from numpy generators on the host, seeded by a whole number: equal
on every device and for every number of threads, and nested in the rate (equal seeds, lower rate: a subset).

A memory holds the layers one after another, each weight in `bits` neighbouring cells, the lowest bit first: cell
bits * w + b is bit b of weight w.
"""

import functools
import hashlib
import io
import itertools
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from nflib.names import UserError, choose
from nflib.quantize import Quantized, check_bits, decode

CPU = torch.device("cpu")
TRAINING_PATTERNS = 30001  # seeds 0 to 30000, as in the official code; evaluation starts at 50000
DRAWING_THREADS = 6  # that draw ahead for a GPU
MAP_ROWS, MAP_COLUMNS = 8192, 128  # of the official code's map
CHIP_BYTES = 2**28  # a chip map's file, and each of its two arrays, may have
_BANDS = [0.0, *(0.01 * 2.0**k for k in range(-10, 7)), 1.0]  # of rates; one at an edge wastes no draw
_GAPS, _MARKS, _VALUES = range(3)  # what a stream is for
K, T = TypeVar("K"), TypeVar("T")


def check_rate(rate: float) -> float:
    """Return `rate` if it is a bit-error rate, a fraction in [0, 1); raise UserError otherwise."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise UserError(f"bit-error rate is {_shown(rate)}; allowed are fractions in [0, 1), for example 0.01 for 1 %")
    return rate


def _shown(value: object) -> str:
    """`value` in one short line; Python itself refuses to write a whole number of thousands of digits."""
    try:
        words = " ".join(repr(value).split())
    except ValueError:
        return "a number too long to be shown"
    return words if len(words) <= 80 else words[:77] + "..."


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

    def hit(self, codes: Tensor, bits: int = 8) -> Tensor:
        """Codes (int8 [n]) that are read back where `codes` (int8 [n], those at `index`) of `bits` bits are stored."""
        raw = (codes.view(torch.uint8) & self.keep) ^ self.toggle
        return raw.view(torch.int8) if self.sign_slip else (raw << (8 - bits)).view(torch.int8) >> (8 - bits)


Pattern = dict[str, LayerFaults]
Faults = tuple[np.ndarray, np.ndarray, np.ndarray]  # index, keep and toggle, as in LayerFaults


def _layer(faults: Faults, sign_slip: bool = False) -> LayerFaults:
    return LayerFaults(*map(torch.from_numpy, faults), sign_slip)


def _by_layer(sizes: Mapping[str, int], faults: Faults) -> Pattern:
    """Cut the faults of a whole memory into those of its layers."""
    (index, keep, toggle), pattern, start = faults, {}, 0
    for name, size in sizes.items():
        a, b = np.searchsorted(index, (start, start + size))
        pattern[name] = _layer((index[a:b] - start, keep[a:b], toggle[a:b]))
        start += size
    return pattern


def ahead(draw: Callable[[K], T], keys: Iterable[K], device: torch.device) -> Iterator[T]:
    """draw(key) for each of the keys, in order.

    For a GPU, threads of the host draw ahead of time: it would wait several times as long for a pattern as it computes
    with one.  Where the host itself computes, it draws when it is asked to.  What `draw` raises is raised in its turn.
    """
    if device.type == "cpu":
        yield from map(draw, keys)
        return
    keys, waiting = iter(keys), deque()
    pool = ThreadPoolExecutor(DRAWING_THREADS)
    try:
        for key in itertools.islice(keys, 2 * DRAWING_THREADS):
            waiting.append(pool.submit(draw, key))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(draw, key) for key in itertools.islice(keys, 1))
            yield found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# ------------------------------------------------------------------------------------ error models by independent cells


@dataclass(frozen=True)
class ErrorModel:
    """How bits err.

    rate: share of cells that are faulty, a fraction in [0, 1).  bit_rates: a rate of its own for each bit, lowest bit
    first, in place of `rate` (which then only names the error model); 0 spares a bit.  layers: names of the layers hit;
    empty means all.  A limited pattern is the full pattern of the same seed with the other bits and layers left out.
    Raises UserError for a rate outside [0, 1).
    """

    rate: float
    bit_rates: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        for rate in (self.rate, *self.bit_rates):
            check_rate(rate)

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        """The pattern of `seed` (whole number >= 0) for layers of `sizes` (weights each, in memory order), on `device`.

        Raises UserError where `layers` or `bit_rates` do not fit the model, ValueError for a width outside 2 to 8.
        """
        for name in self.layers:
            choose("layer", name, sizes)
        pattern = self._pattern(sizes, seed, check_bits(bits))
        return {name: faults.to(device) for name, faults in pattern.items() if name in (self.layers or sizes)}

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        """The pattern of all layers, on the host."""
        raise NotImplementedError

    def _rates(self, bits: int) -> np.ndarray:
        """The rate of each bit, float [bits]."""
        rates = np.array(self.bit_rates or (self.rate,) * bits, float)
        if len(rates) != bits:
            raise UserError(f"{len(rates)} bit rates for codes of {bits} bits; one for each bit is needed")
        return rates

    def _hittable(self, bits: int) -> np.uint8:
        """Mask of the bits that a map may hit: all but those whose own rate is 0; a map knows no third way."""
        rates = self._rates(bits) if self.bit_rates else np.ones(bits)
        if self.bit_rates and not set(rates) <= {0.0, float(self.rate)}:
            raise UserError(f"{type(self).__name__}: a bit rate must be 0 or the map's rate {self.rate:g}")
        return np.uint8(sum(1 << bit for bit in np.flatnonzero(rates)))


@dataclass(frozen=True)
class BitFlips(ErrorModel):
    """Every stored bit flips with probability `rate`, independently: the definition in the paper's text."""

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        index, faulty, _ = _faulty_weights(sum(sizes.values()), self._rates(bits), seed, stuck=False)
        return _by_layer(sizes, (index, np.full_like(faulty, 255), faulty))


@dataclass(frozen=True)
class StuckAt(ErrorModel):
    """Every cell is faulty with probability `rate`, independently, and then reads 0 or 1 with equal chance.

    Where the stored bits are as often 0 as 1, half as many bits change as are faulty.
    """

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        index, faulty, ones = _faulty_weights(sum(sizes.values()), self._rates(bits), seed, stuck=True)
        return _by_layer(sizes, (index, ~faulty, ones))


def _faulty_weights(weights: int, rates: np.ndarray, seed: int, stuck: bool) -> tuple[np.ndarray, ...]:
    """The weights with a faulty cell (int64 [n], ascending), their faulty bits, and those that read one (uint8 [n]).

    Each cell has a uniform mark in [0, 1) and is faulty where its rate is above the mark: hence the nestedness.  Marks
    are drawn band by band of rates, and only for the cells in a band, so that the work goes with the rate.  A cell is
    drawn into a band with probability width / (1 - lower edge) and counts in the lowest band that it is drawn into:
    it is there with probability (1 - lower edge) * width / (1 - lower edge), which is the band's width.
    """
    bits, bands = len(rates), max(1, int(np.searchsorted(_BANDS, rates.max())))
    keys = np.concatenate([_in_band(band, weights, rates, seed, stuck) for band in range(bands)])
    keys = np.sort(keys, kind="stable")  # which merges what is in order already: twenty times as fast as the default
    keys = keys[np.diff(keys >> 6, prepend=-1) > 0]  # of a cell in several bands the lowest one
    index, masks = (keys >> 6) // bits, np.uint8(1) << ((keys >> 6) % bits).astype(np.uint8)
    first = np.flatnonzero(np.diff(index, prepend=-1))
    marked = (masks, masks * (keys & 1).astype(np.uint8))
    return index[first], *(np.bitwise_or.reduceat(some, first) for some in marked)


def _in_band(band: int, weights: int, rates: np.ndarray, seed: int, stuck: bool) -> np.ndarray:
    """The faulty ones of the cells drawn into a band (int64 [n], ascending): 64 cell + 2 band + (1 if it reads one)."""
    low, high = _BANDS[band : band + 2]
    cells = _successes(_stream(seed, band, _GAPS), weights * len(rates), (high - low) / (1 - low))
    keys = cells << 6 | band << 1
    if stuck:
        keys |= _stream(seed, band, _VALUES).random(len(cells)) < 0.5
    if rates.min() >= high:  # every mark is below every rate
        return keys
    marks = low + (high - low) * _stream(seed, band, _MARKS).random(len(cells))
    rate = rates[0] if len(set(rates)) == 1 else rates[cells % len(rates)]
    return keys[marks < rate]  # a cell that is dropped here is so in higher bands, too: marks are larger there


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


class _Memory(NamedTuple):
    """Words of a map in the order in which weights are read from it; it starts over when it is full."""

    words: int
    index: np.ndarray  # int64 [n], ascending: the words with a stuck cell
    keep: np.ndarray  # uint8 [n]
    toggle: np.ndarray  # uint8 [n]

    @classmethod
    def of(cls, stuck: np.ndarray, ones: np.ndarray) -> "_Memory":
        """stuck: the faulty bits of each word (uint8 [words]).  ones: those of them that read one."""
        index = np.flatnonzero(stuck != 0)
        return cls(len(stuck), index, ~stuck[index], ones[index])

    def faults(self, weights: int) -> Faults:
        """Faults of as many weights, the first of which is in the first word."""
        passes = -(-weights // self.words)
        index = (self.index + self.words * np.arange(passes)[:, None]).ravel()
        index = index[: np.searchsorted(index, weights)]
        return index, np.resize(self.keep, len(index)), np.resize(self.toggle, len(index))


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
        pattern, memory = {}, None
        for number, (name, size) in enumerate(sizes.items()):
            if self.map_per_layer:
                memory = self._memory((seed + 100003 * number) % 2**32, bits, size)
            elif memory is None:
                memory = self._memory(seed, bits, max(sizes.values()))
            pattern[name] = _layer(memory.faults(size), self.sign_slip)
        return pattern

    def _memory(self, seed: int, bits: int, weights: int) -> _Memory:
        """The map, drawn row by row: rows that the first `weights` weights do not reach are left out."""
        words = MAP_COLUMNS // bits
        repeats = words if self.tiling_slip else 1
        rows = min(MAP_ROWS, max(1, -(-weights // (repeats * words))))
        stuck = np.random.RandomState(seed).rand(rows, MAP_COLUMNS) < self.rate
        ones = stuck & (np.random.RandomState(seed + 1).rand(rows, MAP_COLUMNS) < 0.5)
        bytes_of = (_words(cells, bits) & self._hittable(bits) for cells in (stuck, ones))
        return _Memory.of(*(np.repeat(each, repeats, axis=0).ravel() for each in bytes_of))


@dataclass(frozen=True)
class ChipMap(ErrorModel):
    """A profiled chip, read from an .npz file.

    The file holds arrays `stuck_at_0` and `stuck_at_1` [rows, columns], boolean or of 0 and 1, of at most CHIP_BYTES.
    Weights lie in the rows one after another, layer after layer, lowest bit first, and start over when the map is full.
    The seed rotates the map by a drawn number of rows (seed 0: none).  The map decides which cells are faulty: their
    share is `ber`; `rate` says nothing about the chip, it is only what a bit rate other than 0 has to be.
    Drawing, loading and `ber` raise UserError where the file is missing, damaged, too large, of another kind, or
    contradicts itself.
    """

    rate: float = 0.0
    path: str = ""

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells stuck at 0 and at 1, bool [rows, columns]."""
        content = self._content()
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                zero, one = (self._cells(archive, name) for name in ("stuck_at_0", "stuck_at_1"))
        except UserError:
            raise
        except Exception as error:  # zipfile, zlib and numpy have a dozen of them
            kind = "a single .npy array" if content.startswith(b"\x93NUMPY") else _shown(error)
            raise self._refusal(f"cannot be read as an .npz file: {kind}") from None
        if zero.ndim != 2 or not zero.size or zero.shape != one.shape or (zero & one).any():
            raise self._refusal("is not two filled arrays [rows, columns] of one shape without a cell in both")
        return zero, one

    @property
    def ber(self) -> float:
        """The chip's own bit-error rate: the share of its cells that are stuck, a fraction."""
        zero, one = self.load()
        return float((zero | one).mean())

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self) -> bytes:
        path = Path(self.path)
        try:
            if not path.is_file():
                raise self._refusal("cannot be read: there is no such file")
            if path.stat().st_size > CHIP_BYTES:
                raise self._refusal(f"is too large: {path.stat().st_size} bytes, allowed are {CHIP_BYTES}")
            return path.read_bytes()
        except OSError as error:
            raise self._refusal(f"cannot be read: {error.strerror}") from None

    def _cells(self, archive: zipfile.ZipFile, name: str) -> np.ndarray:
        """The array `name`, as bool; no more is unpacked than its declared size, which is looked at first."""
        member = archive.getinfo(f"{name}.npy")
        if member.file_size > CHIP_BYTES:
            raise self._refusal(f"is too large: {name} unpacks to {member.file_size} bytes, allowed are {CHIP_BYTES}")
        cells = np.lib.format.read_array(io.BytesIO(archive.read(member)), allow_pickle=False)
        if cells.dtype.kind not in "biuf":
            raise self._refusal(f"{name} holds {cells.dtype.name}, not booleans or 0 and 1")
        if (wrong := cells[(cells != 0) & (cells != 1)]).size:
            raise self._refusal(f"{name} holds {wrong[0]:g}, not booleans or 0 and 1 only")
        return cells.astype(bool)

    def _refusal(self, reason: str) -> UserError:
        return UserError(f"chip map {self.path!r} {reason}")

    def _pattern(self, sizes: Mapping[str, int], seed: int, bits: int) -> Pattern:
        zero, one = self.load()
        if zero.shape[1] < bits:
            raise self._refusal(f"has {zero.shape[1]} columns, fewer than the {bits} bits of a code")
        start = 0 if seed == 0 else int(np.random.default_rng(seed).integers(len(zero)))
        bytes_of = (_words(cells, bits) & self._hittable(bits) for cells in (zero | one, one))
        memory = _Memory.of(*(np.roll(each, -start, axis=0).ravel() for each in bytes_of))
        return _by_layer(sizes, memory.faults(sum(sizes.values())))


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


def named(name: str, rate: float) -> ErrorModel:
    """The error model of a name in ERROR_MODELS at a bit-error rate (fraction), or a ChipMap for "chip_map:PATH".

    Raises UserError for an unknown name or a rate outside [0, 1).  A chip has its own (`ber`): `rate` is not looked at.
    """
    if isinstance(name, str) and name.startswith("chip_map:"):
        return ChipMap(path=name.removeprefix("chip_map:"))
    return ERROR_MODELS[choose("error model", name, ERROR_MODELS)](check_rate(rate))


# ------------------------------------------------------------------------------------------ patterns applied to weights


@contextmanager
def perturbed(base: Quantized, pattern: Pattern) -> Iterator[Quantized]:
    """Patch the weights of `base` that `pattern` changes; put the old ones back on leaving, whatever happens."""
    undo = []
    try:
        for name, faults in pattern.items():
            undo.append(_patched(base, name, faults))
        yield base
    finally:
        for weight, index, old in reversed(undo):  # layers may share a weight
            weight.index_copy_(0, index, old)


def _patched(base: Quantized, name: str, faults: LayerFaults) -> tuple[Tensor, Tensor, Tensor]:
    """Patch one layer; returns its flat weights, where they were patched, and what stood there."""
    weight, codes, scale = base.layers[name].weight.data.view(-1), base.codes[name], base.scales[name]
    faults = faults.to(weight.device)
    old = weight.index_select(0, faults.index)
    read = faults.hit(codes.index_select(0, faults.index), base.bits)
    weight.index_copy_(0, faults.index, decode(read, scale))
    return weight, faults.index, old


def wrong_bits(base: Quantized, name: str, faults: LayerFaults) -> Tensor:
    """The bits of layer `name` that read differently under `faults`.

    Marks in a byte for each weight at `faults.index` (uint8 [n]), on the base model's device.
    """
    faults = faults.to(base.codes[name].device)
    codes = base.codes[name].index_select(0, faults.index)
    return (codes ^ faults.hit(codes, base.bits)).view(torch.uint8) & (2**base.bits - 1)


def changed_bits(base: Quantized, pattern: Pattern) -> Tensor:
    """Number of stored bits that read differently under `pattern`.

    int64 scalar on the base model's device: a GPU is not waited for.
    """
    device = next(iter(base.codes.values())).device
    marks = (wrong_bits(base, name, faults) for name, faults in pattern.items())
    return sum((_ones(device)[some.int()].sum() for some in marks), torch.zeros((), dtype=torch.int64, device=device))


@functools.cache
def _ones(device: torch.device) -> Tensor:
    """The number of ones in each byte (uint8 [256])."""
    return torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8, device=device)
