"""The loops over faults that numpy has no quick words for, compiled by numba where it can be used.

What numba computes here, numpy and torch compute as well, to the last bit, in two to three times the time.
"""

import functools
from collections.abc import Callable

import numpy as np

Cells = tuple[np.ndarray, np.ndarray]  # faulty cells (int64 [n], ascending) and which of them read one (bool [n])


@functools.cache
def _compiled(loop: Callable) -> list[Callable]:
    """[`loop` as machine code, which runs outside the interpreter's lock]; [] where numba is missing or of no use."""
    try:
        import numba

        return [numba.njit(nogil=True, cache=True)(loop)]
    except Exception:
        return []


def _if_numba_can(loop: Callable) -> Callable:
    """Decorator of a loop, which is compiled at its first call.

    A call returns None, having done nothing, where numba is missing or fails: it may be broken, its cache be damaged or
    have no place.  It is not tried again then.  The loop itself must not raise: numba checks no bounds.
    """

    @functools.wraps(loop)
    def call(*arguments):
        for fast in _compiled(loop):
            try:
                return fast(*arguments)
            except Exception:
                _compiled(loop).clear()
        return None

    return call


@_if_numba_can
def _merge(cells, ones, others, other_ones, merged, merged_ones):
    i = j = k = 0
    while i < len(cells) and j < len(others):
        first = cells[i] <= others[j]
        merged[k] = cells[i] if first else others[j]
        merged_ones[k] = ones[i] if first else other_ones[j]
        i, j, k = i + first, j + (not first), k + 1
    merged[k : k + len(cells) - i], merged_ones[k : k + len(cells) - i] = cells[i:], ones[i:]
    merged[k : k + len(others) - j], merged_ones[k : k + len(others) - j] = others[j:], other_ones[j:]
    return True


def merged(low: Cells, high: Cells) -> Cells:
    """All cells of two bands, ascending; of equal ones the cell of the low band comes first."""
    (cells, ones), (others, other_ones) = low, high
    all_cells, all_ones = np.empty(len(cells) + len(others), np.int64), np.empty(len(cells) + len(others), bool)
    if _merge(cells, ones, others, other_ones, all_cells, all_ones):
        return all_cells, all_ones
    order = np.argsort(np.concatenate([cells, others]), kind="stable")
    return np.concatenate([cells, others])[order], np.concatenate([ones, other_ones])[order]


@_if_numba_can
def _gather(cells, ones, bits, index, faulty, read_one):
    count, last = 0, -1
    for k in range(len(cells)):
        if cells[k] != last:
            last = cells[k]
            weight = last // bits
            mask = np.uint8(1 << (last - bits * weight))
            if count == 0 or index[count - 1] != weight:
                index[count], faulty[count], read_one[count] = weight, 0, 0
                count += 1
            faulty[count - 1] |= mask
            read_one[count - 1] |= mask * ones[k]
    return count


def bytes_of_weights(cells: np.ndarray, ones: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights (int64 [n], ascending) that cells belong to, their faulty bits, and those that read one (uint8 [n]).

    Cell c, ascending, is bit c % bits of weight c // bits.  A cell that comes more than once counts as it comes first.
    """
    index, faulty, read_one = (np.empty(len(cells), kind) for kind in (np.int64, np.uint8, np.uint8))
    count = _gather(cells, ones, bits, index, faulty, read_one)
    if count is not None:
        return index[:count], faulty[:count], read_one[:count]
    first = np.diff(cells, prepend=-1) > 0
    cells, ones = cells[first], ones[first]
    weights, masks = cells // bits, np.uint8(1) << (cells % bits).astype(np.uint8)
    starts = np.flatnonzero(np.diff(weights, prepend=-1))
    return weights[starts], np.bitwise_or.reduceat(masks, starts), np.bitwise_or.reduceat(masks * ones, starts)


@_if_numba_can
def patch(weight, codes, old, index, keep, toggle, scale, unused, sign_slip):
    """Overwrite weight[index] by the codes read back, as `LayerFaults.hit` has it, times scale; fill old; return True.

    weight, old: float32 or float64, flat.  codes: int8, flat.  unused: 8 less the width of a code.
    """
    for k in range(len(index)):
        i = index[k]
        old[k] = weight[i]
        raw = (codes[i] & keep[k]) ^ toggle[k]
        if not sign_slip:
            raw = raw << unused
        read = np.int8(raw & 255)
        if not sign_slip:
            read = read >> unused
        weight[i] = read * scale
    return True
