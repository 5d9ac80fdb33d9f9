"""Base classifiers by name, in their CIFAR form (32x32) and their ImageNet form (224x224).

Source: NeuralFuse section 4.1 and Table 7, whose parameter counts these reproduce exactly at width 1.
CIFAR form: ResNets with a 3x3 stem and no max-pool, VGG with batch norm, five max-pools and one linear layer.
ImageNet form: torchvision's layout (7x7 stem; 25088-4096-4096 head).
One more, in the CIFAR form only, for Table 26: the pre-activation ResNet18 of the authors of adversarial weight
perturbation (AWP; Wu et al., NeurIPS 2020).  And, as a control, the encoder of each generator with an average pool and a
linear layer behind it: what a generator's own network could classify without any base model.  "separable" is a small
network of depthwise-separable convolutions (after MobileNet, Howard et al., 2017), as a cheap selector of perturbations.
"cct" is a compact convolutional transformer.
"""

import torch
from torch import Tensor, nn

from nflib import generators
from nflib.names import UserError, choose

RESNETS = {"resnet18": ("basic", [2, 2, 2, 2]), "resnet50": ("bottleneck", [3, 4, 6, 3])}
VGGS = {
    "vgg11": [1, 1, 2, 2, 2],
    "vgg16": [2, 2, 3, 3, 3],
    "vgg19": [2, 2, 4, 4, 4],
}
PREACT_RESNETS = {"preact_resnet18": [2, 2, 2, 2]}
ENCODERS = {f"{name}_encoder": name for name in ("conv_l", "conv_s", "unet_l", "unet_s")}  # DeConvL's is ConvL's, and so on
ENCODER_OF = {of: encoder for encoder, of in ENCODERS.items()}
SEPARABLE = {"separable": [(48, 1), (96, 2), (192, 1), (192, 2)]}  # channels and stride of each block; the stem: 24, 2
TRANSFORMERS = {"cct": (4, 4)}  # blocks, heads
LABELS = {  # the five of the paper's grids
    "resnet18": "ResNet18", "resnet50": "ResNet50", "vgg11": "VGG11", "vgg16": "VGG16", "vgg19": "VGG19"
}  # fmt: skip
ALL_LABELS = LABELS | {"preact_resnet18": "PreActResNet18", "separable": "separable network", "cct": "CCT"}
ALL_LABELS |= {name: f"{generators.label(of)} encoder" for name, of in ENCODERS.items()}
IMAGENET_SIZE = 224
MIN_CHANNELS = 8  # below it, oneDNN's AVX2 kernel for the weight gradient of a strided 1x1 convolution hangs or crashes


def label(name: str) -> str:
    """The printed name of any base model in ALL_LABELS."""
    return ALL_LABELS[name]


def _channels(full: int, width: float) -> int:
    return max(MIN_CHANNELS, round(full * width))


def _conv(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False)


class Residual(nn.Module):
    """A residual block, basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 with expansion 4, stride on the 3x3)."""

    def __init__(self, kind: str, cin: int, channels: int, stride: int, final_relu: bool):
        super().__init__()
        if kind == "basic":
            plan, cout = [(channels, 3, stride), (channels, 3, 1)], channels
        else:
            plan, cout = [(channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)], 4 * channels
        layers, width = [], cin
        for out, kernel, step in plan:
            layers += [_conv(width, out, kernel, step), nn.BatchNorm2d(out), nn.ReLU()]
            width = out
        self.body = nn.Sequential(*layers[:-1])
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else nn.Sequential(_conv(cin, cout, 1, stride), nn.BatchNorm2d(cout))
        self.final = nn.ReLU() if final_relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.final(self.body(x) + self.shortcut(x))


def _resnet(name: str, classes: int, large: bool, width: float, residual_relu: bool) -> nn.Sequential:
    kind, depths = RESNETS[name]
    stem = _channels(64, width)
    layers: list[nn.Module] = [_conv(3, stem, 7, 2) if large else _conv(3, stem, 3), nn.BatchNorm2d(stem), nn.ReLU()]
    if large:
        layers.append(nn.MaxPool2d(3, 2, 1))
    cin, expansion = stem, 1 if kind == "basic" else 4
    for stage, depth in enumerate(depths):
        channels = _channels(64 * 2**stage, width)
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Residual(kind, cin, channels, stride, residual_relu))
            cin = channels * expansion
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes))


class PreActivation(nn.Module):
    """A pre-activation block: BN-ReLU-conv3x3 twice, nothing after the sum.

    Where the shape changes, the shortcut is a 1x1 convolution of the input after the first BN-ReLU, without a batch
    norm of its own; elsewhere it is the input itself.
    """

    def __init__(self, cin: int, channels: int, stride: int):
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU())
        self.body = nn.Sequential(
            _conv(cin, channels, 3, stride), nn.BatchNorm2d(channels), nn.ReLU(), _conv(channels, channels, 3)
        )
        self.shortcut = None if stride == 1 and cin == channels else _conv(cin, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(x)
        return self.body(active) + (x if self.shortcut is None else self.shortcut(active))


def _preact_resnet(name: str, classes: int, width: float) -> nn.Sequential:
    cin = _channels(64, width)
    layers: list[nn.Module] = [_conv(3, cin, 3)]
    for stage, depth in enumerate(PREACT_RESNETS[name]):
        channels = _channels(64 * 2**stage, width)
        for block in range(depth):
            layers.append(PreActivation(cin, channels, 2 if stage > 0 and block == 0 else 1))
            cin = channels
    # The AWP authors' version, which NeuralFuse took over; the one by kuangliu has no batch norm and ReLU at the end.
    layers += [nn.BatchNorm2d(cin), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes))


