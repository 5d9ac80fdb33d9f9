"""Trained models: from their checkpoints, or trained now and stored."""

import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nflib import adapters, data, faults, generators, models
from nflib.eopm import GeneratorRecipe, distill, train_generator
from nflib.files import writing
from nflib.names import ROOT, UserError, choose
from nflib.quantize import Quantized
from nflib.study import recipes, weights
from nflib.study.cells import Base, Cell, as_json, canonical, cell_of, digest_of
from nflib.study.records import Store, code_digest, provenance
from nflib.training import FORCED_PRECISION, Diverged, train_base

TRAINS = "augment data eopm faults generators models quantize training"  # modules whose change may change a training


def checkpoints() -> Path:
    """Where trained weights lie: `NFLIB_CHECKPOINTS`, otherwise checkpoints/ of the checkout."""
    return Path(os.environ.get("NFLIB_CHECKPOINTS") or ROOT / "checkpoints").resolve()


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: models free and allocate large tensors at every layer, and pages handed back to
    the kernel must be zeroed again when they return (narrow ResNet50, forward: about three times as slow)."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        for option, value in ((-1, 2**31 - 1), (-3, 2**30)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            library.mallopt(option, value)


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" (a GPU if there is one), "cpu" or "cuda"."""
    choose("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not there; use --device cpu")
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = device.type == "cuda"  # shapes stay the same: the fastest convolutions are worth a search
    return device


@functools.lru_cache(maxsize=2)
def dataset_on(name: str, device: torch.device) -> data.Dataset:
    whole = data.load(name)
    moved = {split: getattr(whole, split).to(device) for split in ("train", "validation", "test")}
    return dataclasses.replace(whole, **moved)


def _fingerprint(state: dict[str, torch.Tensor], facts: dict) -> str:
    """Digest of a model's tensors on the CPU, by name, and of its training facts."""
    whole = hashlib.sha256(canonical(facts).encode())
    for name, value in sorted(state.items()):
        whole.update(name.encode() + value.numpy().tobytes())
    return whole.hexdigest()


def _resume_path(key: str, dataset: data.Dataset) -> Path:
    """Where the state of a training lies between two runs: its name says model and recipe (`key`), data and code.

    Raises UserError where there is a state of the same model that other data or other code wrote.
    """
    identity = hashlib.sha256(f"{dataset.digest} {code_digest(TRAINS)}".encode()).hexdigest()[:12]
    path = checkpoints() / f"{key}.{identity}.resume.pt"
    for other in sorted(checkpoints().glob(f"{key}.*.resume.pt")):
        if other != path:
            raise UserError(f"state of training {other} was written with other data or other code; move it away to begin again")
    return path


def _write(path: Path, model: torch.nn.Module, facts: dict) -> None:
    """Write a checkpoint: tensors on the CPU by name, training facts, and a digest of both."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with writing(path) as part:
        save_file(state, part, {"training": json.dumps({"key": path.stem, "facts": facts, "sha256": _fingerprint(state, facts)})})


def _read(path: Path, model: torch.nn.Module) -> tuple[dict, str]:
    """Load a checkpoint into `model`; returns its training facts and the file's sha256.  UserError for one that is not whole."""
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()  # which says why it cannot be read, as safetensors does not
        with safe_open(path, "pt") as file:
            stored = json.loads(file.metadata()["training"])
            state = {name: file.get_tensor(name) for name in file.keys()}
        if stored.get("key", path.stem) != path.stem or stored["sha256"] != _fingerprint(state, facts := stored["facts"]):
            raise ValueError("it is not what was stored here")
        model.load_state_dict(state)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, TypeError, LookupError, AttributeError, ValueError, RuntimeError, RecursionError):
        raise UserError(f"checkpoint {path} is damaged; move it away to train again") from None
    return facts, digest


def _same_data(path: Path, facts: dict, dataset: data.Dataset) -> None:
    """Raise UserError where a model was trained on other images than `dataset` has now."""
    if facts["provenance"].get("data", dataset.digest) != dataset.digest:
        raise UserError(f"model {path} was trained on another data set {dataset.name!r}; give the new one another name")


def file_of(key: str) -> Path | None:
    """Where the trained model of a key lies: its checkpoint, or as published; None where it must be trained."""
    return next((path for path in (checkpoints() / f"{key}.safetensors", weights.path_of(key)) if path.exists()), None)


