"""Augmentation of image batches as tensor operations, with exact pixels where the pixels only move."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nflib.data import to_float


def _crop(images: Tensor, flip: bool, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Random crop after zero padding and, for `flip`, a random mirror image: exact pixels, by indexing."""
    count, size, device = len(images), images.shape[-1], images.device
    shifts = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator).to(device, non_blocking=True)
    rows, columns = shifts + torch.arange(size, device=device)
    if flip:
        mirrored = (torch.rand(count, 1, generator=generator) < 0.5).to(device, non_blocking=True)
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (pad,) * 4)
    each = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(3, device=device)[None, :, None, None]
    return padded[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _warp(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor, outside: str) -> Tensor:
    """Resample float images by x -> scale * x + shift in [-1, 1] coordinates (each [B, 2]).

    outside: "zeros" makes what lies outside the image black (-1), "border" repeats its edge.
    """
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = scale[:, 0] * torch.where(flip, -1.0, 1.0), scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta.to(images.device, non_blocking=True), list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, padding_mode=outside, align_corners=False) - 1


def augment(images: Tensor, how: str, generator: torch.Generator) -> Tensor:
    """Augmented float images in [-1, 1], channels-last, from uint8 [B, 3, H, W]; chance from `generator`, a CPU one.

    how: "crop" (pad 4), "crop_flip" (CIFAR), "affine" (GTSRB: crop, translate 0.35, scale 0.65 to 1.35, flip) or
    "resized_crop" (224x224: area 0.08 to 1, aspect 3/4 to 4/3, flip).
    """
    count = len(images)
    if how in ("crop", "crop_flip"):
        return to_float(_crop(images, how == "crop_flip", generator))
    flip = torch.rand(count, generator=generator) < 0.5
    if how == "affine":
        zoom = 1 / (0.65 + 0.7 * torch.rand(count, 1, generator=generator)).expand(-1, 2)
        shift = zoom * 0.7 * (2 * torch.rand(count, 2, generator=generator) - 1)
        images = _crop(images, False, generator)
    else:
        area = 0.08 + 0.92 * torch.rand(count, generator=generator)
        ratio = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * np.log(4 / 3))
        zoom = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
        shift = (1 - zoom) * (2 * torch.rand(count, 2, generator=generator) - 1)
    outside = "zeros" if how == "affine" else "border"
    return _warp(to_float(images), zoom, shift, flip, outside).contiguous(memory_format=torch.channels_last)
