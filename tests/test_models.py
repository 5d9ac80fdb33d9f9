"""Base models and generators have the paper's layouts, to the last parameter, and nothing depends on global chance."""

import pytest
import torch
from torch import nn

from examples import same, seeded, state
from nflib import energy, generators, models
from nflib.faults import BitFlips, perturbed
from nflib.generators import UNet, transform
from nflib.models import parameter_count
from nflib.quantize import Quantized, weighted_layers

PARAMETERS = {
    ("resnet18", 32): 11_173_962,
    ("resnet50", 32): 23_520_842,
    ("vgg11", 32): 9_231_114,
    ("vgg16", 32): 14_728_266,
    ("vgg19", 32): 20_040_522,
    ("resnet18", 224): 11_181_642,
    ("resnet50", 224): 23_528_522,
    ("vgg11", 224): 128_812_810,
    ("vgg16", 224): 134_309_962,
    ("vgg19", 224): 139_622_218,
    ("preact_resnet18", 32): 11_172_170,  # by hand: its shortcuts are bare conv1x1, its batch norms take the blocks' inputs
}
FAULTABLE = {
    "resnet18": 11_164_352,
    "resnet50": 23_467_712,
    "vgg11": 9_222_848,
    "vgg16": 14_715_584,
    "vgg19": 20_024_000,
    "preact_resnet18": 11_164_352,  # ResNet18's convolutions, in another order
}
GENERATOR_PARAMETERS = {
    "conv_l": 723_273,
    "conv_s": 113_187,
    "deconv_l": 647_785,
    "deconv_s": 156_777,
    "unet_l": 482_771,
    "unet_s": 121_195,
}
ALL_GENERATORS = (*generators.LABELS, "universal")


def meta(build, *args, **options) -> nn.Module:
    """A model's layout without numbers in it."""
    with torch.device("meta"):
        return build(*args, **options)


def images(count: int = 2, size: int = 32) -> torch.Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=seeded()) - 1


# ------------------------------------------------------------------------------------------------------- base models


@pytest.mark.parametrize("name, size", PARAMETERS)
def test_base_models_have_the_published_numbers_of_parameters_and_of_faultable_weights(name, size):
    """All but biases and batch norm is faultable: what has two dimensions or more, 99.7 to 99.99 % of parameters."""
    model = meta(models.build, name, image_size=size)
    faultable = sum(layer.weight.numel() for layer in weighted_layers(model).values())
    assert parameter_count(model) == PARAMETERS[name, size]
    assert size == 224 or faultable == FAULTABLE[name]
    assert faultable == sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert 0.997 < faultable / parameter_count(model) < 0.9999 + 5e-5
    model = meta(models.build, name, classes=43, image_size=size).eval()
    assert model(torch.empty(2, 3, size, size, device="meta")).shape == (2, 43)


