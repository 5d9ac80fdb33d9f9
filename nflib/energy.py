"""What a base model and a generator cost: weight reads, multiply-accumulates, energy saving, latency.

Nothing here needs trained weights.  Shapes come from one forward of a zero image [1, 3, size, size] on the "meta"
device, which computes no numbers; the model is left as it was.  Source: NeuralFuse, section 4.2 and appendices C, D.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

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


@dataclass(frozen=True)
class LayerShape:
    """One weighted layer: kind "conv", "deconv" or "linear"; sizes in pixels; a linear layer is a 1x1 map.

    weights: stored numbers without biases, kernel**2 * cin * cout unless the layer is grouped.
    """

    name: str
    kind: str
    cin: int
    cout: int
    kernel: int
    in_height: int
    in_width: int
    out_height: int
    out_width: int
    padding: int
    stride: int
    weights: int


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


def _forward(model: nn.Module, image_size: int) -> None:
    """Run `model` in eval mode on a zero image, its parameters and buffers replaced by "meta" ones for the while."""
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            functional_call(model.eval(), state, (torch.zeros(1, 3, image_size, image_size, device="meta"),))
    finally:
        for module, flag in training.items():
            module.training = flag


def _one(name: str, what: str, value: int | tuple[int, ...]) -> int:
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise ValueError(f"layer {name!r} has {what} {tuple(value)}; only square ones are counted")
    return values.pop()


def _shape(name: str, layer: nn.Module, image: Tensor, result: Tensor) -> LayerShape:
    if isinstance(layer, nn.Linear):
        sizes = (layer.in_features, layer.out_features, 1, 1, 1, 1, 1, 0, 1)
        return LayerShape(name, "linear", *sizes, layer.weight.numel())
    kind = "deconv" if isinstance(layer, nn.ConvTranspose2d) else "conv"
    square = [_one(name, what, getattr(layer, what)) for what in ("kernel_size", "padding", "stride")]
    maps = (*image.shape[-2:], *result.shape[-2:])
    return LayerShape(
        name, kind, layer.in_channels, layer.out_channels, square[0], *maps, *square[1:], layer.weight.numel()
    )


def layer_shapes(model: nn.Module, image_size: int = 32) -> list[LayerShape]:
    """The convolutions, transposed convolutions and linear layers of `model`, in the order in which they run.

    Raises ValueError for a kernel, padding or stride that is not square.
    """
    shapes: list[LayerShape] = []
    handles = [
        layer.register_forward_hook(
            lambda layer, inputs, result, name=name: shapes.append(_shape(name, layer, inputs[0], result))
        )
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    ]
    try:
        _forward(model, image_size)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def padded_input(shape: LayerShape, last: bool) -> tuple[int, int, int]:
    """Height and width of a layer's input map with its border, and the stride, as the authors simulated the layer.

    last: whether it is the network's last layer.  What they changed is told under `weight_reads`.
    """
    deconv = shape.kind == "deconv"
    factor, stride = (shape.stride, 1) if deconv else (1, shape.stride)
    border = 2 if deconv or (last and shape.kind == "conv" and shape.kernel == 1) else 2 * shape.padding
    return shape.in_height * factor + border, shape.in_width * factor + border, stride


def _folds(shape: LayerShape, last: bool, proxy: bool) -> int:
    """How often the weights of one layer are read: once for every 32 positions at which they are applied."""
    if not proxy:
        deconv = shape.kind == "deconv"
        pixels = shape.in_height * shape.in_width if deconv else shape.out_height * shape.out_width
        return -(-pixels // ARRAY_ROWS)
    *sides, stride = padded_input(shape, last)
    height, width = (-(-(side - shape.kernel) // stride) + 1 for side in sides)
    return -(-height * width // ARRAY_ROWS)


def weight_reads(model: nn.Module, image_size: int = 32, proxy: bool = True) -> int:
    """64-bit reads of the weight memory for one image (the paper's T.W.M.A., Table 6).

    ceil(positions / 32) reads of every weight: SCALE-SIM's "SRAM Filter Reads" on a 32-row output-stationary array, in
    closed form.  proxy=True counts positions as the authors' runs did, and gives all eleven entries of Table 6
    exactly: a transposed convolution is replaced by a convolution of stride 1 over its output map with a border of 1
    on each side; a closing 1x1 convolution (the U-Nets') gets such a border too; and SCALE-SIM rounds the map of a
    strided convolution up, 17x17 for 16x16.  proxy=False counts the positions at which weights really are applied.
    `nflib.simulate` holds both counts against the simulator.  Source: energy_estimation_HL in
    IBM/energy-efficient-resilience.
    """
    shapes = layer_shapes(model, image_size)
    reads = sum(_folds(shape, shape is shapes[-1], proxy) * shape.weights for shape in shapes)
    return -(-reads // WEIGHTS_PER_WORD)


def accesses(model: nn.Module, image_size: int = 32) -> Accesses:
    """What one image takes on the 32x32 output-stationary array, in closed form, everything in 8 bits.

    A weight is read once for every 32 positions, an input of a position's window once for every 32 output channels, an
    output is written once: sums never leave the array.  `tests/test_simulate.py` holds this against
    SCALE-Sim, which counts 64 more writes a pass.  Border zeros count as read.
    """
    found = np.zeros(4, np.int64)
    for shape in layer_shapes(model, image_size):
        kind = "in" if shape.kind == "deconv" else "out"
        positions = getattr(shape, f"{kind}_height") * getattr(shape, f"{kind}_width")
        window, outputs = shape.weights // shape.cout, shape.out_height * shape.out_width * shape.cout
        reads = [-(-positions // ARRAY_ROWS) * shape.weights, -(-shape.cout // ARRAY_COLUMNS) * positions * window]
        found += [*reads, outputs, positions * shape.weights]
    return Accesses(*(found[:3] / WEIGHTS_PER_WORD).tolist(), int(found[3]))


def macs(model: nn.Module, image_size: int = 32) -> int:
    """Multiply-accumulates of the convolutions, transposed convolutions and linear layers for one image.

    Transposed convolutions are counted over their input pixels, as the arithmetic goes; biases, batch norm,
    activations and pooling are not counted.
    """
    with FlopCounterMode(display=False) as counter:
        _forward(model, image_size)
    return counter.get_total_flops() // 2


class _PrintedCount(TorchFunctionMode):
    """Adds up calls of torch functions by the conventions of ptflops; `parts` holds (function, operations) pairs."""

    def __init__(self):
        super().__init__()
        self.parts: list[tuple[Callable, int]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in (F.conv2d, F.conv_transpose2d, F.linear):
            _, weight, bias = (*args, None)[:3]
            positions = 1 if func is F.linear else result.shape[-2] * result.shape[-1]
            count = weight.numel() * positions + (result.numel() if bias is not None else 0)
        elif func is F.batch_norm:
            count = 2 * args[0].numel()
        elif func in (F.relu, F.max_pool2d, F.adaptive_avg_pool2d):
            count = args[0].numel()
        elif func is F.interpolate:
            count = result.numel()
        else:
            return result
        self.parts.append((func, count))
        return result


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
    with _PrintedCount() as counter:
        _forward(model, image_size)
    total = sum(count for _, count in counter.parts)
    if functional_ends:
        for end in (F.relu, F.adaptive_avg_pool2d):
            total -= next((count for func, count in counter.parts if func is end), 0)
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


def latencies(networks: Mapping[str, Callable[[Tensor], Tensor]], images: Tensor, rounds: int = 50, warmup: int = 3) -> dict[str, Latency]:
    """Wall-clock time of network(images) of each of the networks, images [B, 3, H, W] with any B (Table 9 has B = 1).

    They take turns, so that a machine that slows down for a while slows all of them: in each round each is called twice,
    the second call counts, and each call is waited for.  networks: by name, on the images' device, as they stand (call
    `.eval()` first).  The `warmup` first rounds are not counted.  Raises ValueError for rounds below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least 1 is needed")
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
