"""Training: base models with quantisation in the loop, generators by expectation over perturbed models (EOPM)."""

import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from nflib.data import Split, augment
from nflib.faults import ErrorModel, LayerFaults, Pattern, perturbed
from nflib.generators import transform
from nflib.names import UserError
from nflib.quantize import Quantized, plain, quantization_aware, weighted_layers

VARIED = "varied"  # name of base recipes that differ from a named one in a value
SCHEDULES = ("constant", "one_cycle", "release_steps")
TRAINING_PATTERNS = 30001  # seeds 0 to 30000, as in the official code; evaluation starts at 50000
RELEASE_MOMENTUM = 1 - 0.9**10  # the official code updates the generator's batch-norm statistics N = 10 times a batch


@dataclass(frozen=True)
class BaseRecipe:
    """How a base model is trained: SGD with momentum 0.9, cross-entropy, weights fake-quantised to `bits`.

    schedule: "constant", or "one_cycle" up to `learning_rate`.  Source of recipe "release": README and zs_train.py of
    the official code (learning rate 0.001, batch 256, 300 epochs, no weight decay).
    weight_perturbation: gamma of adversarial weight perturbation (see `adversarial_weights`); 0 trains plainly.
    clipping: after every step the float weights of weighted layers are cut to [-clipping, clipping]; 0 does not.  Source:
    weight clipping (Stutz et al., MLSys 2021), which lets training spread what it knows over more weights.
    """

    name: str = "release"
    epochs: int = 300
    batch: int = 256
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    schedule: str = "constant"
    bits: int = 8
    seed: int = 0
    weight_perturbation: float = field(default=0.0, metadata={"since": 2})
    clipping: float = field(default=0.0, metadata={"since": 4})

    def __post_init__(self):
        if not 0 <= self.weight_perturbation < float("inf"):
            raise UserError(f"weight_perturbation is {self.weight_perturbation}; allowed are numbers from 0, such as 0.01")
        if not 0 <= self.clipping < float("inf"):
            raise UserError(f"clipping is {self.clipping}; allowed are numbers from 0 (none), such as 0.1")

    @property
    def words(self) -> str:
        """What sets the recipe apart: its name, or, of a variation without a name, its values."""
        if self.name != VARIED:
            return self.name
        clipped = [f"clipped at {self.clipping:g}"] if self.clipping else []
        rate = [] if self.schedule == "one_cycle" else [f"{self.schedule} rate"]
        return ", ".join([f"decay {self.weight_decay:g}", *clipped, *rate, f"{self.epochs} epochs"])


@dataclass(frozen=True)
class GeneratorRecipe:
    """How a generator is trained: Adam (betas 0.5, 0.999) on CE(M0(F(x))) + lambda * mean CE(Mp(F(x))) (Eq. 3).

    law, rate: error model of the perturbed models.  loss_weight: the paper's lambda.  models_per_step: its N.
    steps: optimiser steps (the official 300 epochs of CIFAR-10 are 58,800).  schedule: "release_steps" multiplies the
    rate by 0.96 every 500 steps.  momentum: of the generator's batch-norm statistics.
    initial_gain: factor on the output layer at the start; below 1, training begins near F(x) = x.
    adversarial_flips: K > 0 trains on one perturbed model per step with the K bits flipped that `adversarial_pattern`
    chooses, and `law` and `rate` have no effect on training; 0 trains on random patterns of `law`.
    teacher, imitation_steps: before the `steps` of Eq. 3, that many steps on the mean squared distance from the images
    as the teacher, itself trained by its recipe on Eq. 3, transforms them; they need no base model.
    """

    name: str = "conv_l"
    law: str = "release_map"
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
    adversarial_flips: int = field(default=0, metadata={"since": 2})
    imitation_steps: int = field(default=0, metadata={"since": 3})
    teacher: "GeneratorRecipe | None" = field(default=None, metadata={"since": 3})

    def __post_init__(self):
        if self.imitation_steps < 0 or bool(self.imitation_steps) != bool(self.teacher):
            raise UserError(f"imitation_steps is {self.imitation_steps}; it must be above 0 with a teacher, and 0 without")
        if self.adversarial_flips < 0:
            raise UserError(f"adversarial_flips is {self.adversarial_flips}; allowed are whole numbers from 0")
        if self.adversarial_flips and self.models_per_step != 1:
            raise UserError(
                f"models_per_step is {self.models_per_step}; with adversarial_flips it must be 1, for there is one worst case"
            )


