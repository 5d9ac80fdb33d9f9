"""Error models, and the error patterns (one draw: one "chip") that they give.

A pattern is sparse: for each layer the positions of the weights that it touches and, for each, two bytes, so that the
stored code becomes (code & keep) ^ toggle.  A flipped bit keeps and toggles; a cell stuck at 0 does not keep; a cell
stuck at 1 does not keep and toggles.  Patterns come from numpy generators on the host, seeded by an integer: equal on
every device and for every number of threads, and nested in the rate (equal seeds, lower rate: a subset).
"""

import functools
import hashlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from nflib.names import UserError, choose
from nflib.quantize import Quantized, check_bits

TRAINING_PATTERNS = 30001  # seeds 0 to 30000, as in the official code; evaluation starts at 50000
MAP_ROWS, MAP_COLUMNS = 8192, 128
_BANDS = [0.0, *(0.01 * 2.0**k for k in range(-10, 7)), 1.0]  # edges at which a rate costs no wasted draw
_GAPS, _MARKS, _VALUES = range(3)
_CHUNK = 1 << 15  # gaps drawn at a time: few enough for a processor's cache; how many does not change what is drawn
_WINDOW = 1 << 13  # weights marked at a time: few enough for its fastest cache
_DRAWS = 1 << 12  # of a map, made at a time
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # times 2**k, its upper six bits differ for every k: where a lone bit is set
_PLACES = np.zeros(64, np.uint8)
_PLACES[[(int(_DE_BRUIJN) << k) % 2**64 >> 58 for k in range(64)]] = range(64)


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
        parts = (part.to(device, non_blocking=device.type == "cuda") for part in (self.index, self.keep, self.toggle))
        return LayerFaults(*parts, self.sign_slip)

    def hit(self, codes: Tensor, bits: int = 8) -> Tensor:
        """Codes (int8 [n]) that are read back where `codes` (int8 [n], those at `index`) are stored with `bits` bits."""
        raw = (codes.view(torch.uint8) & self.keep) ^ self.toggle
        return raw.view(torch.int8) if self.sign_slip else (raw << (8 - bits)).view(torch.int8) >> (8 - bits)


Pattern = dict[str, LayerFaults]
K, T = TypeVar("K"), TypeVar("T")
CPU = torch.device("cpu")
DRAWING_THREADS = 6  # that draw ahead for a GPU


def ahead(draw: Callable[[K], T], keys: Iterable[K], device: torch.device) -> Iterator[T]:
    """draw(key) for each of the keys, in order.  For a GPU, threads of the host draw ahead of time: it would wait several times
    as long for a pattern as it computes with one.  Where the host itself computes, it draws when it is asked to."""
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


def check_rate(rate: float) -> float:
    """Return `rate` if it is a bit-error rate in [0, 1); raise UserError otherwise."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise UserError(f"bit-error rate is {rate!r}; allowed are fractions in [0, 1), for example 0.01 for 1 %")
    return rate


def _stream(seed: int, band: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, band, purpose])))


@functools.cache
def compiled(loop: Callable) -> Callable | None:
    """A loop over faults as machine code that runs outside the interpreter's lock; None where numba is not installed."""
    try:
        import numba
    except ImportError:
        return None
    return numba.njit(nogil=True, cache=True)(loop)


def _place(gaps: np.ndarray, scale: float, last: int, positions: np.ndarray) -> int:
    """Fill positions: each a geometric gap, an exponential one over `scale`, after the one before; returns the last."""
    for k in range(len(gaps)):
        last += int(gaps[k] / scale) + 1
        positions[k] = last
    return last


def _place_by_numpy(gaps: np.ndarray, scale: float, last: int, positions: np.ndarray) -> int:
    np.cumsum((gaps / scale).astype(np.int64) + 1, out=positions)
    positions += last
    return positions[-1]


def _bernoulli_positions(stream: np.random.Generator, cells: int, probability: float) -> np.ndarray:
    """Ascending positions (int64) of successes among `cells` independent trials, by geometric gaps: exact."""
    if probability >= 1:
        return np.arange(cells)
    mean, scale = cells * probability, -np.log1p(-probability)
    positions, filled, last = np.empty(int(mean + 6 * mean**0.5 + 16), np.int64), 0, -1
    place = compiled(_place) or _place_by_numpy
    while last < cells:
        if filled == len(positions):
            positions = np.append(positions, np.empty(16, np.int64))
        chunk = positions[filled : filled + _CHUNK]
        last = place(stream.standard_exponential(len(chunk)), scale, last, chunk)
        filled += len(chunk)
    return positions[: np.searchsorted(positions[:filled], cells)]