def _trained(
    key: str, build: Callable, train: Callable, device: torch.device, dataset: data.Dataset, words: str, deadline: float | None
) -> tuple[torch.nn.Module, dict, str]:
    """A trained model: from its checkpoint, as published, or built, trained and stored.  Returns (model, training facts, file's sha256).

    train(model, run): trains it in place and returns facts; run: resume, words and deadline, as in `training.optimise`.
    Raises UserError for a checkpoint that is damaged, or that was trained on other images than `dataset` has now; Diverged,
    with the `provenance` of the attempt, where the loss is not finite.
    """
    path = checkpoints() / f"{key}.safetensors"
    model = build().to(device)
    if file_of(key) == weights.path_of(key):
        _, card, digest = weights.read(key, lambda card: model)
        _same_data(weights.path_of(key), card["facts"], dataset)
        return model, card["facts"], digest
    with locked(path):
        if not path.exists():
            origin, state = provenance(device, data=dataset.digest), _resume_path(key, dataset)
            try:
                facts = train(model, {"resume": state, "words": words, "deadline": deadline})
                if not all(value.isfinite().all() for value in model.state_dict().values()):
                    raise Diverged("the weights are not finite after the last step")
            except Diverged as error:
                error.provenance = origin
                state.unlink(missing_ok=True)
                raise
            _write(path, model, facts | {"provenance": origin})
            state.unlink(missing_ok=True)  # not before: the disk may be full
    facts, digest = _read(path, model)
    _same_data(path, facts, dataset)
    return model, facts, digest


def _new_base(base: Base, classes: int, image_size: int) -> torch.nn.Module:
    relu = not (base.stages[0].recipe.name == "release" and image_size == 224 and base.model == "resnet18")
    return models.build(base.model, classes, image_size, base.width, base.recipe.seed, relu)


def new_generator(cell: Cell, classes: int, image_size: int) -> torch.nn.Module:
    """A cell's generator, or adapter, before training."""
    recipe = cell.generator
    if recipe.place:
        return adapters.build(recipe.name, recipe.place, _new_base(cell.base, classes, image_size), recipe.width, recipe.seed)
    return generators.build(recipe.name, recipe.width, recipe.seed, image_size, classes)


def base_model(
    base: Base, device: torch.device, deadline: float | None = None, bits: int = 0
) -> tuple[Quantized, dict, str]:
    """The trained, frozen, quantised base model; its training facts; its checkpoint's digest.  Trains it if need be.

    bits: code width to quantise the float weights behind the codes to; 0 means the width of training.
    """
    dataset, words = dataset_on(base.dataset, device), f"{base.words}: base model"
    build = functools.partial(_new_base, base, dataset.classes, dataset.image_size)

    def train(model: torch.nn.Module, run: dict) -> dict:
        more = {}
        if base.recipe.start:
            start, facts, digest = base_model(base.stages[-2], device, deadline)
            model.load_state_dict(start.model.state_dict())
            more = {"start": {"sha256": digest, "seconds": facts["seconds"]}}
        return train_base(model, dataset.train, dataset.augmentation, base.recipe, **run) | more

    model, facts, digest = _trained(base_key(base), build, train, device, dataset, words, deadline)
    return Quantized(model.to(memory_format=torch.channels_last), bits or base.recipe.bits), facts, digest


def base_key(base: Base) -> str:
    """Checkpoint name of a base model."""
    return f"base-{digest_of(base)}"


def generator_key(cell: Cell) -> str:
    """Checkpoint name of a cell's generator: it depends on the recipe and on what the generator is trained on."""
    return f"generator-{digest_of({'generator': as_json(cell.generator), 'on': [as_json(base) for base in cell.trained_on]})}"


def generator_model(cell: Cell, device: torch.device, deadline: float | None = None):
    """The trained, quantised generator of a cell; its training facts; its checkpoint's digest.  Trains it if need be."""
    model, facts, digest = _generator(cell, device, deadline)
    return Quantized(model.to(memory_format=torch.channels_last), cell.generator.bits).model, facts, digest