FORCED_PRECISION: ContextVar[str | None] = ContextVar("precision", default=None)


def precision(device: torch.device) -> str:
    """Arithmetic that the device does fastest at no cost in accuracy: "bf16" (autocast) or "fp32", unless one is forced."""
    if forced := FORCED_PRECISION.get():
        return forced
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def progress_bar(total: int, words: str, initial: int = 0, unit: str = "step") -> tqdm:
    """A bar with the time left on stderr, gone when done; in a log file a line now and then (NFLIB_TERMINAL: always live)."""
    live = sys.stderr.isatty() or bool(os.environ.get("NFLIB_TERMINAL"))
    return tqdm(
        total=total, initial=initial, desc=words, unit=unit, leave=False, mininterval=0.3 if live else 20, delay=0 if live else 20
    )


def autocast(device: torch.device):
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == "bf16")


def _schedule(optimizer: torch.optim.Optimizer, name: str, peak: float, steps: int):
    if name == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=max(steps, 4), cycle_momentum=False)
    if name == "release_steps":
        return torch.optim.lr_scheduler.StepLR(optimizer, 500, 0.96)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def _batches(split: Split, batch: int, how: str, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches; order and augmentation depend on (seed, epoch) only, so training can resume."""
    chance = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(split.labels), generator=chance)
    batch = min(batch, len(order))
    for start in range(0, len(order) - batch + 1, batch):
        rows = order[start : start + batch].to(split.images.device)
        yield augment(split.images[rows], how, chance), split.labels[rows]


class OutOfTime(Exception):
    """The time allowed is over; the state of training is stored."""


class Resumable:
    """State of a training run kept in a file, written whole or not at all, and taken up again when it is there.

    deadline: `time.monotonic()` after which `save` stores the state and raises OutOfTime.  seconds: between two writes.
    """

    def __init__(self, path: Path | None, deadline: float | None = None, seconds: float = 120, **parts):
        self.path, self.deadline, self.seconds, self.parts = path, deadline, seconds, parts
        self.saved = time.monotonic()

    def load(self) -> dict:
        """The plain values stored beside the parts' states; {} when there is nothing to take up."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            if zipfile.ZipFile(self.path).testzip() is not None:
                raise ValueError("checksum")
            state = torch.load(self.path, weights_only=True)
            parts, values = {name: state[name] for name in self.parts}, state["values"]
        except Exception:  # a damaged file costs its progress, never the run
            self.path.unlink()
            return {}
        for name, part in self.parts.items():
            part.load_state_dict(parts[name])
        return values

    def save(self, values: Callable[[], dict]) -> None:
        """Store the state when it is time to; `values` is asked for the plain values only then."""
        now = time.monotonic()
        over = self.deadline is not None and now > self.deadline
        if self.path is not None and (over or now - self.saved > self.seconds):
            self._write(values())
        if over:
            raise OutOfTime

    def _write(self, values: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self.parts.items()}
        part_file = self.path.with_suffix(".part")
        torch.save({**state, "values": values}, part_file)
        os.replace(part_file, self.path)
        self.saved = time.monotonic()

    def done(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@contextmanager
def adversarial_weights(model: nn.Module, images: Tensor, labels: Tensor, gamma: float) -> Iterator[None]:
    """Move the float weights of a quantisation-aware `model` where the batch's loss rises; put them back exactly on leaving.

    Each weighted layer moves by gamma * ||w|| / ||g|| * g, with g the gradient of the cross-entropy at its own weights w
    (one step up; a layer without gradient stays).  Batch-norm statistics are not updated on entering: as in the authors'
    code, the pass at the moved weights updates them.  gamma 0 does nothing.
    Source: adversarial weight perturbation (Wu et al., NeurIPS 2020), here on images that are not adversarial themselves.
    """
    if not gamma:
        yield
        return
    weights = [layer.parametrizations.weight.original for layer in weighted_layers(model).values()]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    try:
        for norm in norms:
            norm.track_running_stats = False
        with autocast(images.device):
            loss = F.cross_entropy(model(images), labels)
    finally:
        for norm in norms:
            norm.track_running_stats = True
    gradients = torch.autograd.grad(loss, weights)
    before = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients):
                direction = gradient / gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
                weight.add_(direction * (gamma * weight.norm()))
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before):
                weight.copy_(old)


