"""Per-tensor symmetric weight codes, and the straight-through fake quantisation used in training.

Source: NeuralFuse, section 4.1 and the official code's `quantized_ops`: scale = max|W| / (2^(bits-1) - 1),
code = round-half-to-even(W / scale), stored as two's complement. -(2^(bits-1)) is never a stored code,
but a bit error can produce it.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nflib.names import UserError

WEIGHTED_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
MIN_BITS, MAX_BITS = 2, 8


def check_bits(bits: int) -> int:
    """Return `bits` if it is a supported code width (2 to 8); raise UserError otherwise."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise UserError(f"bits is {bits!r}; allowed are whole numbers from {MIN_BITS} to {MAX_BITS}")
    return bits


def _scale(weight: Tensor, bits: int) -> Tensor:
    largest = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.where(largest < torch.finfo(largest.dtype).tiny, torch.ones_like(largest), largest)


def encode(weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Codes (int8, shape of `weight`, sign-extended for bits < 8) and scale (float scalar).

    The scale is 1 for a tensor of zeros, which subnormal numbers count as.
    Raises UserError for weights that are not finite, or a width outside 2 to 8.
    """
    weight = weight.detach()
    scale = _scale(weight, check_bits(bits))
    if not torch.isfinite(scale):
        raise UserError("weights are not finite; nothing can be quantised")
    return torch.round(weight / scale).to(torch.int8), scale


def decode(codes: Tensor, scale: Tensor) -> Tensor:
    """Weights (float, shape of `codes`) that the codes stand for."""
    return codes.to(scale.dtype) * scale


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, bits: int, faults: object) -> Tensor:
        scale = _scale(weight, bits)
        codes = torch.round(weight / scale)
        if faults is not None:
            flat = codes.flatten()  # in C order, as faults count weights, whatever the tensor's own order
            flat[faults.index] = faults.read(flat[faults.index].to(torch.int8), bits).to(flat.dtype)
            codes.copy_(flat.view(codes.shape))
        return codes * scale

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None, None


class FakeQuantize(nn.Module):
    """Parametrisation W -> decode(encode(W)) whose gradient passes straight through, without masking.

    faults: a `faults.LayerFaults` on the weight's device that the codes are read back with; None: as they were stored.
    """

    def __init__(self, bits: int = 8):
        super().__init__()
        self.bits, self.faults = check_bits(bits), None

    def forward(self, weight: Tensor) -> Tensor:
        return _StraightThrough.apply(weight, self.bits, self.faults)


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weight tensors sit in the faulty memory, by qualified name, in module order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, WEIGHTED_LAYERS)}


def quantization_aware(model: nn.Module, bits: int = 8) -> nn.Module:
    """Register `FakeQuantize` on every weighted layer of `model` (in place); returns the model."""
    for layer in weighted_layers(model).values():
        parametrize.register_parametrization(layer, "weight", FakeQuantize(bits))
    return model


def plain(model: nn.Module) -> nn.Module:
    """Undo `quantization_aware` (in place): layers hold the float weights behind the codes again."""
    for layer in weighted_layers(model).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return model


class Quantized:
    """A frozen model whose weights are exactly `decode(codes, scale)`; what bit errors are applied to.

    model: the nn.Module, in eval mode, no gradients to its parameters, weights overwritten by their codes' values.
    codes: {layer name: int8 [weights]}, flat in C order.  scales: {layer name: scalar}.  bits: code width.
    """

    def __init__(self, model: nn.Module, bits: int = 8):
        self.model = plain(model).eval().requires_grad_(False)
        self.bits = check_bits(bits)
        self.layers = weighted_layers(self.model)
        self.codes, self.scales = {}, {}
        for name, layer in self.layers.items():
            layer.weight.data = layer.weight.data.contiguous()
            codes, scale = encode(layer.weight, bits)
            self.codes[name], self.scales[name] = codes.flatten(), scale
            layer.weight.data.copy_(decode(codes, scale))

    @property
    def sizes(self) -> dict[str, int]:
        """Weights per layer, in module order."""
        return {name: codes.numel() for name, codes in self.codes.items()}

    @property
    def stored_bits(self) -> int:
        """Bits that the weight memory holds."""
        return self.bits * sum(self.sizes.values())

    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images)
