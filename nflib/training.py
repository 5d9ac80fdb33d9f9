"""Training of base models, with quantisation in the loop, and what all training shares: precision, batches, resumption."""

import hashlib
import io
import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from nflib.augment import augment
from nflib.data import Split
from nflib.faults import TRAINING_PATTERNS, BitFlips, Pattern, ahead, check_rate
from nflib.files import write_whole
from nflib.names import UserError, check_numbers, choose
from nflib.quantize import check_bits, plain, quantization_aware, weighted_layers

VARIED = "varied"  # name of base recipes that differ from a named one in a value
CHECKED_STEPS = 50  # between two looks at whether the loss is finite
SCHEDULES = ("constant", "one_cycle", "warmup_stable_decay", "release_steps")


@dataclass(frozen=True)
class BaseRecipe:
    """How a base model is trained: SGD with momentum 0.9, cross-entropy, weights fake-quantised to `bits`.

    schedule: "constant", or "one_cycle" up to `learning_rate`.  Source of recipe "release": README and zs_train.py of
    the official code (learning rate 0.001, batch 256, 300 epochs, no weight decay).
    weight_perturbation: gamma of adversarial weight perturbation (see `adversarial_weights`); 0 trains plainly.
    bit_errors: bit-error rate of random bit error training; 0 trains without.  Each step takes the mean gradient of the
    cross-entropy with the codes as stored and with a fresh pattern of `BitFlips` at that rate (see `read_back`).  Source:
    RandBET (Stutz et al., MLSys 2021), there as a sum, only once the loss has fallen, and with group norm.
    clipping: after every step the float weights of weighted layers are cut to [-clipping, clipping]; 0 does not.  Source:
    weight clipping (Stutz et al., MLSys 2021), which lets training spread what it knows over more weights.
    start: fine-tuning, from the weights (decoded from their codes) of the base model that this recipe trains, in eval mode
    throughout: batch norm keeps and uses the start's running statistics.  None: from new weights.
    tuned: with a start, the weighted layers that are trained, numbered from 1 in the order of computing; empty: all.  With a
    layer go its bias and the scales and shifts of batch norms between it and the next; all else stays as it was.
    """

    name: str = "release"
    epochs: int = 300
    batch: int = 256
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    schedule: str = "constant"
    bits: int = 8
    seed: int = 0
    weight_perturbation: float = 0.0
    clipping: float = 0.0
    bit_errors: float = 0.0
    start: "BaseRecipe | None" = None
    tuned: tuple[int, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "tuned", tuple(self.tuned))
        check_numbers(self, epochs=0, batch=1, learning_rate=0, weight_decay=0, weight_perturbation=0, clipping=0)
        check_numbers(self, 1e5, seed=0)
        choose("schedule", self.schedule, SCHEDULES)
        check_bits(self.bits)
        check_rate(self.bit_errors)
        if self.bit_errors and self.weight_perturbation:
            raise UserError("a base recipe has bit_errors or weight_perturbation, not both")
        if list(self.tuned) != sorted({number for number in self.tuned if type(number) is int and number > 0}):
            raise UserError(f"tuned is {self.tuned}; allowed are numbers of layers from 1, in rising order")
        if self.tuned and not self.start:
            raise UserError(f"tuned is {self.tuned}, but there is no start, a trained model, to tune")

    @property
    def tuned_words(self) -> str:
        """Which layers fine-tuning changes: "layers 1 to 4", "layers 1, 9", "all layers"; "none" without a start."""
        if not self.tuned:
            return "all layers" if self.start else "none"
        first, last, count = self.tuned[0], self.tuned[-1], len(self.tuned)
        numbers = f"{first} to {last}" if 2 < count == last - first + 1 else ", ".join(map(str, self.tuned))
        return f"layer{'s' * (count > 1)} {numbers}"

    @property
    def words(self) -> str:
        """What sets the recipe apart: its name, or, of a variation without a name, its values."""
        if self.name != VARIED:
            return self.name
        clipped = [f"clipped at {self.clipping:g}"] if self.clipping else []
        hit = [f"bit errors {100 * self.bit_errors:g} %"] if self.bit_errors else []
        rate = [] if self.schedule == "one_cycle" else [f"{self.schedule} rate"]
        start = [f"{self.start.words}, {self.tuned_words} fine-tuned"] if self.start else []
        return ", ".join([*start, f"decay {self.weight_decay:g}", *clipped, *hit, *rate, f"{self.epochs} epochs"])


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


