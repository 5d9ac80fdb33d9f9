"""Data sets are the pixels they claim to be; augmentation moves exact pixels by its own chance; mistakes take one line."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nflib import data
from nflib.data import ARRAYS, augment, to_float

WAYS = ("crop", "crop_flip", "affine", "resized_crop")
DIGITS = "4ed592e3ee42ad456f3b8ff433bd148254c7c99fe8efd6a0e4657e5cbd70da1d"


@pytest.fixture(autouse=True)
def own_folder(workshop):
    (workshop / "data").mkdir()
    return workshop / "data"


def arrays(count: int = 20, size: int = 32, classes: int = 3) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    images = [chance.integers(0, 256, (n, size, size, 3), np.uint8) for n in (count, 5)]
    labels = [np.arange(n, dtype=np.uint8) % classes for n in (count, 5)]
    return dict(zip(ARRAYS, (images[0], labels[0], images[1], labels[1])))


def random_images(count: int = 16, size: int = 32) -> torch.Tensor:
    chance = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=chance)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------------------- data sets


def test_digits_are_always_there_and_always_the_same(own_folder, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    digits = data.load("digits")
    assert digits.digest == DIGITS
    assert [len(split.labels) for split in (digits.train, digits.validation, digits.test)] == [1294, 143, 360]
    assert (digits.classes, digits.image_size, digits.augmentation) == (10, 32, "crop")
    for split in (digits.train, digits.validation, digits.test):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.shape == (len(split.labels), 3, 32, 32)
        assert set(split.labels.tolist()) == set(range(10))
    assert not list(own_folder.iterdir())


def test_digits_are_enlarged_pixel_by_pixel():
    images = data.load("digits").test.images
    blocks = images.view(-1, 3, 8, 4, 8, 4)
    assert (blocks == blocks[:, :1, :, :1, :, :1]).all() and len(images.unique()) == 17


def test_validation_is_cut_from_train_with_a_fixed_seed(own_folder):
    """Train and validation are the file's train split, disjoint; test is the file's test split, in its order."""
    content = arrays(count=250)
    np.savez(own_folder / "mine.npz", **content)
    mine, again = data.load("mine"), data.load("mine")
    whole = {image.tobytes() for image in content["train_images"].transpose(0, 3, 1, 2)}
    train, validation = ({bytes(image.numpy()) for image in s.images} for s in (mine.train, mine.validation))
    assert (len(train), len(validation)) == (225, 25)
    assert not train & validation and train | validation == whole
    assert torch.equal(mine.validation.images, again.validation.images)
    assert torch.equal(mine.test.images, torch.from_numpy(content["test_images"]).permute(0, 3, 1, 2))
    digits = data.load("digits")
    both = [{bytes(image.numpy()) for image in s.images} for s in (digits.train, digits.validation)]
    assert not both[0] & both[1]


def test_the_size_of_own_images_is_read_from_their_file(own_folder):
    assert data.image_size("mine") == 32 == data.image_size("cifar10") and data.image_size("imagenette224") == 224
    for size in (224, 32):
        content = {name: np.zeros((2, size, size, 3), np.uint8) if "images" in name else np.array([0, 1], np.uint8) for name in arrays()}
        np.savez(own_folder / "mine.npz", **content)
        assert data.image_size("mine") == size


def test_labels_stay_with_their_images(own_folder):
    content = arrays(count=100)
    content["train_images"][:, 0, 0, 0] = content["train_labels"] * 50
    np.savez(own_folder / "mine.npz", **content)
    mine = data.load("mine")
    for split in (mine.train, mine.validation):
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels * 50)


def test_a_file_dropped_into_the_folder_is_a_data_set(own_folder):
    content = arrays(classes=3)
    np.savez(own_folder / "fashion.npz", **content)
    (own_folder / "fashion.part.npz").write_bytes(b"")
    assert "fashion" in data.names() and not any("." in name for name in data.names())
    fashion = data.load("fashion")
    each = "".join(hashlib.sha256(content[name].tobytes()).hexdigest() for name in ARRAYS)
    assert fashion.digest == hashlib.sha256(each.encode()).hexdigest()
    assert (fashion.name, fashion.classes, fashion.augmentation) == ("fashion", 3, "crop_flip")


def test_the_digest_changes_with_any_pixel_or_label_and_not_with_the_label_s_type(own_folder):
    digests = []
    for change in (None, "train_images", "train_labels", "test_images", "test_labels"):
        content = arrays()
        if change:
            content[change].flat[7 % content[change].size] ^= 1
        np.savez(own_folder / "mine.npz", **content)
        digests.append(data.load("mine").digest)
    assert len(set(digests)) == 5
    content = arrays()
    np.savez(own_folder / "mine.npz", **content | {"train_labels": content["train_labels"].astype(np.int64)})
    assert data.load("mine").digest == digests[0]


def test_first_gives_the_first_images_and_all_for_zero():
    test = data.load("digits").test
    assert torch.equal(test.first(7).images, test.images[:7]) and torch.equal(test.first(7).labels, test.labels[:7])
    assert test.first(0) is test


# ----------------------------------------------------------------------------------------------------------- mistakes


def test_unknown_data_sets_are_refused_with_the_nearest_name(own_folder, refused):
    with refused("unknown data set 'cifar01'; did you mean 'cifar10'"):
        data.load("cifar01")
    np.savez(own_folder / "fashion.npz", **arrays())
    with refused("unknown data set 'fasion'; did you mean 'fashion'"):
        data.load("fasion")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(share, own_folder, refused):
    path = own_folder / "mine.npz"
    np.savez(path, **arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with refused("mine.npz is damaged or not a data set .*; data/README.md has the form"):
        data.load("mine")  # not "delete it": it is the user's own
    path.rename(own_folder / "cifar10.npz")
    with refused("cifar10.npz is damaged or not a data set .*; delete it and run again"):
        data.load("cifar10")


def test_a_flipped_byte_in_the_pixels_is_refused(own_folder, refused):
    path = own_folder / "mine.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    with refused("mine.npz is damaged"):
        data.load("mine")


IMAGES = arrays()["train_images"]
WRONG = {
    "no array of that name": ({"test_labels": None}, "damaged or not a data set .*test_labels"),
    "float pixels": ({"train_images": IMAGES.astype(np.float32)}, "train_images must be uint8"),
    "grey": ({"train_images": IMAGES[..., 0]}, "train_images must be uint8"),
    "channels first": ({"train_images": IMAGES.transpose(0, 3, 1, 2)}, "train_images must be uint8"),
    "oblong": ({"train_images": IMAGES[:, :16]}, "train_images must be uint8"),
    "a label lost": ({"train_labels": np.zeros(19, np.uint8)}, "with one label each"),
    "labels in columns": ({"train_labels": np.zeros((20, 1), np.uint8)}, "with one label each"),
    "no images": ({"test_images": IMAGES[:0], "test_labels": np.zeros(0, np.uint8)}, "test_images must be uint8"),
    "float labels": ({"train_labels": np.zeros(20)}, "whole numbers from 0 to 255"),
    "negative labels": ({"test_labels": np.full(5, -1)}, "test_labels must be whole numbers from 0 to 255"),
    "labels above 255": ({"test_labels": np.full(5, 256)}, "test_labels must be whole numbers from 0 to 255"),
    "objects": ({"train_labels": np.array([{}] * 20)}, "damaged or not a data set"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_of_another_form_are_refused(case, own_folder, refused):
    changes, words = WRONG[case]
    content = arrays() | changes
    np.savez(own_folder / "mine.npz", **{name: array for name, array in content.items() if array is not None})
    with refused(words):
        data.load("mine")


def test_test_images_of_another_size_are_refused(own_folder, refused):
    sizes = arrays(size=32), arrays(size=28)
    np.savez(own_folder / "mine.npz", **{name: sizes[name.startswith("test")][name] for name in ARRAYS})
    with refused("mine.npz"):
        data.load("mine")


def test_a_cifar10_file_with_other_pixels_is_refused(own_folder, refused):
    np.savez(own_folder / "cifar10.npz", **arrays(classes=10))
    with refused("does not hold the official CIFAR-10; delete it and run again"):
        data.load("cifar10")


# ------------------------------------------------------------------------------------------------------------ sources


def unreachable() -> dict:
    raise OSError("name resolution failed\nand a second line")


def gone() -> dict:
    raise SystemExit


def test_unreachable_sources_are_told_in_one_line(own_folder, monkeypatch, refused, capsys):
    monkeypatch.setitem(data.SOURCES, "cifar10", [("torchvision", unreachable), ("npm", gone)])
    with refused(
        r"'cifar10' could not be had \(torchvision: name resolution failed; npm: SystemExit\); "
        r"put it at .*cifar10.npz, see data/README.md$"
    ):
        data.load("cifar10")
    assert not list(own_folder.iterdir()) and not capsys.readouterr().out


def test_a_source_with_other_pixels_is_passed_over(own_folder, monkeypatch, refused):
    monkeypatch.setitem(data.SOURCES, "cifar10", [("a mirror", arrays)])
    with refused("a mirror: pixels are not the official ones"):
        data.load("cifar10")
    assert not list(own_folder.iterdir())


def test_what_is_fetched_is_kept_and_fetched_once(own_folder, monkeypatch, capsys):
    """The second source is asked when the first fails; what it prints goes to stderr; the file gives the same data set."""
    calls = []

    def source() -> dict:
        print("progress")
        calls.append(1)
        return arrays(classes=43)

    monkeypatch.setitem(data.SOURCES, "gtsrb", [("first", unreachable), ("second", source)])
    one, other = data.load("gtsrb"), data.load("gtsrb")
    assert len(calls) == 1 and one.digest == other.digest and torch.equal(one.train.images, other.train.images)
    assert [path.name for path in own_folder.iterdir()] == ["gtsrb.npz"]
    printed = capsys.readouterr()
    assert not printed.out and "fetching GTSRB from second" in printed.err


def test_a_full_disk_leaves_no_part_of_a_file(own_folder, monkeypatch):
    def full(path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.np, "savez", full)
    monkeypatch.setitem(data.SOURCES, "gtsrb", [("source", arrays)])
    with pytest.raises(OSError, match="No space left"):
        data.load("gtsrb")
    assert not list(own_folder.iterdir())


# ------------------------------------------------------------------------------------------------------- augmentation


def test_to_float_covers_the_range_and_goes_back_exactly():
    every = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    floats = to_float(every)
    assert floats.dtype == torch.float32 and floats.is_contiguous(memory_format=torch.channels_last)
    assert (floats.min(), floats.max()) == (-1, 1)
    assert torch.equal(((floats + 1) * 127.5).round().to(torch.uint8), every)
    assert torch.allclose(floats, 2 * (every.float() / 255) - 1, atol=1e-6)  # 2 * ToTensor - 1


@pytest.mark.parametrize("how", WAYS)
def test_augmentation_depends_on_its_generator_alone(how):
    images, threads = random_images(), torch.get_num_threads()
    before = images.clone()
    first = augment(images, how, seeded(1))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        assert torch.equal(first, augment(images, how, seeded(1)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, before)
    assert not torch.equal(first, augment(images, how, seeded(2)))
    one = seeded(1)
    augment(images, how, one)
    assert not torch.equal(first, augment(images, how, one))  # a generator moves on


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


@pytest.mark.parametrize("how", ["crop", "crop_flip"])
def test_crops_are_exact_pixels_of_the_padded_source(how):
    images = random_images(8)
    augmented = ((augment(images, how, seeded()) + 1) * 127.5).round().to(torch.uint8)
    padded = F.pad(images, (4, 4, 4, 4))
    for image, source in zip(augmented, padded):
        views = [source[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        assert any(torch.equal(image, view) or how == "crop_flip" and torch.equal(image, view.flip(2)) for view in views)


def test_every_shift_and_mirror_image_is_as_likely():
    """From images that carry each pixel's own place: shifts against chi-square, mirror images within five standard errors."""
    count = 4050
    place = torch.arange(32, dtype=torch.uint8)
    image = torch.stack([place[:, None].expand(32, 32), place[None].expand(32, 32), torch.zeros(32, 32)])
    images = image.to(torch.uint8).expand(count, 3, 32, 32)
    augmented = ((augment(images, "crop_flip", seeded()) + 1) * 127.5).round().long()
    rows, left, right = augmented[:, 0, 16, 16] - 12, augmented[:, 1, 16, 15], augmented[:, 1, 16, 16]
    mirrored = left > right
    columns = torch.minimum(left, right) - 11
    counts = torch.bincount(rows * 9 + columns, minlength=81).double()
    assert counts.shape == (81,)
    statistic = ((counts - count / 81) ** 2).sum() / (count / 81)
    assert abs(statistic - 80) < 5 * math.sqrt(160)
    assert abs(mirrored.sum() - count / 2) < 5 * math.sqrt(count / 4)
    assert not (augment(images, "crop", seeded())[:, 1].diff(dim=2)[:, 10, 8:20] < 0).any()  # "crop" never mirrors


def test_affine_moves_and_scales_within_the_documented_limits():
    """A white disc on black: its centre moves by at most 0.35 of the side (and 4 pixels), its area by 0.65**2 to 1.35**2."""
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


def test_resized_crops_lie_within_the_image():
    white = torch.full((64, 3, 64, 64), 255, dtype=torch.uint8)
    assert augment(white, "resized_crop", seeded()).min() > 1 - 1e-4


def test_each_data_set_has_its_augmentation():
    digits = data.load("digits")
    ways = {name: replace(digits, name=name).augmentation for name in ("digits", "cifar10", "cifar100", "gtsrb", "imagenet10")}
    assert list(ways.values()) == ["crop", "crop_flip", "crop_flip", "affine", "resized_crop"]
