"""The six NeuralFuse generators, their encoders alone, and the input perturbations that they are compared with.

A generator G maps images [B, 3, H, W] in [-1, 1] (H and W divisible by 8) to a perturbation of the same shape; the
transformed image is clip(x + G(x), -1, 1).  Layouts follow the official 8-bit code; the parameter counts of the
paper's Table 7 are reproduced exactly at width 1.
"""

from collections import ChainMap
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nflib.names import choose

LABELS = {
    "conv_l": "ConvL",
    "conv_s": "ConvS",
    "deconv_l": "DeConvL",
    "deconv_s": "DeConvS",
    "unet_l": "UNetL",
    "unet_s": "UNetS",
}
UNIVERSAL, CLASS_WISE = "universal", "class_wise"
CONTROLS = {UNIVERSAL: "UIP", CLASS_WISE: "class-wise"}  # perturbations without a network
VARIANTS = {  # of ConvL, in one respect each
    "conv_l_narrow": "ConvL, half as wide",
    "conv_l_wide": "ConvL, twice as wide",
    "conv_l_shallow": "ConvL, shallow",
    "conv_l_deep": "ConvL, deep",
    "conv_l_leaky": "ConvL, leaky ReLU",
}
ALL_LABELS = ChainMap(VARIANTS, CONTROLS, LABELS)  # in the order LABELS, CONTROLS, VARIANTS


def label(name: str) -> str:
    """A generator's name as the paper writes it; "UIP" for the universal input perturbation."""
    return ALL_LABELS[name]


def _block(cin: int, cout: int, activation: Callable[[], nn.Module] = nn.ReLU) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), activation()]


def _deconv_block(cin: int, cout: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(cin, cout, 4, 2, 1), nn.BatchNorm2d(cout), nn.ReLU()]


def _pool() -> nn.Module:
    return nn.MaxPool2d(2)


def _up() -> nn.Module:
    return nn.Upsample(scale_factor=2, mode="nearest")


def _conv_l(c: int, maps: int, more: int = 0, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """more: convolutions added on each map size of the encoder and of the decoder; -1 takes one away."""

    def blocks(*channels: int) -> list[nn.Module]:
        channels = (channels[0], *channels[2:]) if more < 0 else channels + channels[-1:] * more
        return [layer for pair in zip(channels, channels[1:]) for layer in _block(*pair, activation)]

    down = [*blocks(maps, c, c), _pool(), *blocks(c, 2 * c, 2 * c), _pool(), *blocks(2 * c, 4 * c, 4 * c), _pool()]
    up = [*_block(4 * c, 4 * c, activation), _up(), *blocks(4 * c, 4 * c, 2 * c), _up(), *blocks(2 * c, 2 * c, c), _up()]
    up += _block(c, c, activation)
    return nn.Sequential(*down, *up, nn.Conv2d(c, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.Tanh())


def _conv_s(c: int, maps: int) -> nn.Sequential:
    down = [*_block(maps, c), _pool(), *_block(c, 2 * c), _pool(), *_block(2 * c, 2 * c), _pool()]
    up = [*_block(2 * c, 2 * c), _up(), *_block(2 * c, c), _up(), *_block(c, maps), _up()]
    return nn.Sequential(*down, *up, nn.Conv2d(maps, maps, 3, padding=1), nn.BatchNorm2d(maps), nn.Tanh())


def _deconv_l(c: int, maps: int) -> nn.Sequential:
    down = [*_block(maps, c), *_block(c, c), _pool(), *_block(c, 2 * c), *_block(2 * c, 2 * c), _pool()]
    down += [*_block(2 * c, 4 * c), *_block(4 * c, 4 * c), _pool(), *_block(4 * c, 4 * c)]
    up = [*_deconv_block(4 * c, 2 * c), *_block(2 * c, 2 * c), *_deconv_block(2 * c, c), *_block(c, c)]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(c, maps, 4, 2, 1), nn.BatchNorm2d(maps), nn.Tanh())


def _deconv_s(c: int, maps: int) -> nn.Sequential:
    down = [*_block(maps, c), _pool(), *_block(c, 2 * c), _pool(), *_block(2 * c, 2 * c), _pool()]
    up = [*_deconv_block(2 * c, 2 * c), *_deconv_block(2 * c, c)]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(c, maps, 4, 2, 1), nn.BatchNorm2d(maps), nn.Tanh())


