"""What a base model and a generator cost: weight reads, multiply-accumulates, energy saving, latency.

Nothing here needs trained weights.  Shapes come from one forward of a zero image [1, 3, size, size] on the "meta"
device, which computes no numbers; the model is left as it was.  Source: NeuralFuse, section 4.2 and appendices C, D.
"""

import math
import time
from collections.abc import Callable, Mapping
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Energy of one SRAM read at 0.83 Vmin (BER 1 %) over that at Vmin.  The paper never prints it ("about 30 %" less); it is
# the value that reproduces Table 8 from the MACs of Table 7, all 30 entries, and Table 2 from Table 6 in 25 of 30; 0.69394
# gives 29 of Table 2, but not Table 8: no single ratio gives both.
ENERGY_RATIO = 0.6940
LOW_VOLTAGE, LOW_BER = 0.83, 0.01  # the one point of the voltage's curve that the paper prints: 0.83 Vmin, BER 1 %
SAFE_BER = 1e-5  # bit-error rate at Vmin, assumed: about one faulty cell in three arrays of 512 x 64
ARRAY_ROWS = 32  # SCALE-SIM's output-stationary array: positions that share one read of a weight
ARRAY_COLUMNS = 32  # output channels that share one read of an input
WEIGHTS_PER_WORD = 8  # 8-bit weights in one 64-bit word of the SRAM
# Energies in pJ at 45 nm and 0.9 V.  Source: Horowitz, Computing's energy problem, ISSCC 2014: an 8-bit product takes 0.2 and
# a 32-bit sum 0.1; a 64-bit access to a memory of 32 KB takes 20, to one of 1 MB 100.
MAC_PJ, SMALL_PJ, LARGE_PJ = 0.3, 20.0, 100.0


KINDS = {F.conv2d: "conv", F.conv_transpose2d: "deconv", F.linear: "linear"}  # of weighted layers


class Layer(NamedTuple):
    """A weighted layer at work: its kind, the shape of its weights, those of its input and output [channels, height, width]
    (a linear layer's are of one pixel, or one a token), and its stride and padding in pixels, along the height.  Or one
    head's "product" of two feature maps in attention, the second in place of weights."""

    kind: str
    weight: tuple[int, ...]
    given: tuple[int, int, int]
    result: tuple[int, int, int]
    stride: int
    padding: int

    @property
    def kernel(self) -> int:
        """Rows of the kernel."""
        return self.weight[2] if len(self.weight) > 2 else 1

    @property
    def positions(self) -> int:
        """Places at which the weights are applied: the output's pixels, or the input's of a transposed convolution."""
        return math.prod((self.given if self.kind == "deconv" else self.result)[1:])


class Accesses(NamedTuple):
    """Of one image: 64-bit reads of weights; 64-bit reads and writes of feature maps; multiply-accumulates."""

    weight_reads: float
    map_reads: float
    map_writes: float
    macs: int

    def picojoules(self, ratio: float = 1.0, map_pj: float = SMALL_PJ) -> dict[str, float]:
        """Energy of each part.  Weights lie in a memory of LARGE_PJ an access, which low voltage multiplies by `ratio`; feature
        maps in one of `map_pj`, at nominal voltage as the arithmetic."""
        maps = map_pj * (self.map_reads + self.map_writes)
        return {"weights": ratio * LARGE_PJ * self.weight_reads, "maps": maps, "macs": MAC_PJ * self.macs}


class Latency(NamedTuple):
    """Median and spread (interquartile range) of one call, in milliseconds."""

    median: float
    spread: float


