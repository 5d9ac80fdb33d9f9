"""Training of generators: by expectation over perturbed models (EOPM), and by distillation of class-wise perturbations."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nflib import generators
from nflib.adapters import BESIDE, Adapted, check_place
from nflib.data import Split
from nflib.faults import TRAINING_PATTERNS, ErrorModel, LayerFaults, Pattern, ahead, by_layer, check_rate, perturbed
from nflib.generators import CONTROLS, UNet, transform
from nflib.names import UserError, check_numbers, choose
from nflib.quantize import Quantized, check_bits, quantization_aware, weighted_layers
from nflib.training import SCHEDULES, autocast, optimise

RELEASE_MOMENTUM = 1 - 0.9**10  # the official code updates the generator's batch-norm statistics N = 10 times a batch


@dataclass(frozen=True)
class GeneratorRecipe:
    """How a generator is trained: Adam (betas 0.5, 0.999) on CE(M0(F(x))) + lambda * mean CE(Mp(F(x))) (Eq. 3).

    error_model, rate: those of the perturbed models.  loss_weight: the paper's lambda.  models_per_step: its N.
    steps: optimiser steps (the official 300 epochs of CIFAR-10 are 58,800).  schedule: "release_steps" multiplies the
    rate by 0.96 every 500 steps.  momentum: of the generator's batch-norm statistics.
    initial_gain: factor on the output layer at the start; below 1, training begins near F(x) = x.
    adversarial_flips: K > 0 trains on one perturbed model per step with the K bits flipped that `adversarial_pattern`
    chooses, and `error_model` and `rate` have no effect on training; 0 trains on random patterns of `error_model`.
    teacher, distillation_steps: before the `steps` of Eq. 3, that many steps on the mean squared distance from the images
    as the teacher, itself trained by its recipe on Eq. 3, transforms them; they need no base model.
    split_batch: each of the N perturbed models sees only its N-th part of the batch (see `eopm_gradient`): a step costs
    as one on a single model, and its gradient is Eq. 3's on average.
    fade_in: share of the steps after which images have their full brightness: for two thirds of it the models
    see the generator's output alone, clip(G(x)), then clip(a x + G(x)) with a rising evenly to 1.  Without the image in
    its way, the output learns sooner to tell the classes apart.  0: the paper's training, at full brightness throughout.
    fade_skips: whether a UNet's skips, which lead the image past its smallest maps, fade in with it.
    mixed_rates: bit-error rates in place of `rate` in training, by turns of the patterns' seeds; empty: `rate` alone.
    place: where its network stands, "" in front of the base model; else it is an adapter (see `adapters`).
    """

    name: str = "conv_l"
    error_model: str = "release_map"
    rate: float = 0.01
    loss_weight: float = 5.0
    models_per_step: int = 10
    steps: int = 58800
    batch: int = 256
    learning_rate: float = 0.001
    schedule: str = "release_steps"
    momentum: float = RELEASE_MOMENTUM
    initial_gain: float = 1.0
    width: float = 1.0
    bits: int = 8
    seed: int = 0
    adversarial_flips: int = 0
    distillation_steps: int = 0
    teacher: "GeneratorRecipe | None" = None
    split_batch: bool = False
    fade_in: float = 0.0
    fade_skips: bool = False
    mixed_rates: tuple[float, ...] = ()
    place: str = ""

    def __post_init__(self):
        object.__setattr__(self, "mixed_rates", tuple(float(check_rate(rate)) for rate in self.mixed_rates))
        check_numbers(
            self, loss_weight=0, models_per_step=1, steps=0, batch=1, learning_rate=0, momentum=0, initial_gain=0, width=0,
            seed=0, adversarial_flips=0, distillation_steps=0, fade_in=0,
        )  # fmt: skip
        if self.fade_in > 1:
            raise UserError(f"fade_in is {self.fade_in}; allowed are numbers from 0 to 1")
        choose("schedule", self.schedule, SCHEDULES)
        check_bits(self.bits)
        if check_place(self.place) and (self.name in CONTROLS or self.teacher or self.adversarial_flips):
            raise UserError("an adapter is a generator's network, trained on EOPM")
        if bool(self.distillation_steps) != bool(self.teacher):
            raise UserError(f"distillation_steps is {self.distillation_steps}; it must be above 0 with a teacher, and 0 without")
        if self.adversarial_flips and self.models_per_step != 1:
            raise UserError(
                f"models_per_step is {self.models_per_step}; with adversarial_flips it must be 1, for there is one worst case"
            )
        if self.split_batch and self.models_per_step > self.batch:
            raise UserError(
                f"models_per_step is {self.models_per_step}; with split_batch at most the batch, {self.batch}"
            )

    def brightness(self, step: int) -> float:
        """The factor on the image at a step of Eq. 3, counted from 0."""
        whole = self.fade_in * self.steps
        return min(1.0, max(0.0, 3 * step / whole - 2)) if whole else 1.0

    @property
    def label(self) -> str:
        """What it is, in the words of the book."""
        place = {"": "", BESIDE: " encoder in parallel"}.get(self.place, f" after {self.place}")
        return generators.label(self.name) + place + (", mixed rates" if self.mixed_rates else "")

    @property
    def training(self) -> str:
        """How it is trained, in the words of the book."""
        if self.adversarial_flips:
            return "adversarial bit flips"
        if self.teacher:
            return "distillation, then EOPM" if self.steps else "distillation"
        return f"{'faded ' if self.fade_in else ''}EOPM"


def set_initial_gain(generator: nn.Module, gain: float) -> None:
    """Scale what the generator puts out at the start: gain of the last batch norm, or the last convolution of a UNet."""
    last = [m for m in generator.modules() if isinstance(m, (nn.BatchNorm2d, nn.Conv2d, nn.ConvTranspose2d))][-1:]
    with torch.no_grad():
        for layer in last:
            for parameter in layer.parameters():
                parameter.mul_(gain)


def set_skip_gain(generator: nn.Module, gain: float) -> None:
    """The factor on the skips of a UNet; nothing happens to other generators."""
    if isinstance(generator, UNet):
        generator.skip_gain.fill_(gain)


def ascent_bits(codes: Tensor, up: Tensor, bits: int) -> Tensor:
    """The most significant bit whose flip raises a code where `up`, lowers it elsewhere: masks (uint8 [n]).

    codes: int8 [n].  up: bool [n].  A code that is the largest already has none; its lowest bit is taken.
    """
    extreme = torch.where(up, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))).to(torch.int8)
    differing = (codes ^ extreme).view(torch.uint8) & (2**bits - 1)
    leftmost = torch.frexp(differing.clamp(min=1).float()).exponent - 1
    return (1 << leftmost).to(torch.uint8)


def adversarial_pattern(base: Quantized, images: Tensor, labels: Tensor, flips: int) -> Pattern:
    """The pattern that flips one bit in each of the `flips` weights of `base` with the largest `|dL/dW|`, over all layers.

    L is the cross-entropy of the clean base model (eval mode) on `images`, in training the batch's transformed images.
    In each of these weights the step up L leads as far as codes go (see `ascent_bits`): the leftmost bit flips that
    differs between the stored code and the code range's end in the direction of the gradient's sign.
    The official code steps by alpha * dL/dW, with an alpha that is published nowhere, and flips nothing where that does
    not reach another code; here exactly `flips` bits change.  Its gradient is of a copy in train mode, and it also hits biases.
    Raises UserError for more flips than weights.
    Source: NeuralFuse appendix I, Table 25; zs_train_input_transform_adversarial_gen_bit.py of the development repository.
    """
    if flips > (whole := sum(base.sizes.values())):
        raise UserError(f"adversarial flips are {flips}; there are only {whole} weights")
    weights = [layer.weight for layer in base.layers.values()]
    try:
        for weight in weights:
            weight.requires_grad_()
        with torch.enable_grad(), autocast(images.device):
            loss = F.cross_entropy(base(images.detach()), labels)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])
    finally:
        for weight in weights:
            weight.requires_grad_(False)
    chosen = gradient.abs().topk(flips).indices.sort().values
    codes = torch.cat(list(base.codes.values()))[chosen]
    toggle = ascent_bits(codes, gradient[chosen] > 0, base.bits).cpu()
    return by_layer(base.sizes, LayerFaults(chosen.cpu(), torch.full_like(toggle, 0xFF), toggle))


def eopm_gradient(
    generator: nn.Module | None,
    bases: Sequence[Quantized],
    images: Tensor,
    labels: Tensor,
    patterns: Callable[[Quantized, int, Tensor], Pattern],
    models_per_step: int,
    loss_weight: float,
    split_batch: bool = False,
    brightness: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Accumulate into the generator's .grad the gradient of Eq. 3, with one generator pass; returns both loss terms.

    generator: None for an adapter, which is part of the base models and gets its gradient there.
    The base models see the transformed images as a leaf; clean and perturbed gradients add up there and go back through
    the generator once.  Only one pattern is applied at a time, and no base model is copied.
    bases: surrogates, averaged.  patterns(base, k, transformed): the k-th pattern; it may depend on the transformed images.
    loss_weight: lambda.
    split_batch: pattern k meets only the k-th of N consecutive parts of the batch, and the perturbed loss is the mean
    over the batch.  Its expectation over patterns is Eq. 3's, and so is its mean over the rotations of the parts; the
    clean model sees the whole batch.  Needs at least N images; patterns still get all transformed images.
    brightness: of the images, see `transform`.
    """
    device = images.device
    with autocast(device):
        transformed = transform(generator, images, labels, brightness) if generator else images
    leaf = transformed.detach().requires_grad_(generator is not None)
    clean_sum, perturbed_sum = torch.zeros((), device=device), torch.zeros((), device=device)

    def backward(base: Quantized, weight: float, rows: slice = slice(None)) -> Tensor:
        with autocast(device):
            loss = F.cross_entropy(base(leaf[rows]), labels[rows])
        (loss * (weight / len(bases))).backward()
        return loss.detach()

    for base in bases:
        clean_sum += backward(base, 1.0)
        for k in range(models_per_step):
            rows, parts = slice(None), models_per_step
            if split_batch:
                rows = slice(len(images) * k // models_per_step, len(images) * (k + 1) // models_per_step)
                parts = len(images) / (rows.stop - rows.start)  # N where N divides the batch
            with perturbed(base, patterns(base, k, leaf)):
                perturbed_sum += backward(base, loss_weight / parts, rows) * (models_per_step / parts)
    if generator:
        transformed.backward(leaf.grad)
    return clean_sum / len(bases), perturbed_sum / (len(bases) * models_per_step)


def distillation_gradient(generator: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Accumulate into the generator's .grad the gradient of the mean squared distance (of pixels in [-1, 1]) between the
    images as `generator` and as `teacher` transform them; returns that distance."""
    with torch.no_grad():
        goal = transform(teacher, images, labels)
    with autocast(images.device):
        transformed = transform(generator, images, labels)
    loss = F.mse_loss(transformed.float(), goal.float())
    loss.backward()
    return loss.detach()


def _train(
    generator: nn.Module,
    train: Split,
    how: str,
    recipe: GeneratorRecipe,
    steps: range,
    schedule: str,
    gradient: Callable[[int, Tensor, Tensor], list[Tensor]],
    **run: object,
) -> tuple[list[list[float]], float]:
    """`training.optimise` with Adam, from the recipe's initial gain, with its momentum of batch norm.

    Returns ([step, *mean losses] of every twentieth of the steps, seconds).
    """
    if steps.start == 0:
        set_initial_gain(generator, recipe.initial_gain)
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = recipe.momentum
    quantization_aware(generator, recipe.bits).to(memory_format=torch.channels_last).train()
    fused, report = train.images.device.type == "cuda" or None, max(1, len(steps) // 20)
    optimizer = torch.optim.Adam(generator.parameters(), recipe.learning_rate, (0.5, 0.999), fused=fused)
    graphs = bool(weighted_layers(generator))  # not for perturbations without a network
    sums, seconds = optimise(generator, optimizer, schedule, train, how, recipe, steps, report, graphs, gradient, **run)
    return [[step, *(torch.tensor(losses) / report).tolist()] for step, *losses in sums], seconds


def distill(
    generator: nn.Module, teacher: nn.Module, train: Split, how: str, recipe: GeneratorRecipe, **run: object
) -> dict:
    """Train `generator` in place for `recipe.distillation_steps`, on a one-cycle schedule, to transform images as `teacher` does.

    run: resume, words and deadline, as in `training.optimise`.
    Returns {"seconds", "distillation_losses" ([step, mean squared distance] of every twentieth of the steps)}, and "steps",
    "model_images" and "losses" as `train_generator`, for no steps of Eq. 3.
    """

    def gradient(step: int, images: Tensor, labels: Tensor) -> list[Tensor]:
        return [distillation_gradient(generator, teacher, images, labels)[None]]

    steps = range(recipe.distillation_steps)
    losses, seconds = _train(generator, train, how, recipe, steps, "one_cycle", gradient, **run)
    return {"seconds": seconds, "steps": 0, "model_images": 0, "losses": [], "distillation_losses": losses}


def train_generator(
    generator: nn.Module,
    bases: Sequence[Quantized],
    train: Split,
    how: str,
    recipe: GeneratorRecipe,
    error_model: ErrorModel,
    distilled: dict | None = None,
    **run: object,
) -> dict:
    """Train `generator` in place on Eq. 3 against the frozen `bases` (one: relaxed access; several: surrogates, averaged).

    distilled: what `distill` returned, where `generator` comes from there; its batches are not used again.
    run: resume, words and deadline, as in `training.optimise`.
    Returns {"seconds" (the distillation's included), "steps", "model_images" (images x perturbed models), "losses" ([step, clean,
    perturbed] means of every twentieth of the steps)}, and "distillation_losses" where there are any.
    """
    count, device, patterns = recipe.models_per_step, train.images.device, None

    def numbered(step: int) -> Iterator[tuple[Quantized, int]]:
        """Base model and seed of every pattern from `step` on, in the order in which they are asked for."""
        for later in range(step, recipe.steps):
            seeds = np.random.default_rng([recipe.seed, later]).integers(TRAINING_PATTERNS, size=(len(bases), count))
            yield from ((base, int(seed)) for base, row in zip(bases, seeds) for seed in row)

    def drawn(of: tuple[Quantized, int]) -> Pattern:
        (base, seed), rates = of, recipe.mixed_rates
        model = dataclasses.replace(error_model, rate=rates[seed % len(rates)]) if rates else error_model
        return model.draw(base.sizes, seed, base.bits, device)

    def gradient(step: int, images: Tensor, labels: Tensor) -> list[Tensor]:
        nonlocal patterns
        patterns = patterns or ahead(drawn, numbered(step), device)

        def pattern(base: Quantized, k: int, transformed: Tensor) -> Pattern:
            if recipe.adversarial_flips:
                return adversarial_pattern(base, transformed, labels, recipe.adversarial_flips)
            return next(patterns)

        brightness = recipe.brightness(step)
        if recipe.fade_skips:
            set_skip_gain(generator, brightness)
        for base in bases if recipe.place else ():
            base.model.brightness = brightness
        terms = (pattern, count, recipe.loss_weight, recipe.split_batch, brightness)
        return [torch.stack(eopm_gradient(None if recipe.place else generator, bases, images, labels, *terms))]

    for base in bases if recipe.place else ():
        base.model = Adapted(base.model, generator, recipe.place)
    first = recipe.distillation_steps if distilled else 0
    steps = range(first, first + recipe.steps)
    losses, seconds = _train(generator, train, how, recipe, steps, recipe.schedule, gradient, **run)
    set_skip_gain(generator, 1.0)
    patterns_an_image = (1 if recipe.split_batch else count) * len(bases)
    return {
        "seconds": seconds + (distilled["seconds"] if distilled else 0.0),
        "steps": recipe.steps,
        "model_images": recipe.steps * min(recipe.batch, len(train.labels)) * patterns_an_image,
        "losses": losses,
        **({"distillation_losses": distilled["distillation_losses"]} if distilled else {}),
    }
