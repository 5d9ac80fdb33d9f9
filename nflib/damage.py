"""What bit errors do inside a base model, layer by layer, beside what they do to its accuracy.

f is a weighted layer's output after the batch norm that takes it in, or its plain output where none does [N, C, ...].
f' is the same with errors.  Sums run over images, channels and positions; f0 is the mean of f over images alone.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from nflib import evaluation
from nflib.faults import ErrorModel, Pattern, perturbed
from nflib.mitigations import cut
from nflib.quantize import Quantized
from nflib.training import autocast

NO_GAMMA = 1e-3  # share of a batch norm's largest |gamma| below which a channel is silent
CUTS = (3.0, 2.0, 1.5)  # root mean squares at which trained weights are cut, to change their range and nothing else
CONSTANT = 1e-5  # share of a layer's range below which a channel's own range is rounding


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


def _wide(output: Tensor) -> Tensor:
    """A layer's output [N, C, ...] as float64 [N, C, positions]."""
    return output.double().flatten(2) if output.dim() > 2 else output.double()[..., None]


class _Layer:
    """A weighted layer, the batch norm that takes its output (or None), whether ReLU takes that; and sums over images."""

    def __init__(self, base: Quantized, name: str, after: dict[nn.Module, nn.Module]):
        self.name, self.module, follower = name, base.layers[name], after.get(base.layers[name])
        self.norm = follower if isinstance(follower, nn.BatchNorm2d) else None
        self.probe = self.norm or self.module
        self.rectified = isinstance(after.get(self.probe), nn.ReLU)
        self.clean = self.own = None  # outputs for a batch: without errors, with this layer's own
        self.total, self.squares, self.count = 0.0, 0.0, 0
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self.patterns: list[dict[str, Tensor]] = []  # sums of each: noise, own_noise, offset (of a channel), weight_noise

    def see(self, output: Tensor) -> None:
        """Take in the clean outputs f of some images."""
        wide = _wide(output)
        self.total, self.squares = self.total + wide.sum(0), self.squares + wide.square().sum()
        self.count += len(wide)
        self.low, self.high = self.low.minimum(wide.amin((0, 2))), self.high.maximum(wide.amax((0, 2)))

    @property
    def signal(self) -> Tensor:
        """Sum of (f - f0)^2."""
        return self.squares - self.total.square().sum() / self.count

    def silent(self) -> float:
        """Share of channels that are constant on all images (after ReLU where it comes next), or have no gamma."""
        low, high = (edge.clamp(min=0) if self.rectified else edge for edge in (self.low, self.high))
        quiet = high - low <= CONSTANT * (self.high.max() - self.low.min())
        if self.norm is not None:
            gamma = self.norm.weight.abs()
            quiet |= gamma < NO_GAMMA * gamma.max()
        return quiet.double().mean().item()


def _energy(change: Tensor) -> tuple[Tensor, Tensor]:
    """Of f' - f [N, C, ...]: the sum of squares, and the sum of each channel (float64)."""
    wide = _wide(change)
    return wide.square().sum(), wide.sum((0, 2))


def _one_pattern(base: Quantized, layers: list[_Layer], pattern: Pattern, batches: list, first: bool) -> tuple[Tensor, Tensor]:
    """Logits (clean, perturbed; float32 [N, classes]); the layers keep the sums.  first: they take in clean outputs, too."""
    of, found = {layer.module: layer for layer in layers} | {layer.probe: layer for layer in layers}, []
    for layer in layers:
        sums = {"noise": 0.0, "own_noise": 0.0, "offset": 0.0}
        layer.patterns.append(sums | {"weight_noise": _weight_noise(base, layer.name, pattern)})

    def clean(module: nn.Module, given: Tensor, output: Tensor) -> None:
        layer = of[module]
        if module is layer.module:  # the same input, this layer's errors alone
            with perturbed(base, _only(pattern, layer.name)):
                layer.own = module.forward(given)
        if module is layer.probe:
            layer.clean = output.float()
            own = layer.own if layer.norm is None else layer.norm.forward(layer.own)
            layer.patterns[-1]["own_noise"] += _energy(own.float() - layer.clean)[0]
            if first:
                layer.see(layer.clean)

    def hit(module: nn.Module, given: Tensor, output: Tensor) -> None:
        energy, offset = _energy(output.float() - of[module].clean)
        of[module].patterns[-1]["noise"] += energy
        of[module].patterns[-1]["offset"] += offset

    for images, _ in batches:
        with autocast(images.device), _watched(of, clean):
            whole = base(images).float()
        with autocast(images.device), _watched([layer.probe for layer in layers], hit), perturbed(base, pattern):
            found.append((whole, base(images).float()))
    return tuple(torch.cat(logits) for logits in zip(*found))