class _Calls(TorchFunctionMode):
    """Notes each call of a torch function: (function, positional arguments, result)."""

    def __init__(self):
        super().__init__()
        self.noted: list[tuple[Callable, tuple, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.noted.append((func, args, result))
        return result


def _calls(model: nn.Module, image_size: int) -> list[tuple[Callable, tuple, Tensor]]:
    """The calls of one forward in eval mode, on a zero image; parameters and buffers are "meta" ones for the while."""
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    training = {module: module.training for module in model.modules()}
    image = torch.zeros(1, 3, image_size, image_size, device="meta")
    try:
        with torch.no_grad(), _Calls() as calls:
            functional_call(model.eval(), state, (image,))
    finally:
        for module, flag in training.items():
            module.training = flag
    return calls.noted


def layers(model: nn.Module, image_size: int = 32) -> list[Layer]:
    """Convolutions, transposed convolutions, linear layers and products of `model`, in the order in which they run."""
    found = []
    for function, arguments, result in _calls(model, image_size):
        if function in KINDS:
            image, weight, _, *how = arguments
            flat = function is F.linear
            shapes = ((s[-1], math.prod(s[1:-1]), 1) if flat else s[1:] for s in (image.shape, result.shape))
            found.append(Layer(KINDS[function], weight.shape, *shapes, *([value[0] for value in how[:2]] or (1, 0))))
        if function is torch.matmul:
            (_, heads, rows, inner), (*_, columns) = arguments[0].shape, result.shape
            found += heads * [Layer("product", (columns, inner), (inner, rows, 1), (columns, rows, 1), 1, 0)]
    return found


def accesses(model: nn.Module, image_size: int = 32) -> Accesses:
    """What one image takes on the 32x32 output-stationary array, in closed form, everything in 8 bits.

    A weight is read once for every 32 positions, an input of a position's window once for every 32 output channels, an
    output is written once: sums never leave the array.  A product's second map is read as weights are, but from
    the feature maps' memory.  `tests/test_simulate.py` holds this against SCALE-Sim, which counts 64 more writes a
    pass.  Border zeros count as read.
    """
    found = np.zeros(4, np.int64)
    for layer in layers(model, image_size):
        weights, outputs = math.prod(layer.weight), layer.result[0]
        reads = -(-layer.positions // ARRAY_ROWS) * weights
        inputs = -(-outputs // ARRAY_COLUMNS) * layer.positions * (weights // outputs)
        parts = (0, reads + inputs) if layer.kind == "product" else (reads, inputs)
        found += [*parts, math.prod(layer.result), layer.positions * weights]
    return Accesses(*(found[:3] / WEIGHTS_PER_WORD).tolist(), int(found[3]))


def weight_reads(model: nn.Module, image_size: int = 32) -> int:
    """64-bit reads of the weight memory for one image, T; `nflib.study.simulate` has them as the authors counted (Table 6)."""
    return math.ceil(accesses(model, image_size).weight_reads)


def macs(model: nn.Module, image_size: int = 32) -> int:
    """Multiply-accumulates of the weighted layers and of both products of attention for one image; biases, norms,
    activations and pooling are left out."""
    return accesses(model, image_size).macs


def _printed_count(function: Callable, arguments: tuple, result: Tensor) -> int:
    """Operations of one call by the conventions of ptflops."""
    if function in KINDS:
        _, weight, bias = arguments[:3]
        positions = math.prod(result.shape[1:-1] if function is F.linear else result.shape[-2:])
        return weight.numel() * positions + (result.numel() if bias is not None else 0)
    if function in (F.batch_norm, F.relu, F.max_pool2d, F.adaptive_avg_pool2d):
        return arguments[0].numel() * (2 if function is F.batch_norm else 1)
    return result.numel() if function is F.interpolate else 0


def macs_as_published(model: nn.Module, image_size: int = 32, functional_ends: bool = False) -> int:
    """Operations for one image as Table 7 counts "MACs", by the conventions of ptflops before its issue #149.

    Convolutions and linear layers: one per multiply-accumulate and one per biased output, transposed convolutions over
    their output pixels, stride**2 = 4 times too many; batch norm: two per number; ReLU, pooling (its input), upsampling
    (its output): one per number; tanh, sums and concatenations: none.
    functional_ends: True leaves out the first ReLU and the average pool, function calls in the official CIFAR
    ResNets (models/resnetf.py) which ptflops did not see.
    All 22 entries of Table 7 come out to their printed rounding, given functional_ends for the ResNets at 32x32 (it
    matters for ResNet18 only: 557.14 M against 557.22 M) and the U-Nets built with zero_border=False.
    """
    counts = [(function, _printed_count(function, *rest)) for function, *rest in _calls(model, image_size)]
    total = sum(count for _, count in counts)
    if functional_ends:
        for end in (F.relu, F.adaptive_avg_pool2d):
            total -= next((count for function, count in counts if function is end), 0)
    return total


def energy_saving(reads_base: float, reads_generator: float, ratio: float = ENERGY_RATIO) -> float:
    """Energy saved on weight reads, ES, in per cent (Table 2); negative when the generator costs more than it saves.

    The base model reads at low voltage and the generator at nominal voltage, against the base model alone at nominal
    voltage: 100 (1 - ratio - reads_generator / reads_base).  Numbers or arrays of them.  Of MACs in place of reads it is
    MAC-ES (Table 8).
    """
    return 100 * (1 - ratio - reads_generator / reads_base)


def voltage(ber: float, safe_ber: float = SAFE_BER) -> float:
    """Supply voltage over Vmin at which the bit-error rate is `ber` (fractions), 1 for `safe_ber` and less.

    An assumption, for the paper shows the curve without numbers: the logarithm of the rate is linear in the voltage, through
    (1, safe_ber) and (0.83, 0.01).  The seven rates that a comment of the official code lists as measured (1.2e-2, 4.0e-3,
    1.2e-3, 1.6e-4, 1.3e-4, 4.1e-5, 1.3e-5; faultmodels/randomfault.py) mostly fall by equal factors, which fits it.
    """
    if ber <= safe_ber:
        return 1.0
    return 1 - (1 - LOW_VOLTAGE) * math.log(ber / safe_ber) / math.log(LOW_BER / safe_ber)


def read_energy(ber: float, safe_ber: float = SAFE_BER, ratio: float = ENERGY_RATIO) -> float:
    """Energy of one read at bit-error rate `ber` over that at Vmin: a power of the voltage, about its square, which gives
    `ratio` at a rate of 1 %."""
    return voltage(ber, safe_ber) ** (math.log(ratio) / math.log(LOW_VOLTAGE))


def latencies(
    networks: Mapping[str, Callable[[Tensor], Tensor]], images: Tensor, rounds: int = 50, warmup: int = 3
) -> dict[str, Latency]:
    """Wall-clock time of network(images) of each of the networks, images [B, 3, H, W] with any B (Table 9 has B = 1).

    They take turns, so that a machine that slows down for a while slows all of them: in each round each is called twice,
    the second call counts, and each call is waited for.  networks: by name, on the images' device, as they stand (call
    `.eval()` first).  The `warmup` first rounds are not counted.
    """
    seconds = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(warmup + rounds):
            for name, network in networks.items():
                network(images)  # its weights come into the caches again
                if images.is_cuda:
                    torch.cuda.synchronize(images.device)
                start = time.perf_counter()
                network(images)
                if images.is_cuda:
                    torch.cuda.synchronize(images.device)
                seconds[name].append(time.perf_counter() - start)
    found = {}
    for name, times in seconds.items():
        lower, median, upper = np.percentile(1000 * np.array(times[warmup:]), [25, 50, 75]).tolist()
        found[name] = Latency(median, upper - lower)
    return found