def autocast(device: torch.device) -> torch.autocast:
    """Context in which networks compute in bf16 where `precision` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == "bf16")


@contextmanager
def captured(model: nn.Module, train: Split, batch: int, how: str) -> Iterator[None]:
    """On a GPU, run `model` on the batches of training as CUDA graphs, forward and backward: launching its many small kernels
    one by one takes the host longer than the GPU takes to compute them.  Elsewhere nothing changes."""
    if train.images.device.type != "cuda":
        yield
        return
    images = next(batches_of(train, batch, how, 0, 0))[0]
    mixed = torch.autocast("cuda", torch.bfloat16, enabled=precision(images.device) == "bf16", cache_enabled=False)
    kept = [buffer.clone() for buffer in model.buffers()]
    with mixed:
        torch.cuda.make_graphed_callables(model, (images.clone(memory_format=torch.preserve_format),))
    for buffer, before in zip(model.buffers(), kept):  # what passed through the model here is no part of its training
        buffer.copy_(before)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")  # that of the capture: no harm
            yield
    finally:
        del model.forward  # the one that replays; the class's own is left


def schedule_of(optimizer: torch.optim.Optimizer, name: str, peak: float, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of a name in SCHEDULES over `steps` steps: constant at `peak`; up to it and down again; up to it in
    3 % of the steps, constant, and down to 0 in the last 30 %; or times 0.96 every 500 steps, as the official code trains
    generators.  Raises UserError for an unknown name."""
    choose("schedule", name, SCHEDULES)
    if name == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=max(steps, 4), cycle_momentum=False)
    if name == "release_steps":
        return torch.optim.lr_scheduler.StepLR(optimizer, 500, 0.96)
    if name == "warmup_stable_decay":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: max(0.0, min(1, (step + 1) / (0.03 * steps), (steps - step) / (0.3 * steps)))
        )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def batches_of(split: Split, batch: int, how: str, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches; order and augmentation depend on (seed, epoch) only, so training can resume."""
    chance = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(split.labels), generator=chance)
    batch = min(batch, len(order))
    for start in range(0, len(order) - batch + 1, batch):
        rows = order[start : start + batch].to(split.images.device, non_blocking=True)
        yield augment(split.images[rows], how, chance), split.labels[rows]


class OutOfTime(Exception):
    """The time allowed is over; the state of training is stored."""


class Diverged(Exception):
    """A loss is not finite, so training cannot go on; the message says where."""


class Resumable:
    """State of a training run kept in a file, written whole or not at all, and taken up again when it is there.

    The file is a sha256 of its name and content, and what `torch.save` wrote of the parts' states and plain values.
    deadline: `time.monotonic()` after which `save` stores the state and raises OutOfTime.  seconds: between two writes.
    """

    def __init__(self, path: Path | None, deadline: float | None = None, seconds: float = 120, **parts):
        self.path, self.deadline, self.seconds, self.parts = path, deadline, seconds, parts
        self.saved = time.monotonic()

    def load(self) -> dict:
        """The plain values stored beside the parts' states; {} when there is nothing to take up.

        Raises UserError for a file that cannot be read or is not whole; it is left where it is.
        """
        if self.path is None or not self.path.exists():
            return {}
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"state of training {self.path} cannot be read: {error.strerror}") from None
        if self._checksum(content[32:]) != content[:32]:
            raise UserError(f"state of training {self.path} is damaged; move it away to begin that training again")
        state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["values"]

    def save(self, values: Callable[[], dict]) -> None:
        """Store the state when it is time to; `values` is asked for the plain values only then."""
        now = time.monotonic()
        over = self.deadline is not None and now > self.deadline
        if self.path is not None and (over or now - self.saved > self.seconds):
            packed = io.BytesIO()
            torch.save({**{name: part.state_dict() for name, part in self.parts.items()}, "values": values()}, packed)
            write_whole(self.path, self._checksum(packed.getvalue()) + packed.getvalue())
            self.saved = time.monotonic()
        if over:
            raise OutOfTime

    def _checksum(self, content: bytes) -> bytes:
        return hashlib.sha256(self.path.name.encode() + content).digest()

    def done(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def check_finite(losses: Tensor, step: int, state: Resumable) -> None:
    """Raise Diverged, and forget the state of training, unless the losses at a step are finite."""
    if not losses.isfinite().all():
        state.done()
        raise Diverged(f"the loss is {', '.join(f'{value:g}' for value in losses.tolist())} at step {step}")


def optimise(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: str,
    train: Split,
    how: str,
    recipe: object,
    steps: range,
    report: int,
    graphs: bool,
    gradient: Callable[[int, Tensor, Tensor], list[Tensor]],
    resume: Path | None = None,
    words: str = "",
    deadline: float | None = None,
) -> tuple[list[list[float]], float]:
    """Steps of `optimizer` along `gradient` on a quantisation-aware `model`; it ends plain, in eval mode, with the float
    weights behind the codes.

    recipe: a BaseRecipe or an `eopm.GeneratorRecipe`.  steps: which of its batches, counted from its start, are used.
    report: steps between two entries of the losses.  graphs: see `captured`.  gradient(step, images, labels): accumulates
    into .grad and returns losses [K], one or more, which are added up; step counts from 0.  resume: file for the state
    between steps, which stays.  words: text of the progress bar.  deadline: see `Resumable`.
    Returns (`[step, *sums]` of every `report` steps, seconds).
    """
    scheduler = schedule_of(optimizer, schedule, recipe.learning_rate, len(steps))
    state = Resumable(resume, deadline, model=model, optimizer=optimizer, scheduler=scheduler)
    stored = state.load()
    done, losses, window = stored.get("step", 0), stored.get("losses", []), stored.get("window")
    window = 0.0 if window is None else torch.tensor(window, device=train.images.device)
    began = time.perf_counter() - stored.get("seconds", 0.0)
    epoch, skip = divmod(steps.start + done, max(1, len(train.labels) // recipe.batch))
    epochs = (batches_of(train, recipe.batch, how, recipe.seed, number) for number in itertools.count(epoch))
    batches = itertools.islice(itertools.chain.from_iterable(epochs), skip, None)
    with (
        progress_bar(len(steps), words, done) as progress,
        captured(model, train, recipe.batch, how) if graphs else nullcontext(),
    ):
        for done, (images, labels) in zip(range(done + 1, len(steps) + 1), batches):
            optimizer.zero_grad()
            for loss in gradient(done - 1, images, labels):
                window = window + loss
            optimizer.step()
            scheduler.step()
            progress.update()
            if done % CHECKED_STEPS == 0 or done % report == 0:
                check_finite(window, done, state)
            if done % report == 0:
                losses.append([done, *window.tolist()])
                window = torch.zeros_like(window)
            seconds = time.perf_counter() - began
            state.save(lambda: {"step": done, "losses": losses, "window": window.tolist(), "seconds": seconds})
    plain(model).eval()
    return losses, time.perf_counter() - began


@contextmanager
def statistics_untouched(model: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by the batch, as in training, and leave its running statistics as they are."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


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
    layers = weighted_layers(model).values()
    weights = [weight for layer in layers if (weight := layer.parametrizations.weight.original).requires_grad]
    with statistics_untouched(model), autocast(images.device):
        loss = F.cross_entropy(model(images), labels)
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


@contextmanager
def read_back(model: nn.Module, pattern: Pattern | None) -> Iterator[None]:
    """Let a quantisation-aware `model` compute with the codes that are read back under `pattern`, batch norm's running statistics
    untouched.  None: as it trains without errors.

    To normalise by the running statistics, as in use, looks more apt, but was tried and trains far worse.
    """
    if pattern is None:
        yield
        return
    layers = weighted_layers(model)
    try:
        for name, layer in layers.items():
            layer.parametrizations.weight[0].faults = pattern[name]
        with statistics_untouched(model):
            yield
    finally:
        for layer in layers.values():
            layer.parametrizations.weight[0].faults = None


def training_pattern(sizes: Mapping[str, int], recipe: BaseRecipe, step: int, device: torch.device) -> Pattern:
    """The pattern that a step of random bit error training reads the codes back with; it depends on (seed, step) only."""
    seed = int(np.random.default_rng([recipe.seed, step]).integers(TRAINING_PATTERNS))
    return BitFlips(recipe.bit_errors).draw(sizes, seed, recipe.bits, device)


@torch.no_grad()
def clip_weights(model: nn.Module, limit: float) -> None:
    """Cut the float weights of a quantisation-aware `model`'s weighted layers that are trained to [-limit, limit], in place.
    Biases and batch norm, which no error hits, stay."""
    for layer in weighted_layers(model).values():
        if (weight := layer.parametrizations.weight.original).requires_grad:
            weight.clamp_(-limit, limit)


def freeze_all_but(model: nn.Module, tuned: tuple[int, ...]) -> None:
    """Leave gradients to the weighted layers of some numbers, from 1, and to batch norms between each and the next one."""
    layers, number = list(weighted_layers(model).values()), 0
    for module in model.modules():
        number += module in layers
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(number in tuned)


def train_base(model: nn.Module, train: Split, how: str, recipe: BaseRecipe, **run: object) -> dict:
    """Train `model` in place on `train` (on the model's device); it ends plain, with the float weights behind the codes.

    model: the trained one where the recipe has a start.  how: augmentation, as in `augment.augment`.  run: resume, words and
    deadline, as in `optimise`.
    Returns {"seconds", "epochs", "losses" (mean training loss of each epoch, at the moved weights if they are moved, over codes
    with and without errors if there are any)}.
    """
    device, patterns = next(model.parameters()).device, None
    sizes = {name: layer.weight.numel() for name, layer in weighted_layers(model).items()}
    if recipe.tuned:
        freeze_all_but(model, recipe.tuned)
    quantization_aware(model, recipe.bits).to(memory_format=torch.channels_last).train(recipe.start is None)
    fused = device.type == "cuda" or None
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay, fused=fused)
    if recipe.clipping:
        optimizer.register_step_post_hook(lambda *_: clip_weights(model, recipe.clipping))

    def drawn(step: int) -> Pattern:
        return training_pattern(sizes, recipe, step, device)

    def gradient(step: int, images: Tensor, labels: Tensor) -> list[Tensor]:
        nonlocal patterns
        patterns = patterns or ahead(drawn, itertools.count(step), device)
        readings, losses = [None, next(patterns)] if recipe.bit_errors else [None], []
        with adversarial_weights(model, images, labels, recipe.weight_perturbation):
            for pattern in readings:
                with read_back(model, pattern), autocast(device):
                    loss = F.cross_entropy(model(images), labels) / len(readings)
                loss.backward()
                losses.append(loss.detach()[None])
        return losses

    epoch = max(1, len(train.labels) // recipe.batch)
    steps = range(recipe.epochs * epoch)
    graphs = not recipe.weight_perturbation and not recipe.bit_errors  # which switch batch norm's statistics off and on
    sums, seconds = optimise(model, optimizer, recipe.schedule, train, how, recipe, steps, epoch, graphs, gradient, **run)
    return {"seconds": seconds, "epochs": recipe.epochs, "losses": [loss / epoch for _, loss in sums]}
