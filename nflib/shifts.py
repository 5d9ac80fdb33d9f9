"""Shifts of the test images that nothing was trained on: common corruptions at their middle severity.

Source of kinds and strengths: CIFAR-10-C, severity 3 of 5 (Hendrycks and Dietterich, ICLR 2019); darkening is the counterpart
of its brightening.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from nflib.data import Split
from nflib.names import choose


def _noise(images: Tensor) -> Tensor:
    """Gaussian, standard deviation 0.08 of the range; the same for the same images everywhere."""
    chance = torch.Generator().manual_seed(0)
    return images + 0.08 * torch.randn(images.shape, generator=chance).to(images.device)


def _blur(images: Tensor) -> Tensor:
    from torchvision.transforms.functional import gaussian_blur  # importing it takes longer than all of nflib

    return gaussian_blur(images, 5, 0.7)


def _low_contrast(images: Tensor) -> Tensor:
    """Distances from each channel's mean times 0.4."""
    mean = images.mean((2, 3), keepdim=True)
    return mean + 0.4 * (images - mean)


def _dark(images: Tensor) -> Tensor:
    return images - 0.15


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {  # of float images [N, 3, H, W] in [0, 1]
    "noise": _noise,
    "blur": _blur,
    "low_contrast": _low_contrast,
    "dark": _dark,
}


def shifted(split: Split, name: str) -> Split:
    """The split with its images shifted, as uint8 again.  Raises UserError for an unknown name."""
    moved = SHIFTS[choose("shift", name, SHIFTS)](split.images.float() / 255)
    return Split((moved.clamp(0, 1) * 255).round().to(torch.uint8), split.labels)