@torch.no_grad()
def clip_weights(model: nn.Module, limit: float) -> None:
    """Cut the float weights of a quantisation-aware `model`'s weighted layers to [-limit, limit], in place; 0 does nothing.
    Biases and batch norm, which no error hits, stay."""
    for layer in weighted_layers(model).values() if limit else ():
        layer.parametrizations.weight.original.clamp_(-limit, limit)


def train_base(
    model: nn.Module,
    train: Split,
    how: str,
    recipe: BaseRecipe,
    resume: Path | None = None,
    words: str = "",
    deadline: float | None = None,
) -> dict:
    """Train `model` in place on `train` (on the model's device); it ends plain, with the float weights behind the codes.

    how: augmentation, as in `data.augment`.  resume: file for the state between epochs.  words: text of the progress bar.
    Returns {"seconds", "epochs", "losses" (mean training loss of each epoch, at the moved weights if they are moved)}.
    """
    device = next(model.parameters()).device
    quantization_aware(model, recipe.bits).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay)
    steps = max(1, len(train.labels) // recipe.batch)
    scheduler = _schedule(optimizer, recipe.schedule, recipe.learning_rate, recipe.epochs * steps)
    state = Resumable(resume, deadline, model=model, optimizer=optimizer, scheduler=scheduler)
    stored = state.load()
    losses, seconds = stored.get("losses", []), stored.get("seconds", 0.0)
    with progress_bar(recipe.epochs * steps, words, len(losses) * steps) as progress:
        for epoch in range(len(losses), recipe.epochs):
            began, total = time.perf_counter(), torch.zeros((), device=device)
            for images, labels in _batches(train, recipe.batch, how, recipe.seed, epoch):
                with adversarial_weights(model, images, labels, recipe.weight_perturbation):
                    with autocast(device):
                        loss = F.cross_entropy(model(images), labels)
                    optimizer.zero_grad()
                    loss.backward()
                optimizer.step()
                clip_weights(model, recipe.clipping)
                scheduler.step()
                total += loss.detach()
                progress.update()
            losses.append(float(total) / steps)
            seconds += time.perf_counter() - began
            state.save(lambda: {"losses": losses, "seconds": seconds})
    plain(model).eval()
    state.done()
    return {"seconds": seconds, "epochs": recipe.epochs, "losses": losses}


def set_initial_gain(generator: nn.Module, gain: float) -> None:
    """Scale what the generator puts out at the start: gain of the last batch norm, or the last convolution of a UNet."""
    last = [m for m in generator.modules() if isinstance(m, (nn.BatchNorm2d, nn.Conv2d, nn.ConvTranspose2d))][-1:]
    with torch.no_grad():
        for layer in last:
            for parameter in layer.parameters():
                parameter.mul_(gain)


def ascent_bits(codes: Tensor, up: Tensor, bits: int) -> Tensor:
    """The most significant bit whose flip raises a code where `up`, lowers it elsewhere: masks (uint8 [n]).

    codes: int8 [n].  up: bool [n].  A code that is the largest already has none; its lowest bit is taken.
    """
    extreme = torch.where(up, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))).to(torch.int8)
    differing = (codes ^ extreme).view(torch.uint8) & (2**bits - 1)
    leftmost = torch.frexp(differing.clamp(min=1).float()).exponent - 1
    return (1 << leftmost).to(torch.uint8)


