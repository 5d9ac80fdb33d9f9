"""Cells (what is measured), records (what came out), and the runner that turns the one into the other."""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from nflib import data, energy, evaluation, faults, generators, models
from nflib.names import UserError
from nflib.quantize import Quantized
from nflib.training import (
    FORCED_PRECISION,
    BaseRecipe, GeneratorRecipe, OutOfTime, precision, progress_bar, train_base, train_generator,
)

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("smoke", "paper")
FIRST_SEED = 50000  # the official evaluation seeds are 50000 to 50009
SIZES = {"digits": (1294, 360), "cifar10": (47500, 10000), "cifar100": (47500, 10000), "gtsrb": (24140, 12630)}
DEFAULT_SPEED = {"cpu": 4e10, "cuda": 2e13}  # multiply-accumulates a second, until records say better


def results() -> Path:
    """Where records, tables and figures lie: `NFLIB_RESULTS`, otherwise results/ of the checkout."""
    return Path(os.environ.get("NFLIB_RESULTS") or ROOT / "results")


def checkpoints() -> Path:
    """Where trained weights lie: `NFLIB_CHECKPOINTS`, otherwise checkpoints/ of the checkout."""
    return Path(os.environ.get("NFLIB_CHECKPOINTS") or ROOT / "checkpoints")


# ------------------------------------------------------------------------------------------------------------ cells