@pytest.mark.parametrize("name", [*models.ALL_LABELS, *generators.LABELS])
def test_width_is_a_factor_on_every_channel_count(name):
    """All but the three channels of images and of perturbations, the one of depthwise convolutions, and the classes."""
    build = models.build if name in models.ALL_LABELS else generators.build
    whole, half = (weighted_layers(meta(build, name, width=width)) for width in (1, 0.5))
    assert whole.keys() == half.keys()
    for large, small in ((whole[key].weight.shape, half[key].weight.shape) for key in whole):
        assert large[2:] == small[2:]
        assert all(b == (a if a in (1, 3, 10) else a // 2) for a, b in zip(large[:2], small[:2]))


@pytest.mark.parametrize("name, blocks", [("resnet18", 8), ("resnet50", 16)])
def test_the_release_s_imagenet_resnet_lacks_the_relu_after_each_sum(name, blocks):
    def relus(residual_relu: bool) -> int:
        model = meta(models.build, name, image_size=224, residual_relu=residual_relu)
        return sum(isinstance(m, nn.ReLU) for m in model.modules())

    assert relus(True) - relus(False) == blocks


@torch.no_grad()
def test_a_pre_activation_block_passes_its_input_on_and_its_shortcut_sees_the_activated_one():
    """With nothing in the body: x itself, negative values and all, or conv1x1(relu(bn(x)))."""
    model = models.build("preact_resnet18", width=0.125).eval()
    assert [*map(type, model[-5:-2])] == [nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d]
    blocks = [m for m in model if isinstance(m, models.PreActivation)]
    assert [block.body[0].stride[0] for block in blocks] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert [block.shortcut is None for block in blocks] == [True, True, False, True, False, True, False, True]
    for block in blocks:
        norm = block.activation[0]
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.normal_(generator=seeded(1))
        block.body[-1].weight.zero_()
        expected = x = torch.randn(2, norm.num_features, 8, 8, generator=seeded())
        if block.shortcut is not None:
            mean, scale, shift = (v.view(-1, 1, 1) for v in (norm.running_mean, norm.weight, norm.bias))
            active = (scale * (x - mean) / (1 + norm.eps) ** 0.5 + shift).relu()
            expected = torch.einsum("oi,bihw->bohw", block.shortcut.weight[..., 0, 0], active[..., ::2, ::2])
        assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize(("one", "other"), [("conv_l", "deconv_l"), ("conv_s", "deconv_s")])
def test_generators_of_one_size_share_their_encoder(one, other):
    assert same(*(generators.encoder(name)[0].state_dict() for name in (one, other)))


@pytest.mark.parametrize("name", models.ENCODERS.values())
def test_an_encoder_is_the_first_half_of_its_generator_and_classifies(name):
    """It holds the generator's weights, down to its smallest maps, and a linear layer; it needs fewer operations."""
    whole, alone = generators.build(name, seed=3), models.build(f"{name}_encoder", 7, seed=3)
    own, theirs = ({id(w): w for w in model.state_dict().values()}.values() for model in (alone, whole))
    shared = [w for w in own if any(w.shape == v.shape and torch.equal(w, v) for v in theirs)]
    assert len(shared) >= len(own) - 2  # all but the linear layer's
    assert alone(images(2)).shape == (2, 7)
    assert 0 < models.parameter_count(alone) < models.parameter_count(whole)
    assert 0 < energy.macs(alone) < energy.macs(whole)


def test_the_separable_selector_is_far_cheaper_than_what_it_stands_before():
    """Counted by hand at width 1: stem, then depthwise and pointwise convolutions at 16, 8, 8 and 4 pixels, and the head."""
    small = models.build("separable", 7)
    pixels, channels = [256, 64, 64, 16], [24, 48, 96, 192, 192]
    by_hand = 27 * 24 * 256 + sum(p * a * (9 + b) for p, a, b in zip(pixels, channels, channels[1:])) + 192 * 7
    assert energy.macs(small) == by_hand < 0.02 * energy.macs(models.build("vgg11", 7))
    assert small(images(2)).shape == (2, 7)


@torch.no_grad()
def test_every_matrix_of_the_transformer_lies_in_memory_and_matters():
    """At width 1/4, heads of 16 channels: stem, four blocks of 8 x 64 x 64 weights and the head, but for the position
    embedding; errors in one of these layers change the answers, and afterwards all is as it was."""
    model = models.build("cct", 7, width=0.25)
    loose = {name for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith("weight")}
    base, batch, flips = Quantized(model), images(3), BitFlips(0.05)
    assert sum(base.sizes.values()) == 27 * 16 + 9 * 16 * 64 + 4 * 8 * 64 * 64 + 64 * 7 and loose == {"8.position"}
    answers, before = base(batch), state(model)
    for name, errors in flips.draw(base.sizes, 1).items():
        with perturbed(base, {name: errors}):
            assert (base(batch) - answers).abs().max() > 1e-4, name
    assert same(before, model.state_dict()) and torch.equal(base(batch), answers)


@torch.no_grad()
def test_self_attention_is_that_of_pytorch():
    block, x = models.SelfAttention(24, 3), torch.randn(2, 5, 24, generator=seeded())
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict({
        **{f"in_proj_{what}": value for what, value in block.qkv.state_dict().items()},
        **{f"out_proj.{what}": value for what, value in block.project.state_dict().items()},
    })  # fmt: skip
    given = block.norm(x)
    moved = x + theirs(given, given, given)[0]
    assert torch.allclose(block(x), moved + block.mlp(moved), atol=1e-5)


REFUSED = [
    (models.build, "resnet81", 32, "'resnet81'.*'resnet18'"),
    (models.build, "alexnet", 32, "'alexnet'.*resnet18, resnet50, vgg11, vgg16, vgg19"),
    (models.build, "vgg11", 28, "28.*32 and 224"),
    (models.build, "preact_resnet18", 224, "224.*preact_resnet18"),
    (models.build, "separable", 224, "224.*separable"),
    (models.build, "cct", 224, "224.*cct"),
    (generators.build, "convl", 32, "'convl'.*'conv_l'"),
    (generators.build, "diffusion", 32, "'diffusion'.*conv_l, .*universal"),
]


@pytest.mark.parametrize("build, name, size, words", REFUSED)
def test_unknown_names_and_other_image_sizes_are_refused(build, name, size, words, refused):
    with refused(words):
        build(name, image_size=size)


def test_every_network_has_a_label_of_its_own():
    labels = [*models.ALL_LABELS.values(), *generators.ALL_LABELS.values()]
    assert len(set(labels)) == len(labels)


# -------------------------------------------------------------------------------------------------------- generators


@pytest.mark.parametrize("name", generators.LABELS)
def test_generators_have_the_published_number_of_parameters_and_end_in_tanh_but_for_unets(name):
    generator = meta(generators.build, name)
    assert parameter_count(generator) == GENERATOR_PARAMETERS[name]
    assert isinstance([*generator.modules()][-1], nn.Tanh) != name.startswith("unet")


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize("name", ALL_GENERATORS)
def test_a_perturbation_has_the_image_s_shape(name, size):
    generator = meta(generators.build, name, image_size=size)
    assert generator(torch.empty(2, 3, size, size, device="meta")).shape == (2, 3, size, size)


@torch.no_grad()
def test_universal_and_class_wise_perturbations_start_at_nothing_and_know_no_image():
    """One for all images, and one for all images of a class, whether the class is given or comes from a selector."""
    batch, labels = images(3, 16), torch.tensor([3, 0, 3])
    universal, class_wise = (generators.build(n, image_size=16, classes=4) for n in ("universal", "class_wise"))
    for generator in (universal, class_wise):
        assert torch.equal(transform(generator, batch, labels), batch)
        generator.raw.normal_(generator=seeded())
    assert torch.equal(universal(batch), torch.tanh(universal.raw).expand(3, 3, 16, 16))
    assert class_wise.raw.shape == (4, 3, 16, 16)
    assert torch.equal(class_wise(batch, labels), torch.tanh(class_wise.raw[labels]))
    moved = transform(class_wise, batch, labels)
    assert torch.equal(moved, (batch + class_wise(batch, labels)).clamp(-1, 1)) and not torch.equal(moved, batch)
    logits = torch.tensor([[0.0, 2, 1, 3], [9, 2, 1, 0], [0, 0, 1, 2]])  # of labels 3, 0, 3
    assert torch.equal(transform(generators.Selected(class_wise, lambda x: logits), batch), moved)


class Constant(nn.Module):
    """A generator that puts out one learnable tensor."""

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.values


def test_transform_clips_and_passes_no_gradient_where_it_saturates():
    """At exactly -1 and 1 the gradient is 1, as in the torch of the official code; else a universal perturbation that
    starts at nothing never moves where all images are black."""
    generator = Constant(torch.tensor([0.25, 0.75, -0.25, -0.75, 0, 3, -3, 0, 0]))
    transformed = transform(generator, torch.tensor([0.5, 0.5, -0.5, -0.5, 0, -1, 1, 1, -1]))
    assert transformed.tolist() == [0.75, 1, -0.75, -1, 0, 1, -1, 1, -1]
    transformed.sum().backward()
    assert generator.values.grad.tolist() == [1, 0, 1, 0, 1, 0, 0, 1, 1]


# ------------------------------------------------------------------------------------------------------------- U-Nets


def raised_parts(unet: UNet, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(skip, raised) halves of what enters each block of the way up."""
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for block in unet.up]
    unet(x)
    for hook in hooks:
        hook.remove()
    return [joined.chunk(2, dim=1) for joined in seen]


@torch.no_grad()
def test_zero_border_puts_a_ring_of_zeros_round_the_way_up_and_keeps_the_alignment():
    with_ring, without = UNet(4).eval(), UNet(4, zero_border=False).eval()
    without.load_state_dict(with_ring.state_dict())
    parts, plain_parts = raised_parts(with_ring, images()), raised_parts(without, images())
    x, skips = images(), []
    for block in with_ring.down:
        skips.append(x := block(x if not skips else nn.functional.max_pool2d(x, 2)))
    assert all(torch.equal(skip, kept) for (skip, _), kept in zip(parts, reversed(skips[:3]), strict=True))  # which come first
    for skip, raised in parts:
        ring = torch.ones_like(raised, dtype=torch.bool)
        ring[..., 1:-1, 1:-1] = False
        assert skip.shape == raised.shape and not raised[ring].any() and raised[~ring].all()
    for _, raised in plain_parts:
        assert raised.all()
    (_, raised), (_, plain) = parts[0], plain_parts[0]  # the lowest one, whose input is the same for both
    assert torch.allclose(raised[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1], atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- chance


@pytest.mark.parametrize("build, names", [(models.build, models.ALL_LABELS), (generators.build, generators._BUILDERS)])
def test_weights_depend_on_the_seed_alone(build, names):
    """Equal seeds give equal weights whatever was drawn before; other seeds others; global chance is not touched."""
    for name in names:
        torch.manual_seed(123)
        before = torch.get_rng_state()
        one = build(name, width=0.1, seed=4).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(7)
        assert same(one, build(name, width=0.1, seed=4).state_dict())
        assert not same(one, build(name, width=0.1, seed=5).state_dict())