def adversarial_pattern(base: Quantized, images: Tensor, labels: Tensor, flips: int) -> Pattern:
    """The pattern that flips one bit in each of the `flips` weights of `base` with the largest |dL/dW|, over all layers.

    L is the cross-entropy of the clean base model (eval mode) on `images`, in training the batch's transformed images.
    In each of these weights the step up L leads as far as codes go (see `ascent_bits`): the leftmost bit flips that
    differs between the stored code and the code range's end in the direction of the gradient's sign.
    The official code steps by alpha * dL/dW, with an alpha that is published nowhere, and flips nothing where that does
    not reach another code; here exactly `flips` bits change.  Its gradient is of a copy in train mode, and it also hits biases.
    Raises UserError for a number of flips below 0 or above the number of weights.
    Source: NeuralFuse appendix I, Table 25; zs_train_input_transform_adversarial_gen_bit.py of the development repository.
    """
    ends = np.cumsum([0, *base.sizes.values()])
    if not 0 <= flips <= ends[-1]:
        raise UserError(f"adversarial flips are {flips}; allowed are 0 to {ends[-1]}, the number of weights")
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
    index, toggle = chosen.cpu(), ascent_bits(codes, gradient[chosen] > 0, base.bits).cpu()
    cuts = np.searchsorted(index.numpy(), ends)
    return {
        name: LayerFaults(index[a:b] - int(start), torch.full_like(toggle[a:b], 255), toggle[a:b])
        for name, start, a, b in zip(base.sizes, ends, cuts, cuts[1:])
    }


def eopm_gradient(
    generator: nn.Module,
    bases: Sequence[Quantized],
    images: Tensor,
    labels: Tensor,
    patterns: Callable[[Quantized, int, Tensor], Pattern],
    models_per_step: int,
    loss_weight: float,
) -> tuple[Tensor, Tensor]:
    """Accumulate into the generator's .grad the gradient of Eq. 3, with one generator pass; returns both loss terms.

    The base models see the transformed images as a leaf; clean and perturbed gradients add up there and go back through
    the generator once.  Only one pattern is applied at a time, and no base model is copied.
    bases: surrogates, averaged.  patterns(base, k, transformed): the k-th pattern; it may depend on the transformed images.
    loss_weight: lambda.
    """
    device = images.device
    with autocast(device):
        transformed = transform(generator, images, labels)
    leaf = transformed.detach().requires_grad_()
    clean_sum, perturbed_sum = torch.zeros((), device=device), torch.zeros((), device=device)

    def backward(base: Quantized, weight: float) -> Tensor:
        with autocast(device):
            loss = F.cross_entropy(base(leaf), labels)
        (loss * (weight / len(bases))).backward()
        return loss.detach()

    for base in bases:
        clean_sum += backward(base, 1.0)
        for k in range(models_per_step):
            with perturbed(base, patterns(base, k, leaf)):
                perturbed_sum += backward(base, loss_weight / models_per_step)
    transformed.backward(leaf.grad)
    return clean_sum / len(bases), perturbed_sum / (len(bases) * models_per_step)