def canonical(value: object) -> str:
    """Canonical JSON of a dataclass or plain value: sorted keys, no spaces."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """A base model: data set, architecture and training."""

    dataset: str
    model: str
    recipe: BaseRecipe
    width: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "width", float(self.width))  # equal cells have equal digests


@dataclass(frozen=True)
class Cell:
    """Everything that fixes one measured setting.

    generator: None for the base model alone.  surrogates: what the generator is trained on; empty means `base` itself
    (relaxed access).  law, rate: error model and bit-error rate of the evaluation.  patterns: error patterns, with seeds
    first_seed, first_seed + 1, ...  images: how many test images (the first ones); 0 means all.
    """

    table: str
    base: Base
    generator: GeneratorRecipe | None = None
    surrogates: tuple[Base, ...] = ()
    law: str = "release_map"
    rate: float = 0.01
    patterns: int = 10
    first_seed: int = FIRST_SEED
    images: int = 0

    def __post_init__(self):
        object.__setattr__(self, "rate", float(self.rate))

    @property
    def digest(self) -> str:
        return digest_of(self)

    @property
    def trained_on(self) -> tuple[Base, ...]:
        return self.surrogates or (self.base,)

    @property
    def words(self) -> str:
        """The cell in words, for progress bars and messages."""
        name = f"{data.LABELS.get(self.base.dataset, self.base.dataset)} {models.LABELS[self.base.model]}"
        with_generator = f" + {generators.LABELS.get(self.generator.name, 'UIP')}" if self.generator else ""
        return f"{name} ({self.base.recipe.name}){with_generator}, {faults.LABELS.get(self.law, self.law)} {100 * self.rate:g} %"

    def key(self, name: str) -> object:
        """A value that `--only NAME=VALUE` can ask for; UserError for an unknown name."""
        values = {
            "digest": self.digest,
            "dataset": self.base.dataset,
            "model": self.base.model,
            "recipe": self.base.recipe.name,
            "epochs": self.base.recipe.epochs,
            "generator": self.generator.name if self.generator else "none",
            "steps": self.generator.steps if self.generator else 0,
            "law": self.law,
            "rate": self.rate,
            "patterns": self.patterns,
        }
        if name not in values:
            raise UserError(f"unknown key {name!r}; allowed: {', '.join(values)}")
        return values[name]


def only(cells: Iterable[Cell], conditions: Iterable[str]) -> list[Cell]:
    """Cells that meet every KEY=VALUE; values for one key given several times, or separated by commas, are alternatives."""
    wanted: dict[str, set[str]] = {}
    for condition in conditions:
        key, sign, value = condition.partition("=")
        if not sign or not value:
            raise UserError(f"{condition!r} is not KEY=VALUE")
        wanted.setdefault(key, set()).update(value.split(","))
    cells = list(cells)
    for key, values in wanted.items():
        known = {str(cell.key(key)) for cell in cells}
        for value in values - known:
            raise UserError(f"no cell has {key}={value}; there are: {', '.join(sorted(known)) or 'none'}")
        cells = [cell for cell in cells if str(cell.key(key)) in values]
    return cells


# ---------------------------------------------------------------------------------------------------------- records


class Store:
    """Records of one profile: PROFILE/TABLE/DIGEST.json, written whole or not at all, checked when read."""

    def __init__(self, profile: str, root: Path | None = None):
        self.profile = profile
        self.root = (root or results()) / "records" / profile

    def path(self, cell: Cell) -> Path:
        return self.root / cell.table / f"{cell.digest}.json"

    def has(self, cell: Cell) -> bool:
        return self.path(cell).exists()

    def write(self, cell: Cell, metrics: dict, provenance: dict) -> Path:
        """Store a record; UserError if there is one already (nothing is overwritten), or the disk is full."""
        path = self.path(cell)
        if path.exists():
            raise UserError(f"record {path} is there already; delete it to measure again")
        body = {"version": 1, "cell": dataclasses.asdict(cell), "metrics": metrics, "provenance": provenance}
        text = json.dumps({**body, "sha256": _checksum(body)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise UserError(f"record {path} cannot be written: {error.strerror}; stored records are untouched") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return path

    def read(self, path: Path) -> dict:
        """A record, checked: form, checksum, and that it lies under its cell's digest.  UserError in one line."""
        try:
            record = json.loads(path.read_text())
            stated = record.pop("sha256")
            if stated != _checksum(record):
                raise ValueError("its checksum does not match its content")
            if path.stem != digest_of(record["cell"]) or path.parent.name != record["cell"]["table"]:
                raise ValueError("it does not lie where its cell belongs")
            accuracies = [record["metrics"]["clean"], *record["metrics"]["perturbed"]]
            if not all(0 <= a <= 100 for a in accuracies) or len(accuracies) != record["cell"]["patterns"] + 1:
                raise ValueError("its accuracies are incomplete or out of range")
            record["provenance"]["commit"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise UserError(f"record {path} is damaged: {reason}") from None
        return record

    def records(self, table: str | None = None) -> list[dict]:
        """All records (of one table), in the order of their digests."""
        return [self.read(path) for path in sorted(self.root.glob(f"{table or '*'}/*.json"))]


def _checksum(body: dict) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def device_name(device: torch.device) -> str:
    """What computes, for provenance: the GPU's name, or the CPU's model name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def _code() -> dict:
    """Commit and state of the computing code, as it was when this process began to measure."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "nflib")
    except OSError:
        commit = changes = None
    return {"commit": commit or "unknown", "dirty": None if changes is None else bool(changes)}


def provenance(device: torch.device, **more: object) -> dict:
    """Where a number comes from: code, versions, hardware, precision, and the digests given."""
    return {
        **_code(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision(device),
        **more,
    }


# ----------------------------------------------------------------------------------------------------------- runner


def choose_device(name: str) -> torch.device:
    """The device of a name: "auto" (a GPU if there is one), "cpu" or "cuda"."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; allowed: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not there; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@functools.lru_cache(maxsize=2)
def _dataset(name: str, device: torch.device) -> data.Dataset:
    whole = data.load(name)
    moved = {split: getattr(whole, split).to(device) for split in ("train", "validation", "test")}
    return dataclasses.replace(whole, **moved)


def _trained(key: str, build: Callable[[], torch.nn.Module], train: Callable, device: torch.device):
    """A trained model: from its checkpoint, or built, trained and stored.  Returns (model, training facts, file's sha256)."""
    path = checkpoints() / f"{key}.safetensors"
    model = build().to(device)
    if not path.exists():
        facts = train(model, checkpoints() / f"{key}.resume.pt")
        part = path.with_suffix(f".{os.getpid()}.part")
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(state, part, {"facts": json.dumps(facts | {"provenance": provenance(device)})})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            raise UserError(f"checkpoint {path} cannot be written: {error}") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except (SafetensorError, OSError, TypeError, KeyError, ValueError, RuntimeError):
        raise UserError(f"checkpoint {path} is damaged; delete it to train again") from None
    return model, facts, hashlib.sha256(path.read_bytes()).hexdigest()


def base_model(base: Base, device: torch.device, deadline: float | None = None) -> tuple[Quantized, dict, str]:
    """The trained, frozen, quantised base model; its training facts; its checkpoint's digest.  Trains it if need be."""
    dataset = _dataset(base.dataset, device)
    words = f"{data.LABELS.get(base.dataset, base.dataset)} {models.LABELS[base.model]} ({base.recipe.name}): base model"

    def build() -> torch.nn.Module:
        relu = not (base.recipe.name == "release" and dataset.image_size == 224 and base.model == "resnet18")
        return models.build(base.model, dataset.classes, dataset.image_size, base.width, base.recipe.seed, relu)

    def train(model: torch.nn.Module, resume: Path) -> dict:
        return train_base(model, dataset.train, dataset.augmentation, base.recipe, resume, words, deadline)

    model, facts, digest = _trained(f"base-{digest_of(base)}", build, train, device)
    return Quantized(model.to(memory_format=torch.channels_last), base.recipe.bits), facts, digest


def generator_key(cell: Cell) -> str:
    """Checkpoint name of a cell's generator: it depends on the recipe and on what the generator is trained on."""
    trained_on = [dataclasses.asdict(base) for base in cell.trained_on]
    return f"generator-{digest_of({'generator': dataclasses.asdict(cell.generator), 'on': trained_on})}"


def generator_model(cell: Cell, device: torch.device, deadline: float | None = None):
    """The trained, quantised generator of a cell; its training facts; its checkpoint's digest.  Trains it if need be."""
    recipe, dataset = cell.generator, _dataset(cell.base.dataset, device)
    words = f"{cell.words}: generator"

    def build() -> torch.nn.Module:
        return generators.build(recipe.name, recipe.width, recipe.seed, dataset.image_size)

    def train(model: torch.nn.Module, resume: Path) -> dict:
        bases = [base_model(base, device, deadline)[0] for base in cell.trained_on]
        law = faults.error_model(recipe.law, recipe.rate)
        return train_generator(model, bases, dataset.train, dataset.augmentation, recipe, law, resume, words, deadline)

    model, facts, digest = _trained(generator_key(cell), build, train, device)
    return Quantized(model.to(memory_format=torch.channels_last), recipe.bits).model, facts, digest


def measure(cell: Cell, device: torch.device, deadline: float | None = None) -> tuple[dict, dict]:
    """Measure a cell; returns (metrics, provenance) for its record.

    Metrics: clean (CA, or CA(NF) with a generator) and perturbed (PA or PA(NF), one value a pattern), in per cent of the
    test images; changed_bits (share of stored bits that each pattern changed); seconds and training facts.
    """
    dataset = _dataset(cell.base.dataset, device)
    base, base_facts, base_digest = base_model(cell.base, device, deadline)
    generator, generator_facts, generator_digest = (
        generator_model(cell, device, deadline) if cell.generator else (None, None, None)
    )
    began = time.perf_counter()
    batches = evaluation.prepared(dataset.test.first(cell.images), generator)
    clean = evaluation.accuracy(base, batches)
    seeds = range(cell.first_seed, cell.first_seed + cell.patterns)
    with progress_bar(cell.patterns, f"{cell.words}: patterns", unit="pattern") as progress:
        law = faults.error_model(cell.law, cell.rate)
        accuracies, shares = evaluation.perturbed_accuracies(base, law, seeds, batches, progress.update)
    metrics = {
        "clean": clean,
        "perturbed": accuracies,
        "changed_bits": shares,
        "images": sum(len(labels) for _, labels in batches),
        "evaluation_seconds": time.perf_counter() - began,
        "base_training": base_facts,
        "generator_training": generator_facts,
    }
    digests = {"data": dataset.digest, "base": base_digest, "generator": generator_digest}
    return metrics, provenance(device, **digests)


@contextlib.contextmanager
def precision_of(profile: str):
    """Smoke cells are trained and measured in fp32 everywhere, so that machines can be compared."""
    forced = FORCED_PRECISION.set("fp32" if profile == "smoke" else None)
    try:
        yield
    finally:
        FORCED_PRECISION.reset(forced)


def measure_and_store(cell: Cell, store: Store, device: torch.device, deadline: float | None = None) -> dict:
    """Measure a cell and write its record; returns the metrics."""
    with precision_of(store.profile):
        metrics, origin = measure(cell, device, deadline)
    command = f"nflib sweep {cell.table} --profile {store.profile} --only digest={cell.digest}"
    store.write(cell, metrics, origin | {"command": command})
    return metrics


@functools.cache
def _macs(kind: str, name: str, width: float, size: int) -> int:
    model = models.build(name, 10, size, width) if kind == "base" else generators.build(name, width, image_size=size)
    return energy.macs(model, size)


@functools.cache
def work(cell: Cell) -> dict[str, float]:
    """Multiply-accumulates that a cell needs: of training, by checkpoint name, and of "evaluation"."""
    train, test = SIZES.get(cell.base.dataset, (10000, 1000))
    size = 224 if "imagen" in cell.base.dataset else 32
    parts = {}
    for base in {cell.base, *(cell.trained_on if cell.generator else ())}:
        cost = 3 * base.recipe.epochs * train * _macs("base", base.model, base.width, size)
        parts[f"base-{digest_of(base)}"] = cost
    if cell.generator:
        recipe, on = cell.generator, cell.trained_on
        through = sum(2 * (recipe.models_per_step + 1) * _macs("base", b.model, b.width, size) for b in on)
        own = 3 * _macs("generator", recipe.name, recipe.width, size)
        parts[generator_key(cell)] = recipe.steps * min(recipe.batch, train) * (through + own)
    forward = _macs("base", cell.base.model, cell.base.width, size)
    parts["evaluation"] = (cell.patterns + 1) * (cell.images or test) * forward
    return parts


@dataclass
class Clock:
    """Expected seconds of cells on a device: speeds (MACs a second) learnt from the records made on the same hardware."""

    store: Store
    device: torch.device
    speeds: list[float] = field(default_factory=list)

    def __post_init__(self):
        name = device_name(self.device)
        for record in self.store.records():
            if record["provenance"]["device"] == name:
                self.learn(cell_of(record["cell"]), record["metrics"])

    def learn(self, cell: Cell, metrics: dict) -> None:
        parts = work(cell)
        training = [v for k, v in parts.items() if k != "evaluation"]
        seconds = metrics["evaluation_seconds"]
        facts = [metrics["base_training"], metrics["generator_training"]]
        total = seconds + sum(f["seconds"] for f in facts if f)
        self.speeds.append((parts["evaluation"] + sum(training)) / max(total, 1e-3))

    def seconds(self, cell: Cell, planned: set[str] = frozenset()) -> float:
        """Seconds that a cell needs; parts with a checkpoint, or among `planned`, cost nothing."""
        speed = float(np.median(self.speeds)) if self.speeds else DEFAULT_SPEED[self.device.type]
        needed = 0.0
        for key, macs in work(cell).items():
            if key == "evaluation" or (key not in planned and not (checkpoints() / f"{key}.safetensors").exists()):
                needed += macs
        return needed / speed

    def total(self, cells: Iterable[Cell]) -> float:
        planned: set[str] = set()
        total = 0.0
        for cell in cells:
            total += self.seconds(cell, planned)
            planned |= work(cell).keys()
        return total


def cell_of(plain: dict) -> Cell:
    """The Cell behind a record's plain form."""

    def base(value: dict) -> Base:
        return Base(**{**value, "recipe": BaseRecipe(**value["recipe"])})

    generator = GeneratorRecipe(**plain["generator"]) if plain["generator"] else None
    surrogates = tuple(base(value) for value in plain["surrogates"])
    return Cell(**{**plain, "base": base(plain["base"]), "generator": generator, "surrogates": surrogates})


def duration(seconds: float) -> str:
    """Seconds in words: "12 s", "7 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def pending(store: Store, cells: Iterable[Cell]) -> list[Cell]:
    """Cells without a record; a record that is there is checked, so that a damaged one stops the run before any work."""
    missing = []
    for cell in dict.fromkeys(cells):
        if store.has(cell):
            store.read(store.path(cell))
        else:
            missing.append(cell)
    return missing


def run(
    cells: Iterable[Cell], profile: str, device: str = "auto", budget: float | None = None, quiet: bool = False
) -> int:
    """Measure the cells that have no record yet, cheapest first, each written as soon as it is measured.

    budget: seconds after which to stop (training is stored and taken up next time).  Returns the number still missing.
    """
    store, where = Store(profile), choose_device(device)
    missing = pending(store, cells)
    say = (lambda text: None) if quiet else (lambda text: tqdm.write(text, file=sys.stderr))
    if not missing:
        return 0
    clock, began = Clock(store, where), time.monotonic()
    left_out: list[Cell] = []
    single = len({cell.base.dataset for cell in missing}) == 1
    deadline = None if budget is None else began + budget
    say(f"nflib: {len(missing)} cells to measure on {device_name(where)}, about {duration(clock.total(missing))}")
    try:
        while missing:
            cell = min(missing, key=clock.seconds)
            try:
                _dataset(cell.base.dataset, where)
            except UserError as error:
                if single:
                    raise
                say(f"nflib: {error}; its cells are left out")
                left_out += [c for c in missing if c.base.dataset == cell.base.dataset]
                missing = [c for c in missing if c.base.dataset != cell.base.dataset]
                continue
            say(f"nflib: {cell.words} (about {duration(clock.seconds(cell))}; {len(missing)} to go)")
            clock.learn(cell, measure_and_store(cell, store, where, deadline))
            missing.remove(cell)
            if deadline is not None and missing and time.monotonic() > deadline:
                raise OutOfTime
    except OutOfTime:
        say(f"nflib: budget spent; {len(missing) + len(left_out)} cells are missing, run the same command again to go on")
    else:
        say(f"nflib: done in {duration(time.monotonic() - began)}; records lie in {store.root}")
    return len(missing) + len(left_out)
