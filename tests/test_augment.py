"""Augmentation moves exact pixels, by chance of its own, within the documented limits."""

import math

import pytest
import torch
from torch.nn import functional as F

from examples import seeded
from nflib.augment import augment

WAYS = ("crop", "crop_flip", "affine", "resized_crop")


def random_images(count: int = 16, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=seeded(3))


@pytest.mark.parametrize("how", WAYS)
def test_augmentation_depends_on_its_generator_alone(how):
    images, threads, one, global_state = random_images(), torch.get_num_threads(), seeded(1), torch.get_rng_state()
    before, first = images.clone(), augment(images, how, one)
    assert not torch.equal(first, augment(images, how, one))  # a generator moves on
    assert not torch.equal(first, augment(images, how, seeded(2)))
    try:
        torch.set_num_threads(2)
        assert torch.equal(first, augment(images, how, seeded(1)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), global_state) and torch.equal(images, before)


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("how", WAYS)
def test_augmented_images_keep_their_shape_and_range(how, size):
    images = random_images(4, size)
    images[0], images[1] = 0, 255
    augmented = augment(images, how, seeded())
    assert augmented.shape == images.shape and augmented.dtype == torch.float32
    assert augmented.is_contiguous(memory_format=torch.channels_last)
    assert augmented.abs().max() <= 1 + 1e-6
    assert torch.equal(augmented[0], torch.full_like(augmented[0], -1))  # what comes in from outside is black
    assert how != "resized_crop" or augmented[1].min() > 1 - 1e-4  # nothing comes in from outside


@pytest.mark.parametrize("how", ["crop", "crop_flip"])
def test_crops_are_exact_pixels_of_the_padded_source(how):
    images = random_images(8)
    augmented = ((augment(images, how, seeded()) + 1) * 127.5).round().to(torch.uint8)
    padded = F.pad(images, (4, 4, 4, 4))
    for image, source in zip(augmented, padded):
        views = [source[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        views += [view.flip(2) for view in views if how == "crop_flip"]
        assert any(torch.equal(image, view) for view in views)


def test_every_shift_and_mirror_image_is_as_likely():
    """From images of each pixel's own place: shifts against chi-square, mirror images within five standard errors."""
    count = 4050
    place = torch.arange(16, dtype=torch.uint8)
    image = torch.stack([place[:, None].expand(16, 16), place[None].expand(16, 16), torch.zeros(16, 16)])
    images = image.to(torch.uint8).expand(count, 3, 16, 16)
    augmented = ((augment(images, "crop_flip", seeded()) + 1) * 127.5).round().long()
    rows, left, right = augmented[:, 0, 8, 8] - 4, augmented[:, 1, 8, 7], augmented[:, 1, 8, 8]
    mirrored = left > right
    columns = torch.minimum(left, right) - 3
    counts = torch.bincount(rows * 9 + columns, minlength=81).double()
    assert counts.shape == (81,)
    statistic = ((counts - count / 81) ** 2).sum() / (count / 81)
    assert abs(statistic - 80) < 5 * math.sqrt(160)
    assert abs(mirrored.sum() - count / 2) < 5 * math.sqrt(count / 4)
    assert not (augment(images, "crop", seeded())[:, 1].diff(dim=2)[:, 8, 4:11] < 0).any()  # "crop" never mirrors


def test_affine_moves_and_scales_within_the_documented_limits():
    """A white disc on black: its centre moves by 0.35 of the side and 4 pixels at most, its area by 0.65² to 1.35²."""
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    disc = ((x**2 + y**2 < 64) * 255).to(torch.uint8).expand(400, 3, 64, 64)
    light = (augment(disc, "affine", seeded())[:, 0] + 1) / 2
    area = light.sum((1, 2))
    centre = torch.stack([(light * x).sum((1, 2)), (light * y).sum((1, 2))], 1) / area[:, None].clamp(min=1)
    whole = centre.abs().amax(1) < 20  # discs that the border does not cut
    share = area[whole] / (disc[0, 0] > 0).sum()
    assert 0.65**2 * 0.95 < share.min() < 0.55 and 1.6 < share.max() < 1.35**2 * 1.05
    assert centre[area > 20].abs().max() < 0.35 * 64 + 4 * 1.35 + 0.5 and centre[whole].abs().max() > 15
    assert abs(centre[whole].mean()) < 1.5
