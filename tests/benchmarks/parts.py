"""What is compared: injection of one error pattern, one training step of a generator, one evaluation."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nflib import data, evaluation, faults, generators, models
from nflib.eopm import RELEASE_MOMENTUM, eopm_gradient
from nflib.faults import named
from nflib.quantize import Quantized, quantization_aware
from nflib.training import FORCED_PRECISION, precision

from . import rivals
from .clock import Call

RATE = 0.01
ERROR_MODELS = ("bit_flips", "stuck_at", "release_map")
SEED = 50000
LOSS_WEIGHT = 5.0


@dataclass
class Comparison:
    """Sides that do the same work, by name; ours comes first.

    builders: what makes each side's call.  seconds: how long to go on at most.
    """

    name: str
    builders: dict[str, Callable[[], Call]]
    rounds: int
    seconds: float


def _base(name: str, device: torch.device) -> nn.Module:
    return models.build(name).to(device).eval()


# ---------------------------------------------------------------------------------------------------------- injection


class _Inject:
    """One pattern drawn, applied and undone, a new seed each time."""

    def __init__(self, injector):
        self.injector = injector

    def __call__(self, number: int) -> None:
        self.injector.perturb(SEED + number)
        self.injector.undo()


def injection(device: torch.device, model: str = "resnet18", rounds: int = 15) -> list[Comparison]:
    """One error pattern at 1 % into a base model's 8-bit weights: from a seed to perturbed weights and back."""

    def ours(error_model: str) -> Callable[[], Call]:
        return lambda: _Inject(rivals.Ours(_base(model, device), named(error_model, RATE)))

    builders = {f"ours, {faults.LABELS[error_model]}": ours(error_model) for error_model in ERROR_MODELS}
    builders["dense sampling"] = lambda: _Inject(rivals.Dense(_base(model, device), RATE))
    builders["official path"] = lambda: _Inject(rivals.Official(_base(model, device), RATE))
    if rivals.has_mrfi():
        for name, end in (("MRFI", ""), ("MRFI, classic selector", "_classic")):
            selector = f"RandomPositionByRate{end}"
            builders[name] = lambda selector=selector: _Inject(rivals.Mrfi(_base(model, device), RATE, selector))

    return [Comparison("one error pattern", builders, rounds, 75)]


# ------------------------------------------------------------------------------------------------------------ training