def _vgg(name: str, classes: int, large: bool, width: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    cin = 3
    for stage, depth in enumerate(VGGS[name]):
        channels = _channels(min(64 * 2**stage, 512), width)
        for _ in range(depth):
            layers += [nn.Conv2d(cin, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            cin = channels
        layers.append(nn.MaxPool2d(2))
    if large:
        hidden = _channels(4096, width)
        head = [nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(cin * 49, hidden), nn.ReLU(), nn.Dropout(0.5)]
        head += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, classes)]
    else:
        head = [nn.Flatten(), nn.Linear(cin, classes)]
    model = nn.Sequential(*layers, *head)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)
    return model


def _encoder(name: str, classes: int, width: float, seed: int) -> nn.Sequential:
    layers, channels = generators.encoder(ENCODERS[name], width, seed)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def _separable(name: str, classes: int, width: float) -> nn.Sequential:
    cin = _channels(24, width)
    layers: list[nn.Module] = [_conv(3, cin, 3, 2), nn.BatchNorm2d(cin), nn.ReLU()]
    for full, stride in SEPARABLE[name]:
        cout = _channels(full, width)
        layers += [nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False), nn.BatchNorm2d(cin), nn.ReLU()]
        layers += [_conv(cin, cout, 1), nn.BatchNorm2d(cout), nn.ReLU()]
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes))


class SelfAttention(nn.Module):
    """A pre-norm block of a transformer: self-attention, then an MLP, each added to its input; tokens [B, T, channels].

    Explicit products: PyTorch's fused attention takes 5 to 12 times as long to differentiate in bf16 on a CPU.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(channels)
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        hidden = nn.Linear(channels, 2 * channels), nn.GELU()
        self.mlp = nn.Sequential(nn.LayerNorm(channels), *hidden, nn.Linear(2 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [B, heads, T, each]
        attention = torch.matmul(q * q.shape[-1] ** -0.5, k.mT).softmax(-1)
        x = x + self.project(torch.matmul(attention, v).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Tokens(nn.Module):
    """Maps [B, channels, 8, 8] to tokens [B, 64, channels] plus a learned position embedding, which no error hits, as
    none hits biases and norms."""

    def __init__(self, channels: int):
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(64, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1, 2) + self.position


def _transformer(name: str, classes: int, width: float) -> nn.Sequential:
    """After CCT-4/3x2 of Hassani et al., 2021; but with 64 channels in each of four heads, batch norm in the stem, MLPs
    twice as wide, and the mean over tokens in place of sequence pooling."""
    (blocks, heads), each, layers = TRANSFORMERS[name], _channels(64, width), []
    channels = heads * each
    for cin, cout in ((3, each), (each, channels)):
        layers += [_conv(cin, cout, 3), nn.BatchNorm2d(cout), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    layers += [Tokens(channels), *(SelfAttention(channels, heads) for _ in range(blocks)), nn.LayerNorm(channels)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, None)), nn.Flatten(), nn.Linear(channels, classes))


def build(
    name: str, classes: int = 10, image_size: int = 32, width: float = 1.0, seed: int = 0, residual_relu: bool = True
) -> nn.Module:
    """A base model, float32, train mode, initialised from `seed`; maps images [B, 3, H, W] in [-1, 1] to logits [B, classes].

    name: a key of ALL_LABELS.  image_size: 32 gives the CIFAR form, 224 the ImageNet form ("preact_resnet18",
    "separable" and "cct" have none).
    width: factor on every channel count, of which none falls below 8 (smoke scale: < 1), in "cct" of each head.
    residual_relu: False leaves out the ReLU after each residual sum, as the official code's ImageNet ResNet18 does.
    Raises UserError for an unknown name or size.
    """
    choose("base model", name, ALL_LABELS)
    if image_size not in (32, IMAGENET_SIZE):
        raise UserError(f"image size is {image_size}; allowed are 32 and {IMAGENET_SIZE}")
    large = image_size == IMAGENET_SIZE
    if large and name in (*PREACT_RESNETS, *SEPARABLE, *TRANSFORMERS):
        raise UserError(f"image size is {image_size}; {name} has the CIFAR form only, for images of 32")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in RESNETS:
            return _resnet(name, classes, large, width, residual_relu)
        if name in PREACT_RESNETS:
            return _preact_resnet(name, classes, width)
        if name in ENCODERS:
            return _encoder(name, classes, width, seed)
        if name in SEPARABLE:
            return _separable(name, classes, width)
        if name in TRANSFORMERS:
            return _transformer(name, classes, width)
        return _vgg(name, classes, large, width)


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers in `model`: weights, biases, scales and shifts of norms, position embeddings."""
    return sum(p.numel() for p in model.parameters())
