"""Codes are symmetric, rounded half to even, in two's complement; training sees what the faulty memory holds."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from examples import same, state
from nflib.faults import StuckAt
from nflib.quantize import FakeQuantize, Quantized, check_bits, decode, encode, plain, quantization_aware, weighted_layers

WIDTHS = range(2, 9)
# Float32 whose scale is no subnormal number; see test_codes_of_subnormal_weights.
NUMBERS = st.just(0.0) | st.floats(2.0**-99, 2.0**99, width=32) | st.floats(-(2.0**99), -(2.0**-99), width=32)
WEIGHTS = st.lists(NUMBERS, min_size=1, max_size=50).map(lambda row: torch.tensor(row, dtype=torch.float32))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 5, 2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(5 * 7 * 7, 6))


@settings(max_examples=200)
@example(torch.zeros(3), 8)
@given(WEIGHTS, st.sampled_from(WIDTHS))
def test_codes_are_symmetric_and_equal_numpy_s_rounding_of_the_definition(weight, bits):
    """The largest weight is at the end; none moves by over half a step; encoding what is decoded gives the codes."""
    codes, scale = encode(weight, bits)
    assert codes.dtype == torch.int8 and codes.shape == weight.shape and scale.ndim == 0
    assert codes.int().abs().max() == (2 ** (bits - 1) - 1 if weight.any() else 0)
    w = weight.numpy()
    largest = np.abs(w).max() / np.float32(2 ** (bits - 1) - 1)
    assert scale.item() == (largest if largest > 0 else 1)
    np.testing.assert_array_equal(codes.numpy(), np.rint(w / np.float32(scale.item())).astype(np.int8))
    decoded = decode(codes, scale)
    assert (decoded.double() - weight.double()).abs().max() <= scale.double() * (0.5 + 1e-4)
    assert torch.equal(codes, encode(decoded, bits)[0])
    assert torch.equal(FakeQuantize(bits)(weight), decoded)


def test_halves_round_to_even():
    weight = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5])
    assert encode(weight)[0].tolist() == [127, 0, 2, 2, 0, -2, -2, 126]


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_weights_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="^.*finite.*$"):
        encode(torch.tensor([1.0, bad, 1.0]))


def test_codes_of_subnormal_weights():
    """The scale of weights near 1e-43 has no precision left; codes must not wrap round to the other sign."""
    codes, _ = encode(torch.tensor([2.66e-43, -2.66e-43, 1.4e-45]))
    assert codes[0] >= 0 >= codes[1]


@pytest.mark.parametrize("bits", [1, 9, 0, -8, 8.0, "8", True, None])
def test_widths_outside_two_to_eight_are_refused(bits, refused):
    for use in (check_bits, FakeQuantize, lambda b: encode(torch.ones(2), b)):
        with refused(f"{bits}.* 2 to 8"):
            use(bits)


def test_quantisation_aware_training_sees_quantised_weights_and_plain_puts_the_float_ones_back():
    model = small_model()
    before = state(model)
    quantization_aware(model, 4)
    for name, layer in weighted_layers(model).items():
        assert torch.equal(layer.weight, decode(*encode(before[f"{name}.weight"], 4)))
        assert torch.equal(layer.parametrizations.weight.original, before[f"{name}.weight"])
    plain(model)
    assert same(before, state(model))
    assert all(isinstance(layer.weight, nn.Parameter) for layer in weighted_layers(model).values())
    assert same(before, state(plain(model)))  # twice does no harm


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_quantized_weights_equal_codes_times_scale_and_nothing_else_changes(bits, channels_last):
    model = small_model()
    before = state(model)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    base = Quantized(quantization_aware(model, bits), bits)
    assert list(base.codes) == list(base.scales) == list(base.layers) == ["0", "3", "5"]
    assert base.sizes == {name: before[f"{name}.weight"].numel() for name in base.layers}
    for name, layer in base.layers.items():
        codes, scale = encode(before[f"{name}.weight"], bits)
        assert torch.equal(base.codes[name], codes.flatten()) and base.scales[name] == scale
        assert torch.equal(layer.weight, codes * scale)
    rest = {key: tensor for key, tensor in before.items() if key.removesuffix(".weight") not in base.layers}
    assert same(rest, {key: base.model.state_dict()[key] for key in rest})


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_codes_are_faked_as_they_are_read_back_and_the_gradient_passes_straight_through(bits, memory_format):
    """With and without faults, whatever the order of the tensor: no masking, and no gradient by way of the scale."""
    chance = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, 3, 3, generator=chance).contiguous(memory_format=memory_format).requires_grad_()
    pattern = StuckAt(0.3).draw({"0": weight.numel()}, 1, bits)["0"]
    codes, scale = encode(weight, bits)
    wanted = codes.flatten().clone()
    wanted[pattern.index] = pattern.read(wanted[pattern.index], bits)
    fake = FakeQuantize(bits)
    upstream = torch.randn(weight.shape, generator=chance)
    for fake.faults, read_codes in ((None, codes), (pattern, wanted.view(codes.shape))):
        weight.grad, read = None, fake(weight)
        read.backward(upstream)
        assert torch.equal(read, decode(read_codes, scale)) and torch.equal(weight.grad, upstream)
    assert not torch.equal(read, decode(codes, scale))


def test_a_quantized_model_is_frozen():
    base = Quantized(small_model())
    before = state(base.model)
    assert not any(module.training for module in base.model.modules())
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    base(images).sum().backward()
    assert images.grad is not None and images.grad.any()
    assert same(before, state(base.model))
    assert all(parameter.grad is None for parameter in base.model.parameters())