def _only(pattern: Pattern, name: str) -> Pattern:
    return {name: pattern[name]} if name in pattern else {}


def _weight_noise(base: Quantized, name: str, pattern: Pattern) -> Tensor:
    """||w' - w||^2 / ||w||^2 of a layer."""
    before = base.layers[name].weight.double()
    with perturbed(base, _only(pattern, name)):
        return (base.layers[name].weight.double() - before).square().sum() / before.square().sum().clamp(min=1e-300)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the right class less the largest other one, of each image [N]."""
    right = logits.gather(1, labels[:, None])[:, 0]
    return right - logits.scatter(1, labels[:, None], -torch.inf).amax(1)


def _share(part: Tensor, whole: Tensor) -> float | None:
    return (part / whole).item() if whole > 0 else None


def _described(layer: _Layer, base: Quantized) -> dict:
    """The metrics of `damage` that a layer has."""
    weight, largest = base.layers[layer.name].weight, base.scales[layer.name] * (2 ** (base.bits - 1) - 1)
    names = ("noise", "own_noise", "weight_noise")
    mean = {name: torch.stack([sums[name] for sums in layer.patterns]).mean() for name in names}
    outputs = layer.count * layer.total[0].numel()  # of a channel: images times positions
    common = [_share(sums["offset"].square().sum() / outputs, sums["noise"]) for sums in layer.patterns]
    common = [share for share in common if share is not None]
    return {
        "layers": layer.name,
        "noise": _share(mean["noise"], layer.signal),
        "own_noise": _share(mean["own_noise"], layer.signal),
        "weight_noise": mean["weight_noise"].item(),
        "shift": sum(common) / len(common) if common else None,
        "range_over_rms": _share(largest.double(), weight.double().square().mean().sqrt()),
        "silent": layer.silent(),
    }


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

    A value a layer, in module order, under their names in `layers`: noise: mean over patterns of ||f' - f||^2 / ||f - f0||^2,
    errors of all layers in effect.  own_noise: the same where the layer's own weights alone are hit and its input is clean.
    weight_noise: mean over patterns of ||w' - w||^2 / ||w||^2.  shift: share of ||f' - f||^2 that is an offset common to all
    images and positions of a channel, mean over patterns.  range_over_rms: largest weight that codes can hold
    (scale * (2^(bits-1) - 1)) over the weights' root mean square.  silent: share of channels that are constant on all
    images, after ReLU where it comes next, or whose `|gamma|` is below NO_GAMMA of the layer's largest.  None: nothing varies.
    Of the logits: clean and perturbed (a value a pattern): accuracy in per cent; margin and perturbed_margin (a value a
    pattern): mean of the right class's logit less the largest other; logit_noise: root mean square over patterns, images and
    classes of the logits' change, less its mean over classes.
    """
    labels = torch.cat([labels for _, labels in batches])
    after = followers(base.model, batches[0][0][:2])
    layers = [_Layer(base, name, after) for name in base.layers]
    metrics, changes = {"perturbed": [], "perturbed_margin": []}, []
    for number, seed in enumerate(seeds):
        pattern = error_model.draw(base.sizes, seed, base.bits)
        whole, hit = _one_pattern(base, layers, pattern, batches, first=number == 0)
        right = [100 * (logits.argmax(1) == labels).double().mean().item() for logits in (whole, hit)]
        metrics |= {"clean": right[0], "margin": margins(whole, labels).mean().item()}
        metrics["perturbed"].append(right[1])
        metrics["perturbed_margin"].append(margins(hit, labels).mean().item())
        changes.append((hit - whole - (hit - whole).mean(1, keepdim=True)).square().mean())
        tick()
    rows = [_described(layer, base) for layer in layers]
    of_layers = {name: [row[name] for row in rows] for name in rows[0]}
    return metrics | of_layers | {"logit_noise": torch.stack(changes).mean().sqrt().item()}