def _batch(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(size, 3, 32, 32, generator=chance) - 1
    return images.to(like), torch.randint(0, 10, (size,), generator=chance).to(like.device)


def _generator(name: str, width: float, like: Tensor) -> tuple[nn.Module, torch.optim.Optimizer]:
    generator = quantization_aware(generators.build(name, width)).to(like).train()
    return generator, torch.optim.Adam(generator.parameters(), 0.001, (0.5, 0.999))


class OurStep:
    """One optimiser step of `training.train_generator`.  arithmetic: None for the fastest, or "fp32"."""

    def __init__(
        self, base: nn.Module, name: str, batch: int, count: int, arithmetic: str | None = None, width: float = 1.0
    ):
        like = next(base.parameters())
        self.base = Quantized(copy.deepcopy(base).to(memory_format=torch.channels_last))
        self.generator, self.optimizer = _generator(name, width, like)
        self.generator.to(memory_format=torch.channels_last)
        for layer in self.generator.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = RELEASE_MOMENTUM
        images, self.labels = _batch(batch, like)
        self.images = images.contiguous(memory_format=torch.channels_last)  # as `augment` gives them
        self.count, self.arithmetic, self.error_model = count, arithmetic, named("release_map", RATE)

    def gradient(self, number: int) -> None:
        device, seeds = self.images.device, range(number * self.count, (number + 1) * self.count)
        patterns = faults.ahead(lambda seed: self.error_model.draw(self.base.sizes, seed, device=device), seeds, device)

        def pattern(*_: object) -> faults.Pattern:
            return next(patterns)

        forced = FORCED_PRECISION.set(self.arithmetic)
        try:
            eopm_gradient(self.generator, [self.base], self.images, self.labels, pattern, self.count, LOSS_WEIGHT)
        finally:
            FORCED_PRECISION.reset(forced)

    def __call__(self, number: int) -> None:
        self.optimizer.zero_grad()
        self.gradient(number)
        self.optimizer.step()


class TextbookStep:
    """The same step as the official loop takes it, in fp32."""

    def __init__(self, base: nn.Module, name: str, batch: int, count: int, width: float = 1.0):
        like = next(base.parameters())
        self.models = rivals.OfficialModels(base, RATE)
        self.generator, self.optimizer = _generator(name, width, like)
        self.images, self.labels = _batch(batch, like)
        self.count = count

    def gradient(self, number: int, log: bool = True) -> None:
        seeds = range(number * self.count, (number + 1) * self.count)
        rivals.textbook_gradient(self.generator, self.models, self.images, self.labels, seeds, LOSS_WEIGHT, log)

    def __call__(self, number: int) -> None:
        self.gradient(number)
        self.optimizer.step()


def training(device: torch.device, settings: tuple = (), rounds: int = 5) -> list[Comparison]:
    """One optimiser step of a generator, ours and the official loop's; settings: (base, generator, batch, N)."""
    if not settings:
        settings = (("vgg11", "conv_s", 64, 2), ("vgg11", "conv_s", 32, 10), ("resnet18", "conv_l", 32, 2))
        if device.type == "cuda":
            settings = (("vgg11", "conv_s", 256, 10), ("resnet18", "conv_l", 256, 10))
    found = []
    for base, generator, batch, count in settings:

        def step(kind: type, *more: str | None, base=base, given=(generator, batch, count)) -> Callable[[], Call]:
            return lambda: kind(_base(base, device), *given, *more)

        builders = {"ours": step(OurStep, None)}
        if precision(device) != "fp32":
            builders["ours, fp32"] = step(OurStep, "fp32")
        builders["official loop"] = step(TextbookStep)
        name = f"{models.LABELS[base]} + {generators.LABELS[generator]}, batch {batch}, N = {count}"
        found.append(Comparison(name, builders, rounds, 60))
    return found


# ---------------------------------------------------------------------------------------------------------- evaluation


class OurEvaluation:
    """Transformed images computed once; then every pattern over both sets of images."""

    def __init__(self, base: nn.Module, generator: nn.Module, images: Tensor, labels: Tensor, patterns: int):
        self.base = Quantized(copy.deepcopy(base).to(memory_format=torch.channels_last))
        self.generator = Quantized(copy.deepcopy(generator).to(memory_format=torch.channels_last)).model
        self.split, self.seeds = data.Split(images, labels), range(SEED, SEED + patterns)

    def __call__(self, number: int) -> dict[str, list[float]]:
        found, error_model = {}, named("release_map", RATE)
        for end, generator in (("", None), ("_NF", self.generator)):
            batches = evaluation.prepared(self.split, generator)
            found[f"CA{end}"] = [evaluation.accuracy(self.base, batches)]
            found[f"PA{end}"] = evaluation.perturbed_accuracies(self.base, error_model, self.seeds, batches)[0]
        return found


class OfficialEvaluation:
    def __init__(self, base: nn.Module, generator: nn.Module, images: Tensor, labels: Tensor, patterns: int):
        self.models = rivals.OfficialModels(base, RATE)
        self.generator = quantization_aware(copy.deepcopy(generator)).eval()
        self.images, self.labels, self.seeds = data.to_float(images), labels, range(SEED, SEED + patterns)

    def __call__(self, number: int) -> dict[str, list[float]]:
        return rivals.official_accuracies(self.generator, self.models, self.images, self.labels, self.seeds)


def evaluations(device: torch.device, images: int = 200, patterns: int = 5, rounds: int = 5) -> list[Comparison]:
    """Clean and perturbed accuracies, with a generator and without, over several error patterns."""
    chance = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (images, 3, 32, 32), generator=chance, dtype=torch.uint8).to(device)
    labels = torch.randint(0, 10, (images,), generator=chance).to(device)

    def side(kind: type) -> Callable[[], Call]:
        def build() -> Call:
            generator = generators.build("conv_l").to(device).eval()
            return kind(_base("vgg11", device), generator, shown, labels, patterns)

        return build

    builders = {"ours": side(OurEvaluation), "official way": side(OfficialEvaluation)}
    name = f"VGG11 + ConvL, {images} images, {patterns} patterns"
    return [Comparison(name, builders, rounds, 60)]


PARTS = {"injection": injection, "training": training, "evaluation": evaluations}
