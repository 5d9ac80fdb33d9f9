"""Accuracy over many error patterns."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from nflib.data import Split, to_float
from nflib.faults import CPU, ErrorModel, Pattern, ahead, changed_bits, perturbed
from nflib.generators import transform
from nflib.quantize import Quantized
from nflib.training import autocast

BATCH = 500


@torch.inference_mode()
def prepared(split: Split, generator: nn.Module | None, batch: int = BATCH) -> list[tuple[Tensor, Tensor]]:
    """Batches (float images, labels), transformed once by `generator` (eval mode) when there is one."""
    batches = []
    for images, labels in zip(split.images.split(batch), split.labels.split(batch)):
        floats = to_float(images)
        if generator is not None:
            with autocast(floats.device):
                floats = transform(generator, floats, labels).float()
        batches.append((floats, labels))
    return batches


@torch.inference_mode()
def outputs(model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Logits (float32 [N, classes]) of `model` on prepared batches."""
    rows = []
    for images, _ in batches:
        with autocast(images.device):
            rows.append(model(images).float())
    return torch.cat(rows)


def accuracy(model: Callable[[Tensor], Tensor], batches: list[tuple[Tensor, Tensor]]) -> float:
    """Share of right answers, in per cent."""
    right = outputs(model, batches).argmax(1) == torch.cat([labels for _, labels in batches])
    return 100 * right.double().mean().item()


@contextlib.contextmanager
def recalibrated(base: Quantized, batches: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """`base` with the batch-norm statistics that it has on prepared batches, as it is now; its own return at the end."""
    norms = [layer for layer in base.model.modules() if isinstance(layer, nn.BatchNorm2d)]
    own = [({name: value.clone() for name, value in norm.named_buffers()}, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches
            norm.train()
        outputs(base, batches)
        base.model.eval()
        yield
    finally:
        base.model.eval()
        for norm, (buffers, momentum) in zip(norms, own):
            norm.load_state_dict(norm.state_dict() | buffers)
            norm.momentum = momentum


def perturbed_accuracies(
    base: Quantized,
    error_model: ErrorModel,
    seeds: Iterable[int],
    batches: list[tuple[Tensor, Tensor]],
    tick: Callable[[], None] = lambda: None,
    mitigate: Callable[[Quantized, Pattern, int], Pattern] | None = None,
    calibration: list[tuple[Tensor, Tensor]] = (),
) -> tuple[list[float], list[float]]:
    """For each pattern: accuracy in per cent, and the share of stored bits that it changed.  `tick` is called after each.

    mitigate: (base model, pattern, seed) to the pattern that is left, as in `nflib.mitigations`.  calibration: prepared
    batches on which the perturbed model gets new batch-norm statistics.
    """
    accuracies, shares = [], []
    device = batches[0][0].device

    def drawn(seed: int) -> tuple[Pattern, float]:
        pattern = error_model.draw(base.sizes, seed, base.bits, CPU if mitigate else device)
        pattern = mitigate(base, pattern, seed) if mitigate else pattern
        return pattern, changed_bits(base, pattern) / base.stored_bits

    for pattern, share in ahead(drawn, seeds, device):
        shares.append(share)
        with perturbed(base, pattern), recalibrated(base, calibration) if calibration else contextlib.nullcontext():
            accuracies.append(accuracy(base, batches))
        tick()
    return accuracies, shares
