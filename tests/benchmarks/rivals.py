"""What ours is measured against: the usual ways, written here from descriptions, and MRFI where it is installed.

None of this is meant to be fast, and none of it is slowed down: each does what the system it stands for does.
Sources: shared notes on github.com/IBM/NeuralFuse (what its training loop, error map and evaluation do, step by step);
davidstutz/random-bit-error-robustness and Ares, which draw a uniform number for every stored bit.  No code is theirs.
"""

import copy
import importlib.util
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from nflib.faults import MAP_COLUMNS, MAP_ROWS, ErrorModel, perturbed
from nflib.generators import transform
from nflib.quantize import (
    Quantized,
    decode,
    encode,
    quantization_aware,
    weighted_layers,
)

BITS = 8
WORDS = MAP_COLUMNS // BITS


# ---------------------------------------------------------------------------------------------------------- injection
# An injector perturbs a model (`perturb(seed)`), shows the weights that are then in force (`weights()`), and undoes it.


class Ours:
    """A drawn pattern, patched in and taken out again."""

    def __init__(self, model: nn.Module, error_model: ErrorModel):
        self.base, self.error_model = Quantized(model, BITS), error_model

    def perturb(self, seed: int) -> None:
        self.context = perturbed(self.base, self.error_model.draw(self.base.sizes, seed, BITS))
        self.context.__enter__()

    def undo(self) -> None:
        self.context.__exit__(None, None, None)

    def weights(self) -> dict[str, Tensor]:
        return {name: layer.weight for name, layer in self.base.layers.items()}


class Dense:
    """A uniform number for each stored bit, a full mask, every weight quantised anew; undone by copying all back."""

    def __init__(self, model: nn.Module, rate: float):
        self.layers, self.rate = weighted_layers(model.requires_grad_(False)), rate
        self.stored = {name: layer.weight.clone() for name, layer in self.layers.items()}

    def perturb(self, seed: int) -> None:
        chance = torch.Generator(next(iter(self.stored.values())).device).manual_seed(seed)
        for name, layer in self.layers.items():
            codes, scale = encode(self.stored[name], BITS)
            mask = torch.zeros_like(codes)
            for bit in range(BITS):
                hit = torch.rand(codes.shape, generator=chance, device=codes.device) < self.rate
                mask |= hit.to(torch.int8) << bit
            layer.weight.copy_(decode(codes ^ mask, scale))

    def undo(self) -> None:
        for name, layer in self.layers.items():
            layer.weight.copy_(self.stored[name])

    def weights(self) -> dict[str, Tensor]:
        return {name: layer.weight for name, layer in self.layers.items()}


class OfficialMap:
    """The official code's stuck-at map, the slow way: drawn dense, packed by a double loop, laid out for each layer."""

    def __init__(self, rate: float, device: torch.device):
        self.rate, self.device = rate, device

    def draw(self, seed: int) -> None:
        faulty = (np.random.RandomState(seed).rand(MAP_ROWS, MAP_COLUMNS) < self.rate).astype(float)
        ones = faulty * (np.random.RandomState(seed + 1).rand(MAP_ROWS, MAP_COLUMNS) < 0.5)
        maps = [cells.astype(np.int64) for cells in (faulty - ones, ones)]
        self.stuck_at_0, self.stuck_at_1 = (
            self._packed(torch.from_numpy(cells).to(torch.int32).to(self.device)) for cells in maps
        )

    def _packed(self, cells: Tensor) -> Tensor:
        packed = torch.zeros(MAP_ROWS, WORDS, dtype=torch.uint8, device=self.device)
        for word in range(WORDS):
            for bit in range(BITS):
                packed[:, word] += cells[:, BITS * word + bit] << bit
        return packed

    def _laid_out(self, packed: Tensor, weights: int) -> Tensor:
        banks = math.ceil(math.ceil(weights / WORDS) / MAP_ROWS)
        return copy.deepcopy(packed).tile((banks, WORDS)).reshape(-1)[:weights]

    def read(self, weight: Tensor) -> Tensor:
        """The weights (float, shape of `weight`) that are read back: quantised here, AND, OR, times the scale."""
        codes, scale = encode(weight, BITS)
        zeros, ones = (self._laid_out(m, weight.numel()).view(torch.int8) for m in (self.stuck_at_0, self.stuck_at_1))
        return decode((codes.flatten() & ~zeros) | ones, scale).view_as(weight)


class Official:
    """One official map for all layers; the perturbed weights are new tensors, so that nothing is to be undone."""

    def __init__(self, model: nn.Module, rate: float):
        self.layers = weighted_layers(model.requires_grad_(False))
        self.map = OfficialMap(rate, next(model.parameters()).device)

    def perturb(self, seed: int) -> None:
        self.map.draw(seed)
        self.read = {name: self.map.read(layer.weight) for name, layer in self.layers.items()}

    def undo(self) -> None:
        pass

    def weights(self) -> dict[str, Tensor]:
        return self.read


def has_mrfi() -> bool:
    return importlib.util.find_spec("mrfi") is not None


