"""Adapters: a generator's network at another place than in front of the base model, within it or beside it.

Reviewers asked whether the input is the best place for layers trained on bit errors (7gLE).  Like a generator, an adapter
lies in memory without errors and is trained on Eq. 3.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nflib import generators, models
from nflib.names import UserError, choose

BESIDE = "beside"


def check_place(place: str) -> str:
    """Return `place` if it names one, "" (in front), "block 1", "block 2" or "beside"; raise UserError otherwise."""
    if not re.fullmatch(rf"|block [12]|{BESIDE}", place):
        raise UserError(f"place is {place!r:.40}; allowed are '' (in front of the base model), 'block 1', 'block 2', 'beside'")
    return place


@torch.inference_mode()
def _layers_before(model: nn.Sequential, place: str) -> tuple[int, int]:
    """How many layers of a base model lie before a place, and the channels of what they put out.

    "block K" ends where maps are halved for the K-th time; "beside" is after all layers.
    """
    side = 32 >> int(place.removeprefix("block ")) if place != BESIDE else 0
    weight, training = next(model.parameters()), model.training
    x, count = weight.new_zeros(1, 3, 32, 32), 0
    for count, layer in enumerate(model.eval(), 1):
        x = layer(x)
        if x.dim() == 4 and x.shape[-1] == side:
            break
    model.train(training)
    return count, x.shape[1]


class Adapted(nn.Module):
    """A base model with an adapter: behind "block K", h + A(h) of the maps h there; "beside", logits M(x) + A(x).

    brightness: a factor on h, or on M(x), below 1 while they fade in (see `eopm.GeneratorRecipe`).
    """

    def __init__(self, model: nn.Sequential, adapter: nn.Module, place: str):
        super().__init__()
        count, _ = _layers_before(model, place)
        self.front, self.rest, self.adapter = model[:count], model[count:], adapter
        self.beside, self.brightness = place == BESIDE, 1.0

    def forward(self, images: Tensor) -> Tensor:
        inner = self.front(images)
        return self.rest(self.brightness * inner + self.adapter(images if self.beside else inner))


def build(name: str, place: str, model: nn.Sequential, width: float = 1.0, seed: int = 0) -> nn.Module:
    """An adapter for `model` (CIFAR form), from the generator of that name: within the model with as many channels as the
    maps there, beside it the generator's encoder with an average pool and a linear layer.  Raises UserError for a generator
    without encoder."""
    _, channels = _layers_before(model, place)
    if place == BESIDE:
        encoder = models.ENCODER_OF[choose("generator with an encoder", name, models.ENCODER_OF)]
        return models.build(encoder, channels, width=width, seed=seed)
    return generators.build(name, width, seed, maps=channels)


def added(count: Callable[[nn.Module], float], model: nn.Sequential, network: nn.Module, place: str) -> float:
    """What a generator, or an adapter at its place, adds to what `count` (such as `energy.macs`) says of a base model."""
    return count(Adapted(model, network, place)) - count(model) if place else count(network)