def _generator(cell: Cell, device: torch.device, deadline: float | None):
    """The same with the float weights behind the codes.  What it imitates, and the distillation itself, are generators with
    checkpoints of their own, so that recipes that share them train them once."""
    recipe, dataset, words = cell.generator, dataset_on(cell.base.dataset, device), f"{cell.words}: generator"
    build = functools.partial(new_generator, cell, dataset.classes, dataset.image_size)

    def train(model: torch.nn.Module, run: dict) -> dict:
        where = dataset.train, dataset.augmentation, recipe
        if recipe.teacher and not recipe.steps:
            taught = dataclasses.replace(cell, generator=recipe.teacher)
            teacher, facts, digest = generator_model(taught, device, deadline)
            more = {"teacher": {"sha256": digest, "seconds": facts["seconds"], "model_images": facts["model_images"]}}
            return distill(model, teacher, *where, **run) | more
        distilled, more = None, {}
        if recipe.teacher:
            alone = dataclasses.replace(cell, generator=dataclasses.replace(recipe, steps=0))
            start, distilled, _ = _generator(alone, device, deadline)
            model.load_state_dict(start.state_dict())
            more = {"teacher": distilled["teacher"]}
        bases = [base_model(base, device, deadline)[0] for base in cell.trained_on]
        error_model = faults.named(recipe.error_model, recipe.rate)
        return train_generator(model, bases, *where, error_model, distilled, **run) | more

    return _trained(generator_key(cell), build, train, device, dataset, words, deadline)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of `path`, so that two processes do not do the same work; it goes with the process that held it.

    Gives whether it is held: without `wait`, False where another process holds it.
    """
    lock, held = checkpoints() / f"{path.stem}.lock", False
    lock.parent.mkdir(parents=True, exist_ok=True)
    while not held:
        with open(lock, "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                break
            with contextlib.suppress(FileNotFoundError):
                held = lock.stat().st_ino == os.fstat(file.fileno()).st_ino  # else it went with another process just now
            if held:
                try:
                    yield True
                finally:
                    lock.unlink(missing_ok=True)
    if not held:
        yield False


@contextlib.contextmanager
def arithmetic_of(profile: str) -> Iterator[None]:
    """Narrow networks are trained and measured on one thread, so that numbers are equal to the digit: with another number
    of threads sums are rounded otherwise, and training amplifies that.  Smoke scale also computes in fp32 everywhere."""
    forced, threads = FORCED_PRECISION.set("fp32" if profile == "smoke" else None), torch.get_num_threads()
    try:
        if profile in ("smoke", "desk"):
            torch.set_num_threads(1)
        yield
    finally:
        FORCED_PRECISION.reset(forced)
        torch.set_num_threads(threads)


def publish(cells: Iterable[Cell]) -> list[Path]:
    """Publish the base models, selectors and generators of cells that have a checkpoint here; returns the new files."""
    made, device = [], torch.device("cpu")
    for cell in cells:
        wanted = {base_key(base): (functools.partial(base_model, base, device), base.recipe.bits, base.words) for base in cell.bases}
        if cell.generator:
            words = f"{cell.words} (trained on {', '.join(base.words for base in cell.trained_on)})"
            wanted[generator_key(cell)] = functools.partial(_generator, cell, device, None), cell.generator.bits, words
        for key, (load, bits, words) in wanted.items():
            if (checkpoints() / f"{key}.safetensors").exists() and not weights.path_of(key).exists():
                model, facts, _ = load()
                model, dataset = getattr(model, "model", model), dataset_on(cell.base.dataset, device)
                made.append(weights.write(key, model, bits, facts, words, dataset.classes, dataset.image_size))
    return made


def load(
    name: str, training: str = "faded_eopm", error_model: str = "release_map", rate: float = 0.01, recipe: str = "release"
) -> Quantized | torch.nn.Module:
    """A published model on the CPU, in eval mode, for images [B, 3, H, W] in [-1, 1].

    name: PROFILE/DATASET/BASE_MODEL, then a `Quantized` base model; or PROFILE/DATASET/BASE_MODEL/GENERATOR, then the
    generator, which `generators.transform` applies.  training, error_model, rate: how that generator was trained.
    Or PROFILE/DIGEST: the generator, else the base model, of the accuracy record with that digest; other arguments mean nothing.
    Raises UserError for a name that is not published.
    """
    profile, dataset, model, front, *more = [*name.split("/"), "", "", "", ""]
    if any(more):
        raise UserError(f"{name!r} is not PROFILE/DATASET/BASE_MODEL or PROFILE/DATASET/BASE_MODEL/GENERATOR")
    record = (store := Store(profile)).root / "accuracy" / f"{dataset}.json"
    if not model and record.exists():
        cell = cell_of(store.read(record)["cell"])
    else:
        how = (training, error_model, rate)
        cell = Cell(recipes.base(profile, dataset, model, recipe), recipes.generator(profile, front, *how) if front else None)
    key = generator_key(cell) if cell.generator else base_key(cell.base)
    if not weights.path_of(key).exists():
        known = ", ".join(card["words"] for card in weights.cards()[:5])
        raise UserError(f"{name} ({cell.words}) is not published; there are {known or 'none'} and others in results/models")
    build, what = (new_generator, cell) if cell.generator else (_new_base, cell.base)
    model, card, _ = weights.read(key, lambda card: build(what, card["classes"], card["image_size"]))
    whole = Quantized(model.to(memory_format=torch.channels_last), card["bits"])
    return whole.model if cell.generator else whole