def _faulty_cells(band: int, rates: np.ndarray, weights: int, seed: int, stuck: bool) -> tuple[np.ndarray, np.ndarray]:
    """The faulty cells of a band among weights * len(rates), ascending (int64), and, if `stuck`, which read one (bool).

    Each cell has a uniform mark and is faulty at a rate above it.  Marks are drawn band by band: a cell is in band k
    with probability width_k / (1 - lower_k) and counts in the lowest band that has it only, which gives it the
    probability width_k exactly.  So the work goes with the rate, and a lower rate gives a subset.
    """
    low, high = _BANDS[band : band + 2]
    cells = _bernoulli_positions(_stream(seed, band, _GAPS), weights * len(rates), (high - low) / (1 - low))
    ones = _stream(seed, band, _VALUES).random(len(cells)) < 0.5 if stuck else np.zeros(0, bool)
    if rates.min() < high:  # what is dropped here is dropped in higher bands too: marks are larger there
        marks = low + (high - low) * _stream(seed, band, _MARKS).random(len(cells))
        kept = marks < rates[cells % len(rates)]
        cells, ones = cells[kept], ones[kept] if stuck else ones
    return cells, ones


def _mark(cells, ones, begins, ends, bits, weight, weights, index, masks):
    """`_by_weight`, one window of weights after another: marks the faulty bits of its weights, lowest band first, and which
    weights have some; then fills index and masks with those, in order, and returns how many.

    Unsigned numbers spare a compiled loop the question whether an index counts from the end.
    """
    one, six, last_six = np.uint64(1), np.uint64(6), np.uint64(63)
    marked, touched = np.zeros((len(masks), _WINDOW), np.uint8), np.zeros(_WINDOW // 64, np.uint64)
    coming, count = begins.copy(), np.uint64(0)
    for first in range(0, weights, _WINDOW):
        start = (weight + first) * bits
        end = start + _WINDOW * bits
        for band in range(len(coming)):
            k, stop = np.uint64(coming[band]), np.uint64(ends[band])
            while k < stop and cells[k] < end:
                cell = np.uint64(cells[k] - start)
                here = cell >> np.uint64(3) if bits == 8 else cell // np.uint64(bits)
                mask = np.uint8(one << (cell - np.uint64(bits) * here))
                if len(masks) > 1 and ones[k]:
                    marked[1, here] |= mask & ~marked[0, here]  # a cell counts in its lowest band
                marked[0, here] |= mask
                touched[here >> six] |= one << (here & last_six)
                k += one
            coming[band] = k
        for word in range(len(touched)):
            left, touched[word] = touched[word], 0
            while left:
                lowest = left & (~left + one)
                here = (np.uint64(word) << six) + np.uint64(_PLACES[(lowest * _DE_BRUIJN) >> np.uint64(58)])
                index[count] = first + np.int64(here)
                for row in range(len(masks)):
                    masks[row, count] = marked[row, here]
                    marked[row, here] = 0
                count += one
                left ^= lowest
    return count


def _by_weight(cells, ones, begins, ends, bits: int, weight: int, weights: int, rows: int) -> list[np.ndarray]:
    """The weights that some cells belong to (int64, ascending, counted from `weight`, the first of `weights`), the faulty bits
    of each (uint8), and, where two rows are asked for, those of them that read one (uint8).

    cells, ones: what `_faulty_cells` gives, of one band after another; begins, ends: which of them, in each band, are meant.
    """
    count = int((ends - begins).sum())
    if mark := compiled(_mark):
        index, masks = np.empty(count, np.int64), np.empty((rows, count), np.uint8)
        count = mark(cells, ones, begins, ends, bits, weight, weights, index, masks)
        return [index[:count], *masks[:, :count]]
    marked = np.zeros((rows, weights), np.uint8)
    for a, b in zip(begins, ends):
        where = cells[a:b] // bits - weight
        masks = (np.uint8(1) << (cells[a:b] % bits).astype(np.uint8)) & ~marked[0, where]
        np.add.at(marked[0], where, masks)  # many times as fast as or, and the same: each bit is set once
        if rows > 1:
            np.add.at(marked[1], where, masks * ones[a:b])
    index = np.flatnonzero(marked[0].view(bool))
    return [index, *marked[:, index]]


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that work on one pattern together; they stay, for new ones would ask for their memory anew at every pattern."""
    return ThreadPoolExecutor(count)


def _shared_out(work: Callable[[int], T], costs: list[int]) -> list[T]:
    """work(number) for each of the costs, the dearest first, by as many threads as torch may use, this one being among them; in the
    order of the costs.

    torch itself should compute nothing in it: its own threads would wait for these.
    """
    coming, found = iter(sorted(range(len(costs)), key=costs.__getitem__, reverse=True)), [None] * len(costs)

    def share() -> None:
        for number in coming:  # what is next is handed out under the interpreter's lock, each once
            found[number] = work(number)

    others = torch.get_num_threads() - 1
    running = [_threads(others).submit(share) for _ in range(others)]
    try:
        share()
    finally:
        wait(running)  # also where one fails: nothing goes on behind the caller's back
    for one in running:
        one.result()
    return found


def _independent(sizes: Mapping[str, int], rates: np.ndarray, seed: int, stuck: bool) -> Pattern:
    """The pattern of a model in which every cell is faulty by itself: flips, or, if `stuck`, cells stuck at 0 or 1."""
    bits, weights = len(rates), list(sizes.values())
    ends = np.cumsum([0, *weights])

    def band(number: int) -> tuple[np.ndarray, np.ndarray]:
        return _faulty_cells(number, rates, int(ends[-1]), seed, stuck)

    def layer(number: int) -> LayerFaults:
        index, faulty, *read = _by_weight(cells, ones, cuts[number], cuts[number + 1], bits, int(ends[number]), weights[number], 1 + stuck)
        keep, toggle = (~faulty, read[0]) if stuck else (np.full_like(faulty, 255), faulty)
        return LayerFaults(*map(torch.from_numpy, (index, keep, toggle)))

    count = max(1, int(np.searchsorted(_BANDS, rates.max())))
    bands = _shared_out(band, list(range(count)))  # a higher band is a longer one
    starts = np.cumsum([0, *(len(cells) for cells, _ in bands[:-1])])
    cuts = np.stack([start + np.searchsorted(cells, bits * ends) for start, (cells, _) in zip(starts, bands)], axis=1)
    cells, ones = map(np.concatenate, zip(*bands))
    return dict(zip(sizes, _shared_out(layer, weights)))


def _split(sizes: Mapping[str, int], keep: np.ndarray, toggle: np.ndarray) -> Pattern:
    """Cut model-wide bytes (uint8 [weights]) into the layers' sparse faults."""
    index = np.flatnonzero((keep != 255) | (toggle != 0))
    ends = np.cumsum([0, *sizes.values()])
    cuts = np.searchsorted(index, ends)
    pattern = {}
    for name, start, a, b in zip(sizes, ends[:-1], cuts[:-1], cuts[1:]):
        rows = index[a:b]
        pattern[name] = LayerFaults(*map(torch.from_numpy, (rows - start, keep[rows], toggle[rows])))
    return pattern


@dataclass(frozen=True)
class ErrorModel:
    """How bits err.

    rate: share of cells that are faulty, a fraction in [0, 1).  bit_rates: a rate of its own for each bit, lowest bit
    first, in place of `rate` (which then only names the error model); 0 spares a bit.  layers: names of the layers hit; empty
    means all.  A limited pattern is the full pattern of the same seed with the other bits and layers left out.
    """

    rate: float
    bit_rates: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        check_rate(self.rate)
        for rate in self.bit_rates:
            check_rate(rate)

    def _rates(self, bits: int) -> np.ndarray:
        rates = np.array(self.bit_rates or (self.rate,) * check_bits(bits), float)
        if len(rates) != bits:
            raise UserError(f"{len(rates)} bit rates for codes of {bits} bits; one for each bit is needed")
        return rates

    def _hittable(self, bits: int) -> np.uint8:
        """Mask of the bits that a map may hit: all but those whose own rate is 0; a map knows no third way."""
        rates = self._rates(bits) if self.bit_rates else np.ones(bits)
        if self.bit_rates and not set(rates) <= {0.0, float(self.rate)}:
            raise UserError(f"{type(self).__name__}: a bit rate must be 0 or the map's rate {self.rate:g}")
        return np.uint8(sum(1 << bit for bit in np.flatnonzero(rates)))

    def _limited(self, pattern: Pattern, device: torch.device) -> Pattern:
        for name in self.layers:
            choose("layer", name, pattern)
        return {name: faults.to(device) for name, faults in pattern.items() if name in (self.layers or pattern)}

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        """The pattern of `seed` (whole number >= 0) for layers of `sizes` (weights each, in memory order), on `device`."""
        raise NotImplementedError


@dataclass(frozen=True)
class BitFlips(ErrorModel):
    """Every stored bit flips with probability `rate`, independently: the definition in the paper's text."""

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        return self._limited(_independent(sizes, self._rates(bits), seed, stuck=False), device)


@dataclass(frozen=True)
class StuckAt(ErrorModel):
    """Every cell is faulty with probability `rate`, independently, and then reads 0 or 1 with equal chance.

    Where the stored bits are as often 0 as 1, half as many bits change as are faulty.
    """

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        return self._limited(_independent(sizes, self._rates(bits), seed, stuck=True), device)


def _look_through(states, cells, limit, found, ones):
    """`_faulty_on_map` from the Mersenne Twisters' states (uint32 [2, 624]): fills found and ones, returns how many.

    A draw of numpy's `rand` is made of two numbers of a twister: (a >> 5) * 2**26 + (b >> 6), over 2**53.  Kept in a row, its
    numbers follow from those 624 places before, which a compiled loop does for many at once.
    """
    one, upper, lower, matrix = np.uint32(1), np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
    row, row_of_ones = np.empty(624 + 2 * _DRAWS, np.uint32), np.empty(624 + 2 * _DRAWS, np.uint32)
    drawn, drawn_for_ones = np.empty(2 * _DRAWS, np.uint32), np.empty(2 * _DRAWS, np.uint32)
    row[-624:], row_of_ones[-624:] = states[0], states[1]
    count = 0
    for start in range(0, cells, _DRAWS):
        for x, tempered in ((row, drawn), (row_of_ones, drawn_for_ones)):
            x[:624] = x[-624:]
            for k in range(2 * _DRAWS):
                y = (x[k] & upper) | (x[k + 1] & lower)
                x[k + 624] = x[k + 397] ^ (y >> one) ^ (np.uint32(-(y & one)) & matrix)
            for k in range(2 * _DRAWS):
                y = x[k + 624] ^ (x[k + 624] >> np.uint32(11))
                y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
                y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
                tempered[k] = y ^ (y >> np.uint32(18))
        for k in range(min(_DRAWS, cells - start)):
            if np.int64((drawn[2 * k] >> 5 << 26) + (drawn[2 * k + 1] >> 6)) < limit:
                found[count], ones[count] = start + k, drawn_for_ones[2 * k] < upper
                count += 1
    return count


def _faulty_on_map(seed: int, cells: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Where, among `cells` draws of RandomState(seed).rand, those below `rate` are (int64), and at which of these the draw
    of RandomState(seed + 1) is below a half (bool)."""
    streams = np.random.RandomState(seed), np.random.RandomState(seed + 1)
    if look := compiled(_look_through):
        found, ones = np.empty(cells, np.int64), np.empty(cells, bool)
        states = np.stack([stream.get_state()[1] for stream in streams])
        count = look(states, cells, math.ceil(rate * 2.0**53), found, ones)
        return found[:count], ones[:count]
    found = np.flatnonzero(streams[0].rand(cells) < rate)
    return found, streams[1].rand(cells)[found] < 0.5


def _words(cells: np.ndarray, bits: int) -> np.ndarray:
    """Pack a boolean cell array [rows, columns] into words (uint8 [rows, columns // bits]); unused columns are left out."""
    per_row = cells.shape[1] // bits
    if per_row * bits == cells.shape[1] and bits == 8:
        return np.packbits(cells.ravel(), bitorder="little").reshape(len(cells), per_row)  # many times as fast
    used = cells[:, : per_row * bits].reshape(len(cells), per_row, bits)
    return np.packbits(used, axis=-1, bitorder="little")[..., 0]


@dataclass(frozen=True)
class ReleaseMap(ErrorModel):
    """The official code's stuck-at map of 8192 x 128 cells, bit for bit; what the published numbers were measured under.

    Seeds are the official ones (training 0 to 30000, evaluation 50000 to 50009).  Each layer starts at row 0.
    tiling_slip: True lays each row out as often as it has words (the code's slip: weight i reads row i // 256 and word
    i % 16 at 8 bits); False reads row after row, as was meant.  map_per_layer: True draws a map of its own for each
    layer (seed + 100003 * layer number); False uses one for all, as the code does.
    sign_slip: True reads codes of fewer than 8 bits back as the code does (see LayerFaults); False, as two's complement.
    Source: `randomfault.py` and `zs_faultinjection_ops.py` of the official code; golden cases in tests/data.
    """

    tiling_slip: bool = True
    map_per_layer: bool = False
    sign_slip: bool = False

    def _memory(self, seed: int, bits: int, weights: int) -> tuple[np.ndarray, np.ndarray]:
        """Bytes (keep, toggle), uint8, of the weights that one pass over the map holds; at least of the first `weights`.

        The map is drawn row by row, so that a narrow model, which ends within its first rows, needs no others.
        """
        per_row = (MAP_COLUMNS // bits) ** (2 if self.tiling_slip else 1)
        shape = min(MAP_ROWS, max(1, -(-weights // per_row))), MAP_COLUMNS
        cells, read_one = _faulty_on_map(seed, shape[0] * MAP_COLUMNS, self.rate)
        faulty, ones = np.zeros((2, *shape), bool)
        faulty.flat[cells], ones.flat[cells[read_one]] = True, True
        hit = self._hittable(bits)
        faulty, toggle = _words(faulty, bits) & hit, _words(ones, bits) & hit
        repeats = faulty.shape[1] if self.tiling_slip else 1
        return tuple(np.repeat(words, repeats, axis=0).ravel() for words in (~faulty, toggle))

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        check_bits(bits)
        pattern, once = {}, None
        for number, (name, size) in enumerate(sizes.items()):
            if once is None or self.map_per_layer:
                own = (seed + 100003 * number * self.map_per_layer) % 2**32
                keep, toggle = self._memory(own, bits, size if self.map_per_layer else max(sizes.values()))
                faulty = np.flatnonzero(keep != 255)
                once = LayerFaults(*map(torch.from_numpy, (faulty, keep[faulty], toggle[faulty]))).to(device)
            passes, rest = divmod(size, len(keep))
            cut = int(np.searchsorted(faulty, rest))
            index = torch.cat([once.index + len(keep) * k for k in range(passes)] + [once.index[:cut] + len(keep) * passes])
            bytes_of = (torch.cat([part.repeat(passes), part[:cut]]) for part in (once.keep, once.toggle))
            pattern[name] = LayerFaults(index, *bytes_of, self.sign_slip)
        return self._limited(pattern, device)


@dataclass(frozen=True)
class ChipMap(ErrorModel):
    """A profiled chip, read from an .npz with boolean arrays `stuck_at_0` and `stuck_at_1` [rows, columns].

    Weights lie in the rows one after another, layer after layer, lowest bit first, and start over when the map is full.
    The seed rotates the map by a drawn number of rows (seed 0: none).  `rate` only names the chip: the map decides.
    Raises UserError when the file is missing, damaged or contradicts itself.
    """

    rate: float = 0.0
    path: str = ""

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """The cells stuck at 0 and at 1, bool [rows, columns]."""
        try:
            with np.load(Path(self.path)) as file:
                zero, one = file["stuck_at_0"].astype(bool), file["stuck_at_1"].astype(bool)
        except Exception as error:
            reason = "it is no .npz file" if isinstance(error, ValueError) else str(error).splitlines()[0]
            raise UserError(f"chip map {self.path!r} cannot be read: {reason}") from None
        if zero.ndim != 2 or not zero.size or zero.shape != one.shape or (zero & one).any():
            raise UserError(f"chip map {self.path!r}: two filled arrays [rows, columns] without a cell in both are needed")
        return zero, one

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def draw(self, sizes: Mapping[str, int], seed: int, bits: int = 8, device: torch.device = CPU) -> Pattern:
        zero, one = self.load()
        if zero.shape[1] < check_bits(bits):
            raise UserError(f"chip map {self.path!r} has {zero.shape[1]} columns, fewer than the {bits} bits of a code")
        start = 0 if seed == 0 else int(np.random.default_rng(seed).integers(len(zero)))
        hit = self._hittable(bits)
        faulty, toggle = (np.roll(_words(cells, bits), -start, axis=0).ravel() & hit for cells in (zero | one, one))
        weights = sum(sizes.values())
        pattern = _split(sizes, np.resize(~faulty, weights), np.resize(toggle, weights))
        return self._limited(pattern, device)


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
    """The error model of a name in LAWS at a bit-error rate (fraction), or a ChipMap for "chip_map:PATH".

    Raises UserError for an unknown name or a rate outside [0, 1).
    """
    if name.startswith("chip_map:"):
        return ChipMap(path=name.removeprefix("chip_map:"))
    return ERROR_MODELS[choose("error model", name, ERROR_MODELS)](check_rate(rate))


def _patch(weight, codes, scale, index, keep, toggle, unused, slip, old):
    """What `LayerFaults.hit` and a copy do, one weight after another: fills `old` and overwrites `weight`."""
    for k in range(len(index)):
        i = index[k]
        old[k] = weight[i]
        raw = (codes[i] & keep[k]) ^ toggle[k]
        raw = raw if slip else (raw << unused) & 255
        read = raw - 256 if raw > 127 else raw
        weight[i] = (read if slip else read >> unused) * scale


def _restore(weight, index, old):
    for k in range(len(index)):
        weight[index[k]] = old[k]


def _patched(base: Quantized, name: str, faults: LayerFaults, patch: Callable | None) -> Callable[[], None]:
    """Patch a layer's weights, with `patch` (`_patch`, compiled) or by torch; returns what puts the old ones back."""
    weight, codes, scale = base.layers[name].weight.data.view(-1), base.codes[name], base.scales[name]
    if patch:
        index, keep, toggle = faults.index.numpy(), faults.keep.numpy(), faults.toggle.numpy()
        if len(index) and not 0 <= index[0] <= index[-1] < len(weight):
            raise IndexError(f"layer {name!r} has {len(weight)} weights, none at {index[-1]}")
        weight = weight.numpy()
        old = np.empty(len(index), weight.dtype)
        patch(weight, codes.numpy(), scale.numpy()[()], index, keep, toggle, 8 - base.bits, faults.sign_slip, old)
        return functools.partial(compiled(_restore), weight, index, old)
    faults = faults.to(weight.device)
    old = weight.index_select(0, faults.index)
    hit = faults.hit(codes.index_select(0, faults.index), base.bits)
    weight.index_copy_(0, faults.index, hit.to(scale.dtype) * scale)
    return lambda: weight.index_copy_(0, faults.index, old)


def _one_by_one(work: Callable[[int], T], costs: list[int]) -> list[T]:
    return list(map(work, range(len(costs))))


@contextmanager
def perturbed(base: Quantized, pattern: Pattern) -> Iterator[Quantized]:
    """Patch the weights of `base` that `pattern` changes; put the old ones back on leaving, whatever happens."""
    names, costs, undo = list(pattern), [len(faults.index) for faults in pattern.values()], []
    patch = compiled(_patch) if all(codes.device == CPU for codes in base.codes.values()) else None
    each = _shared_out if patch else _one_by_one
    try:
        each(lambda number: undo.append(_patched(base, names[number], pattern[names[number]], patch)), costs)
        yield base
    finally:
        each(lambda number: undo[number](), [1] * len(undo))


def wrong_bits(base: Quantized, name: str, faults: LayerFaults) -> Tensor:
    """The bits of layer `name` that read differently under `faults`, as marks in a byte for each weight at `faults.index`
    (uint8 [n], on the base model's device)."""
    faults = faults.to(base.codes[name].device)
    codes = base.codes[name].index_select(0, faults.index)
    return (codes ^ faults.hit(codes, base.bits)).view(torch.uint8) & (2**base.bits - 1)


@functools.cache
def _ones(device: torch.device) -> Tensor:
    """The number of ones in each byte (uint8 [256])."""
    return torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.uint8, device=device)


def changed_bits(base: Quantized, pattern: Pattern) -> Tensor:
    """Number of stored bits that read differently under `pattern` (int64 scalar on the base model's device: a GPU is not
    waited for)."""
    device = next(iter(base.codes.values())).device
    marks = (wrong_bits(base, name, faults) for name, faults in pattern.items())
    return sum((_ones(device)[some.int()].sum() for some in marks), torch.zeros((), dtype=torch.int64, device=device))