class Mrfi:
    """MRFI (PyPI), set to one random bit in a weight with probability 8 * rate, as its hooks do before a forward.

    It takes no seed: that of the global generators is set.  It copies the old weights back before it injects again.
    selector: "RandomPositionByRate" (its default: a Poisson count, with replacement) or "RandomPositionByRate_classic".
    """

    def __init__(self, model: nn.Module, rate: float, selector: str):
        import mrfi.mrfi

        config = {"type": "weight", "name": ["weight"], "module_type": ["Conv2d", "Linear"]}
        config["quantization"] = {"method": "SymmericQuantization", "dynamic_range": "auto", "bit_width": BITS}
        config["selector"] = {"method": selector, "rate": BITS * rate}
        config["error_mode"] = {"method": "IntRandomBitFlip", "bit_width": BITS}
        self.model = mrfi.mrfi.MRFI(model.requires_grad_(False), mrfi.mrfi.EasyConfig({"faultinject": [config]})).model
        self.layers, self.inject = weighted_layers(self.model), mrfi.mrfi._FI_weights

    def perturb(self, seed: int) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)
        with torch.no_grad():
            for layer in self.layers.values():
                self.inject(layer.FI_config.weights, layer)

    def undo(self) -> None:
        pass

    def weights(self) -> dict[str, Tensor]:
        return {name: layer.weight for name, layer in self.layers.items()}


def changed_share(base: Quantized, weights: dict[str, Tensor]) -> float:
    """Share of the stored bits of `base` that read differently in the perturbed `weights`, whoever made them."""
    changed = 0
    for name, codes in base.codes.items():
        read = torch.round(weights[name].flatten() / base.scales[name]).to(torch.int8)
        changed += int(np.bitwise_count((read ^ codes).view(torch.uint8).cpu().numpy()).sum())
    return changed / (base.bits * sum(base.sizes.values()))


# ------------------------------------------------------------------------------------------- training and evaluation


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, error_map: OfficialMap) -> Tensor:
        return error_map.read(weight)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient, None


class _Faulty(nn.Module):
    def __init__(self, error_map: OfficialMap):
        super().__init__()
        self.map = error_map

    def forward(self, weight: Tensor) -> Tensor:
        return _Read.apply(weight, self.map)


class OfficialModels:
    """A clean and a perturbed copy of a base model that quantise every weight in every forward, neither frozen."""

    def __init__(self, model: nn.Module, rate: float):
        self.clean, self.perturbed = quantization_aware(copy.deepcopy(model), BITS).eval(), copy.deepcopy(model).eval()
        self.map = OfficialMap(rate, next(model.parameters()).device)
        self.map.draw(0)
        for layer in weighted_layers(self.perturbed).values():
            parametrize.register_parametrization(layer, "weight", _Faulty(self.map))


def textbook_gradient(
    generator: nn.Module,
    models: OfficialModels,
    images: Tensor,
    labels: Tensor,
    seeds: Iterable[int],
    loss_weight: float,
    log: bool = True,
) -> None:
    """Put the gradient of Eq. 3 into the generator's .grad as the official loop does.

    For each perturbed model: a new map, the generator and the clean model once more, a forward of the untransformed
    images that only a log line needs (`log`), the perturbed model, and one backward through everything, weights of the
    base models included; then the gradients are averaged by name.
    """
    seeds = list(seeds)
    mean = {name: torch.zeros_like(p) for name, p in generator.named_parameters()}
    for seed in seeds:
        models.map.draw(seed)
        generator.zero_grad()
        transformed = transform(generator, images)
        clean = models.clean(transformed)
        clean_loss = F.cross_entropy(clean, labels)
        if log:
            (models.perturbed(images).argmax(1) == labels).sum().item()
        read = models.perturbed(transformed)
        perturbed_loss = F.cross_entropy(read, labels)
        loss = clean_loss + loss_weight * perturbed_loss
        loss.backward()
        for value in (clean_loss, perturbed_loss, (clean.argmax(1) == labels).sum(), (read.argmax(1) == labels).sum()):
            value.item()
        for name, parameter in generator.named_parameters():
            mean[name] += parameter.grad / len(seeds)
    for name, parameter in generator.named_parameters():
        parameter.grad = mean[name]


def official_accuracies(
    generator: nn.Module, models: OfficialModels, images: Tensor, labels: Tensor, seeds: Iterable[int]
) -> dict[str, list[float]]:
    """CA, CA(NF), PA and PA(NF) in per cent, each once a seed: everything is computed again for every error pattern.

    The official code also scores the whole training set for every seed, which is left out here.
    """
    found: dict[str, list[float]] = {"CA": [], "CA_NF": [], "PA": [], "PA_NF": []}

    def accuracy(model: Callable[[Tensor], Tensor], shown: Tensor) -> float:
        return 100 * (model(shown).argmax(1) == labels).double().mean().item()

    for seed in seeds:
        models.map.draw(seed)
        found["CA"].append(accuracy(models.clean, images))
        found["PA"].append(accuracy(models.perturbed, images))
        found["CA_NF"].append(accuracy(models.clean, transform(generator, images)))
        found["PA_NF"].append(accuracy(models.perturbed, transform(generator, images)))
    return found
