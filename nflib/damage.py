"""What bit errors do inside a base model, layer by layer, beside what they do to its accuracy."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from nflib import evaluation
from nflib.faults import ErrorModel, LayerFaults, perturbed
from nflib.mitigations import cut
from nflib.quantize import Quantized

CUTS = (3.0, 2.0, 1.5)  # root mean squares at which trained weights are cut, to change their range and nothing else


@contextmanager
def _watched(modules: Iterable[nn.Module], look: Callable[[nn.Module, Tensor, Tensor], None]) -> Iterator[None]:
    """Call look(module, input, output) whenever one of `modules` has computed."""
    with ExitStack() as stack:
        for module in modules:
            hook = module.register_forward_hook(lambda module, given, output: look(module, given[0], output))
            stack.callback(hook.remove)
        yield


def followers(model: nn.Module, images: Tensor) -> dict[nn.Module, nn.Module]:
    """For each module without children the one (the first to run) that takes its output, as it is, as its input."""
    seen, leaves = [], [module for module in model.modules() if not list(module.children())]
    with _watched(leaves, lambda *what: seen.append(what)):
        model(images)
    pairs = [(one, other) for one, _, output in seen for other, given, _ in seen if given is output and other is not one]
    return dict(reversed(pairs))


class _Layer:
    """A weighted layer and the batch norm that takes its output (or None); sums over images."""

    def __init__(self, base: Quantized, name: str, after: dict[nn.Module, nn.Module]):
        self.base, self.name, self.module = base, name, base.layers[name]
        follower = after.get(self.module)
        self.norm = follower if isinstance(follower, nn.BatchNorm2d) else None
        self.hit = None  # the module's output for a batch under its own errors
        self.total, self.squares, self.count = 0.0, 0.0, 0
        self.noise: list[Tensor] = []  # of each pattern: sum of (f' - f)^2
        self.weight_noise: list[Tensor] = []

    def begin(self, faults: LayerFaults | None) -> None:
        """Look at another pattern."""
        self.pattern = {self.name: faults} if faults else {}
        before = self.module.weight.double()
        with perturbed(self.base, self.pattern):
            change = (self.module.weight.double() - before).square().sum()
        self.weight_noise.append(change / before.square().sum().clamp(min=1e-300))
        self.noise.append(torch.zeros((), dtype=torch.float64, device=before.device))

    def look(self, module: nn.Module, given: Tensor, output: Tensor) -> None:
        """Take in what the layer, or its batch norm, puts out for a clean input without errors."""
        if module is self.module:
            with perturbed(self.base, self.pattern):
                self.hit = module.forward(given)
        if module is (self.norm or self.module):
            clean = output.float()
            hit = self.hit if self.norm is None else self.norm.forward(self.hit)
            self.noise[-1] += (hit.float() - clean).double().square().sum()
            if len(self.noise) == 1:
                self.total, self.squares = self.total + clean.double().sum(0), self.squares + clean.double().square().sum()
                self.count += len(clean)

    def described(self) -> dict:
        """The metrics of `damage` that a layer has."""
        signal = self.squares - self.total.square().sum() / self.count
        weight, largest = self.module.weight.double(), self.base.scales[self.name] * (2 ** (self.base.bits - 1) - 1)
        return {
            "layers": self.name,
            "own_noise": _share(torch.stack(self.noise).mean(), signal),
            "weight_noise": torch.stack(self.weight_noise).mean().item(),
            "range_over_rms": _share(largest.double(), weight.square().mean().sqrt()),
        }


def _share(part: Tensor, whole: Tensor) -> float | None:
    return (part / whole).item() if whole > 0 else None


def after_cuts(base: Quantized, error_model: ErrorModel, seeds: Iterable[int], batches: list) -> list[dict]:
    """Accuracy (per cent) of `base` with its weights cut at each of CUTS, without further training: {cut, clean, perturbed
    (a value a pattern)}.  It asks whether a narrower range by itself makes errors harmless."""
    rows, seeds = [], list(seeds)
    for multiple in CUTS:
        narrow = cut(base, multiple)
        accuracies = evaluation.perturbed_accuracies(narrow, error_model, seeds, batches)[0]
        rows.append({"cut": multiple, "clean": evaluation.accuracy(narrow, batches), "perturbed": accuracies})
    return rows


@torch.inference_mode()
def damage(
    base: Quantized, error_model: ErrorModel, seeds: Iterable[int], batches: list, tick: Callable[[], None] = lambda: None
) -> dict:
    """What errors do in each weighted layer of `base`, over the patterns of `seeds` and the images of prepared `batches`.

    A value a layer, in module order, under their names in `layers`: own_noise: mean over patterns of ||f' - f||^2 /
    ||f - f0||^2, where f is the layer's output after the batch norm that takes it in, or its plain output where none does,
    f' the same with errors in the layer's own weights and a clean input, f0 the mean of f over images.  weight_noise: mean
    over patterns of ||w' - w||^2 / ||w||^2.  range_over_rms: largest weight that codes can hold (scale * (2^(bits-1) - 1))
    over the weights' root mean square.  None: nothing varies.
    clean and perturbed (a value a pattern): accuracy in per cent, errors of all layers in effect.
    """
    after = followers(base.model, batches[0][0][:2])
    layers = [_Layer(base, name, after) for name in base.layers]
    watched = {module: layer for layer in layers for module in (layer.module, layer.norm) if module}
    metrics = {"clean": evaluation.accuracy(base, batches), "perturbed": []}
    for seed in seeds:
        pattern = error_model.draw(base.sizes, seed, base.bits)
        for layer in layers:
            layer.begin(pattern.get(layer.name))
        with _watched(watched, lambda module, *values: watched[module].look(module, *values)):
            evaluation.outputs(base, batches)
        with perturbed(base, pattern):
            metrics["perturbed"].append(evaluation.accuracy(base, batches))
        tick()
    rows = [layer.described() for layer in layers]
    return metrics | {name: [row[name] for row in rows] for name in rows[0]}
