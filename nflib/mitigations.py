"""Mitigations without a generator: in the memory, which spares, finds or corrects faults, in the codes that it stores, or in
the statistics of batch norm, which lie elsewhere.

In the memory: for a quantised base model and the pattern that its memory has, the pattern that is left.  The bits that a
code adds lie in the same memory: they are wrong as often as the weights' own bits are in this pattern.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from nflib.faults import LayerFaults, Pattern, wrong_bits
from nflib.quantize import Quantized, weighted_layers

WORD = 8  # weights that share the check bits of one SECDED word
CHECK_BITS = 8  # of a (72, 64) SECDED code
CUT = 3.0  # root mean squares of a layer's weights


def _rest(base: Quantized, pattern: Pattern, seed: int, one: Callable) -> Pattern:
    """The pattern whose layers are one(weights, faults, wrong, share, chance): wrong (uint8 [n]) marks the bits read wrong
    at faults.index, share is the share of all stored bits that is wrong, chance a generator of the pattern's own."""
    wrong = {name: wrong_bits(base, name, faults) for name, faults in pattern.items()}
    share = sum(int(np.bitwise_count(bits).sum()) for bits in wrong.values()) / base.stored_bits
    chance = np.random.default_rng([seed, CHECK_BITS])
    return {name: one(base.sizes[name], faults, wrong[name], share, chance) for name, faults in pattern.items()}


def spare_sign(base: Quantized, pattern: Pattern, seed: int) -> Pattern:
    """The most significant bit of every weight lies in cells that never fail, such as 8T among 6T cells.

    Source of the idea: Srinivasan et al., Significance driven hybrid 8T-6T SRAM for energy-efficient synaptic storage in
    artificial neural networks, DATE 2016.
    """
    return {name: faults.of_bits(0xFF ^ 1 << (base.bits - 1)) for name, faults in pattern.items()}


def zero_by_parity(base: Quantized, pattern: Pattern, seed: int) -> Pattern:
    """One parity bit a weight; a weight whose parity is wrong is read as zero.

    An even number of wrong bits passes unseen; a wrong parity bit alone makes an intact weight zero.
    Source of the idea: word masking in Minerva (Reagen et al., ISCA 2016), which finds faults otherwise.
    """

    def one(weights: int, faults: LayerFaults, wrong: np.ndarray, share: float, chance: np.random.Generator) -> LayerFaults:
        alarm = chance.random(weights) < share
        odd = np.bitwise_count(wrong) % 2 == 1
        index = faults.index.numpy()
        zero = alarm.copy()
        zero[index] ^= odd
        seen = (wrong != 0) & ~zero[index]
        keep, toggle = (np.full(weights, value, np.uint8) for value in (255, 0))
        keep[zero] = 0
        keep[index[seen]], toggle[index[seen]] = faults.keep.numpy()[seen], faults.toggle.numpy()[seen]
        left = np.flatnonzero((keep != 255) | (toggle != 0))
        return LayerFaults(*map(torch.from_numpy, (left, keep[left], toggle[left])), faults.sign_slip)

    return _rest(base, pattern, seed, one)


def secded(base: Quantized, pattern: Pattern, seed: int) -> Pattern:
    """A (72, 64) code that corrects single and detects double errors guards each eight weights; a word with more than one
    wrong bit among its 72 is read as it is.  (The real code may turn three and more wrong bits into another wrong bit.)
    Source: Hsiao, A class of optimal minimum odd-weight-column SEC-DED codes, IBM Journal, 1970.
    """

    def one(weights: int, faults: LayerFaults, wrong: np.ndarray, share: float, chance: np.random.Generator) -> LayerFaults:
        word = faults.index.numpy() // WORD
        words = -(-weights // WORD)
        errors = np.bincount(word, np.bitwise_count(wrong), minlength=words)
        errors += chance.binomial(CHECK_BITS, share, words)
        left = torch.from_numpy(np.flatnonzero(errors[word] > 1))
        return LayerFaults(faults.index[left], faults.keep[left], faults.toggle[left], faults.sign_slip)

    return _rest(base, pattern, seed, one)


def cut(base: Quantized, multiple: float) -> Quantized:
    """A copy of `base`, each layer's weights clipped at `multiple` times their root mean square and encoded again."""
    model = copy.deepcopy(base.model)
    for layer in weighted_layers(model).values():
        limit = multiple * float(layer.weight.square().mean().sqrt())
        layer.weight.data.clamp_(-limit, limit)
    return Quantized(model, base.bits)


@dataclass(frozen=True)
class Mitigation:
    """changes: what of the system it changes.  apply(base, pattern, seed): the pattern that is left.  prepare(base): the
    base model that is stored.  low, nominal: bits read at low and at nominal voltage, or from cells that do not fail, for
    each eight stored bits of a weight; what logic and larger cells cost is not counted.  calibration: training images,
    without labels, on which each chip at its voltage gets batch-norm statistics of its own."""

    label: str
    low: float
    nominal: float = 0
    apply: Callable[[Quantized, Pattern, int], Pattern] = lambda base, pattern, seed: pattern
    prepare: Callable[[Quantized], Quantized] = lambda base: base
    calibration: int = 0
    changes: str = "the memory"


MITIGATIONS = {
    "spare_sign": Mitigation("sign bit protected", 7, 1, spare_sign),
    "zero_by_parity": Mitigation("parity, zero on error", 9, 0, zero_by_parity),
    "secded": Mitigation("SECDED", 9, 0, secded),
    "cut_weights": Mitigation(
        f"weights clipped at {CUT:g} × RMS", 8, prepare=functools.partial(cut, multiple=CUT), changes="the stored codes"
    ),
    "batch_norm": Mitigation("batch norm recalibrated", 8, calibration=1000, changes="its batch norm"),
}