def _double(cin: int, cout: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a in (cin, cout):
        layers += [nn.Conv2d(a, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net with base width c, no batch norm or tanh at its output, from `maps` channels to as many.

    zero_border: True (the official 8-bit code) gives each up-convolution a padding of 1, so that its output is two
    pixels short and a ring of zeros fills it up; False is the code's full-precision variant.
    skip_gain: buffer (float scalar), a factor on the skips, 1 but while images fade in (see `eopm.GeneratorRecipe`).
    """

    def __init__(self, c: int, maps: int = 3, zero_border: bool = True):
        super().__init__()
        self.down = nn.ModuleList([_double(maps, c), _double(c, 2 * c), _double(2 * c, 4 * c), _double(4 * c, 8 * c)])
        self.lift = nn.ModuleList(
            [nn.ConvTranspose2d(2 * a, a, 2, 2, padding=int(zero_border)) for a in (4 * c, 2 * c, c)]
        )
        self.up = nn.ModuleList([_double(2 * a, a) for a in (4 * c, 2 * c, c)])
        self.final = nn.Conv2d(c, maps, 1)
        self.zero_border = zero_border
        self.register_buffer("skip_gain", torch.ones(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        for lift, block, skip in zip(self.lift, self.up, reversed(skips[:-1])):
            raised = F.pad(lift(x), (1, 1, 1, 1)) if self.zero_border else lift(x)
            x = block(torch.cat([self.skip_gain * skip, raised], dim=1))
        return self.final(x)


class UniversalPerturbation(nn.Module):
    """One learnable perturbation tanh(U) for all images (the paper's UIP baseline, Table 11); U has the image's shape."""

    def __init__(self, image_size: int = 32):
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(1, 3, image_size, image_size))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.raw).expand_as(x)


class ClassWise(nn.Module):
    """One learnable perturbation tanh(U_c) for each class c, added to the images of that class: it is told the labels.

    Not a mitigation, for it needs the answer; it shows what a generator could do at most if all that it did was to tell
    the class and to add that class's perturbation.  U [classes, 3, H, W].
    """

    def __init__(self, classes: int = 10, image_size: int = 32):
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(classes, 3, image_size, image_size))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return torch.tanh(self.raw[labels])


class Selected(nn.Module):
    """Class-wise perturbations that a classifier tells the class, so that nothing needs the true label: a generator in two parts.

    selector: maps images to logits [B, classes].
    """

    def __init__(self, perturbations: ClassWise, selector: Callable[[Tensor], Tensor]):
        super().__init__()
        self.perturbations, self.selector = perturbations, selector

    def forward(self, x: Tensor) -> Tensor:
        return self.perturbations(x, self.selector(x).argmax(1))


_BUILDERS = {
    "conv_l": (_conv_l, 32),
    "conv_s": (_conv_s, 32),
    "deconv_l": (_deconv_l, 32),
    "deconv_s": (_deconv_s, 32),
    "unet_l": (UNet, 16),
    "unet_s": (UNet, 8),
    "conv_l_narrow": (_conv_l, 16),
    "conv_l_wide": (_conv_l, 64),
    "conv_l_shallow": (partial(_conv_l, more=-1), 32),
    "conv_l_deep": (partial(_conv_l, more=1), 32),
    "conv_l_leaky": (partial(_conv_l, activation=partial(nn.LeakyReLU, 0.1)), 32),
}


def build(
    name: str, width: float = 1.0, seed: int = 0, image_size: int = 32, classes: int = 10, maps: int = 3
) -> nn.Module:
    """A generator, float32, train mode, initialised from `seed`.

    name: a key of ALL_LABELS; CONTROLS are the only ones that need `image_size`, and class-wise perturbations need `classes`
    too.  width: factor on the channel counts.  maps: channels of what it transforms, other than an image's three within a
    base model (see `adapters`).  Raises UserError for an unknown name.
    """
    choose("generator", name, ALL_LABELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == UNIVERSAL:
            return UniversalPerturbation(image_size)
        if name == CLASS_WISE:
            return ClassWise(classes, image_size)
        builder, base_width = _BUILDERS[name]
        return builder(max(1, round(base_width * width)), maps)


def encoder(name: str, width: float = 1.0, seed: int = 0) -> tuple[nn.Sequential, int]:
    """The layers of one of the six generators down to its smallest maps, and the channels of these."""
    whole = build(choose("generator", name, LABELS), width, seed)
    if isinstance(whole, UNet):
        layers = [layer for block in whole.down for layer in (_pool(), block)][1:]
    else:
        layers = list(whole)[: 1 + max(k for k, layer in enumerate(whole) if isinstance(layer, nn.MaxPool2d))]
    channels = [m.out_channels for layer in layers for m in layer.modules() if isinstance(m, nn.Conv2d)][-1]
    return nn.Sequential(*layers), channels


def transform(generator: nn.Module, images: Tensor, labels: Tensor | None = None, brightness: float = 1.0) -> Tensor:
    """Transformed images clip(x + G(x), -1, 1), shape of `images` (Eq. 1).

    labels: of the images, for class-wise perturbations, which no other generator sees.  brightness: a factor on x where it
    stands alone, below 1 while the images fade in (see `eopm.GeneratorRecipe`).  The gradient is 1 on the closed interval
    and 0 outside, in every torch (its clamp has had 0 at the ends since 2.14).
    """
    moved = brightness * images + (generator(images, labels) if isinstance(generator, ClassWise) else generator(images))
    return torch.where(moved.abs() <= 1, moved, moved.detach().clamp(-1, 1))