def imitation_gradient(generator: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Accumulate into the generator's .grad the gradient of the mean squared distance (of pixels in [-1, 1]) between the
    images as `generator` and as `teacher` transform them; returns that distance."""
    with torch.no_grad():
        goal = transform(teacher, images, labels)
    with autocast(images.device):
        transformed = transform(generator, images, labels)
    loss = F.mse_loss(transformed.float(), goal.float())
    loss.backward()
    return loss.detach()


def train_generator(
    generator: nn.Module,
    bases: Sequence[Quantized],
    train: Split,
    how: str,
    recipe: GeneratorRecipe,
    error_model: ErrorModel,
    resume: Path | None = None,
    words: str = "",
    deadline: float | None = None,
    teacher: nn.Module | None = None,
    imitated: dict | None = None,
) -> dict:
    """Train `generator` in place against the frozen `bases` (one: relaxed access; several: surrogates, averaged).

    teacher: what is imitated in the first `recipe.imitation_steps` steps, which follow a one-cycle schedule of their own.
    imitated: what this function returned for the same recipe with 0 steps, where `generator` comes from there; only Eq. 3
    is left then, and the end is the same.
    Returns {"seconds", "steps", "model_images" (images x perturbed models), "losses" ([step, clean, perturbed] means of
    every twentieth of the steps)}, and with a teacher "imitation_losses" ([step, mean squared distance], likewise).
    """
    device = next(generator.parameters()).device
    before = imitated or {"imitation_losses": [], "seconds": 0.0}
    if not imitated:
        set_initial_gain(generator, recipe.initial_gain)
    for layer in generator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = recipe.momentum
    quantization_aware(generator, recipe.bits).to(memory_format=torch.channels_last).train()

    def phase(schedule: str, steps: int):
        optimizer = torch.optim.Adam(generator.parameters(), recipe.learning_rate, (0.5, 0.999))
        return steps, optimizer, _schedule(optimizer, schedule, recipe.learning_rate, steps)

    first, main = phase("one_cycle", recipe.imitation_steps), phase(recipe.schedule, recipe.steps)
    parts = {"optimizer": main[1], "scheduler": main[2], "first_optimizer": first[1], "first_scheduler": first[2]}
    state = Resumable(resume, deadline, model=generator, **parts)
    stored = state.load()
    done, losses = stored.get("step", recipe.imitation_steps if imitated else 0), stored.get("losses", [])
    seconds, imitation_losses = (stored.get(name, before[name]) for name in ("seconds", "imitation_losses"))
    total = recipe.imitation_steps + recipe.steps
    per_epoch = max(1, len(train.labels) // recipe.batch)
    window = torch.tensor(stored.get("window", [0.0, 0.0]), device=device)
    began = time.perf_counter() - seconds
    with progress_bar(total, words, done) as progress:
        while done < total:
            epoch, skip = divmod(done, per_epoch)
            for number, (images, labels) in enumerate(_batches(train, recipe.batch, how, recipe.seed, epoch)):
                if number < skip or done == total:
                    continue
                imitating = done < recipe.imitation_steps
                step = done if imitating else done - recipe.imitation_steps
                steps, optimizer, scheduler = first if imitating else main
                optimizer.zero_grad()
                if imitating:
                    window[0] += imitation_gradient(generator, teacher, images, labels)
                else:
                    count = recipe.models_per_step
                    seeds = np.random.default_rng([recipe.seed, step]).integers(TRAINING_PATTERNS, size=(len(bases), count))
                    numbers = {id(base): row for base, row in zip(bases, seeds)}

                    def pattern(base: Quantized, k: int, transformed: Tensor) -> Pattern:
                        if recipe.adversarial_flips:
                            return adversarial_pattern(base, transformed, labels, recipe.adversarial_flips)
                        return error_model.draw(base.sizes, int(numbers[id(base)][k]), base.bits)

                    window += torch.stack(
                        eopm_gradient(generator, bases, images, labels, pattern, count, recipe.loss_weight)
                    )
                optimizer.step()
                scheduler.step()
                done, step = done + 1, step + 1
                progress.update()
                report = max(1, steps // 20)
                if step % report == 0:
                    means = (window / report).tolist()
                    imitation_losses.append([step, means[0]]) if imitating else losses.append([step, *means])
                if step % report == 0 or step == steps:
                    window.zero_()
                state.save(
                    lambda: {
                        "step": done,
                        "losses": losses,
                        "imitation_losses": imitation_losses,
                        "window": window.tolist(),
                        "seconds": time.perf_counter() - began,
                    }
                )
    plain(generator).eval()
    state.done()
    model_images = recipe.steps * min(recipe.batch, len(train.labels)) * recipe.models_per_step * len(bases)
    return {
        "seconds": time.perf_counter() - began,
        "steps": recipe.steps,
        "model_images": model_images,
        "losses": losses,
        **({"imitation_losses": imitation_losses} if recipe.teacher else {}),
    }
