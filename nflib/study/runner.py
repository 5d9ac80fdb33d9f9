"""The runner: measures the cells that have no record yet, cheapest first, and knows about how long they take."""

import contextlib
import functools
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from nflib import adapters, damage, data, energy, faults, generators, models
from nflib.eopm import GeneratorRecipe
from nflib.files import sweep_parts
from nflib.names import UserError
from nflib.study.cells import Base, Cell, cell_of
from nflib.study.measures import chips_path, measure
from nflib.study.records import Store, check_writable, device_name
from nflib.study.trained import arithmetic_of, base_key, checkpoints, choose_device, dataset_on, file_of, generator_key, keep_freed_memory, locked, new_generator
from nflib.training import BaseRecipe, Diverged, OutOfTime

TRAINING_IMAGES = {"digits": 1294, "cifar10": 47500, "cifar100": 47500, "gtsrb": 37249}
TEST_IMAGES = {"digits": 360, "cifar10": 10000, "cifar100": 10000, "gtsrb": 12630}
LATENCY_SECONDS = 90.0  # of a latency cell, most of it compiling
DEFAULT_SPEED = {"cpu": 4e10, "cuda": 2e13}  # multiply-accumulates a second, until records say better


def measure_and_store(cell: Cell, store: Store, device: torch.device, deadline: float | None = None) -> dict:
    """Measure a cell and write its record; returns the metrics.  A record that another run, or a worker that was lost
    before it could report, wrote meanwhile counts."""
    if not store.has(cell):
        with arithmetic_of(store.profile):
            try:
                metrics, origin, arrays = measure(cell, device, deadline)
            except Diverged as error:
                metrics, origin, arrays = {"diverged": str(error)}, error.provenance, None
        if not store.has(cell):
            command = f"nflib sweep --profile {store.profile} --only digest={cell.digest}"
            store.write(cell, metrics, origin | {"command": command}, arrays)
        chips_path(cell).unlink(missing_ok=True)  # not before: the disk may be full
    return store.read(store.path(cell))["metrics"]


@functools.cache
def _macs(base: Base, recipe: GeneratorRecipe | None) -> int:
    size = data.image_size(base.dataset)
    model, count = models.build(base.model, 10, size, base.width), functools.partial(energy.macs, image_size=size)
    if recipe is None:
        return count(model)
    if recipe.name in generators.CONTROLS:
        return 0
    return adapters.added(count, model, new_generator(Cell(base, recipe), 10, size), recipe.place)


def macs(base: Base, recipe: GeneratorRecipe | None = None) -> int:
    """Multiply-accumulates of one image: of a base model, or of the generator or adapter of a recipe that is added to it."""
    untrained = Base(base.dataset, base.model, BaseRecipe(), base.width)  # counts do not hang on the training
    return _macs(untrained, GeneratorRecipe(recipe.name, width=recipe.width, place=recipe.place) if recipe else None)


@functools.cache
def work(cell: Cell) -> dict[str, float]:
    """Multiply-accumulates that a cell needs: of training, by checkpoint name, and of "evaluation"."""
    train, test = (sizes.get(cell.base.dataset, 10000) for sizes in (TRAINING_IMAGES, TEST_IMAGES))
    if cell.kind == "latency":
        return {}
    parts = {}
    for base in cell.bases:
        passes = 3 * (2 if base.recipe.bit_errors or base.recipe.weight_perturbation else 1)  # forward and back
        parts[base_key(base)] = passes * base.recipe.epochs * train * macs(base)
    for stage in cell.stages:
        recipe, own = stage.generator, 3 * macs(cell.base, stage.generator)
        models_an_image = 1 + (1 if recipe.split_batch else recipe.models_per_step)
        through = sum(2 * models_an_image * macs(b) for b in cell.trained_on)
        steps = recipe.steps * (through + own) if recipe.steps else recipe.distillation_steps * own
        parts[generator_key(stage)] = min(recipe.batch, train) * steps
    forward = macs(cell.base)
    passes = cell.patterns + 1
    if cell.kind == "damage":  # clean, each layer hit alone, all of them hit; then models with cut weights
        passes = 3 * cell.patterns + len(damage.CUTS) * passes
    parts["evaluation"] = passes * (cell.images or test) * forward
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
        if cell.surrogates or "diverged" in metrics or not (parts := work(cell)):
            return  # a record does not say how long surrogates took
        training = [v for k, v in parts.items() if k != "evaluation"]
        seconds = metrics["evaluation_seconds"]
        facts = [metrics["base_training"], metrics["generator_training"], metrics.get("selector_training")]
        facts += [(metrics["generator_training"] or {}).get("teacher"), (metrics["base_training"] or {}).get("start")]
        here = device_name(self.device)
        if any(f and f.get("provenance", {}).get("device", here) != here for f in facts):
            return  # trained on other hardware
        total = seconds + sum(f["seconds"] for f in facts if f)
        self.speeds.append((parts["evaluation"] + sum(training)) / max(total, 1e-3))

    def seconds(self, cell: Cell, planned: set[str] = frozenset()) -> float:
        """Seconds that a cell needs; trained models, and parts among `planned`, cost nothing."""
        if not (parts := work(cell)):
            return LATENCY_SECONDS
        speed = float(np.median(self.speeds)) if self.speeds else DEFAULT_SPEED[self.device.type]
        return sum(needed for key, needed in parts.items() if key not in planned and not file_of(key)) / speed

    def total(self, cells: Iterable[Cell]) -> float:
        planned: set[str] = set()
        total = 0.0
        for cell in cells:
            total += self.seconds(cell, planned)
            planned |= work(cell).keys() - {"evaluation"}
        return total


def duration(seconds: float) -> str:
    """Seconds in words: "12 s", "7 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def pending(store: Store, cells: Iterable[Cell]) -> list[Cell]:
    """Cells without a record; a record that is there is checked, so that a damaged one stops the run before any work, and so
    does one of a user's own data set that holds other images now."""
    missing = []
    for cell in dict.fromkeys(cells):
        if store.has(cell):
            known, name = store.read(store.path(cell))["provenance"], cell.base.dataset
            if "data" in known and name not in data.SOURCES and known["data"] != dataset_on(name, torch.device("cpu")).digest:
                raise UserError(f"data set {name!r} is no longer the one of record {store.path(cell)}; give it another name")
            if "chip" in known and known["chip"] != faults.named(cell.error_model, cell.rate).digest:
                raise UserError(f"{cell.error_model} is no longer the map of record {store.path(cell)}; give it another name")
        else:
            missing.append(cell)
    return missing


def clear_up(store: Store) -> None:
    """Remove what dead processes left, as far as this one may: parts, and states of trainings and measurements whose result
    is stored."""
    for folder in (store.root, checkpoints()):
        sweep_parts(folder)
    for state in (*checkpoints().glob("*.resume.pt"), *checkpoints().glob("*.chips.json")):
        key = state.name.partition(".")[0]
        if (checkpoints() / f"{key}.safetensors").exists() or any(store.root.glob(f"*/{key}.json")):
            with contextlib.suppress(OSError):
                state.unlink()


def ready_folders(store: Store) -> None:
    """Make sure that records and checkpoints can be written."""
    for folder in (store.root, *store.root.glob("*/"), checkpoints()):
        check_writable(folder)


def run(
    cells: Iterable[Cell], profile: str, device: str = "auto", budget: float | None = None, quiet: bool = False
) -> int:
    """Measure the cells that have no record yet, cheapest first, each written as soon as it is measured.

    budget: seconds after which to stop (training is stored and taken up next time).  A cell that another process is
    measuring is left to it.  Returns the number still missing.
    """
    store, where = Store(profile), choose_device(device)
    keep_freed_memory()
    clear_up(store)
    missing = pending(store, cells)
    say = (lambda text: None) if quiet else (lambda text: tqdm.write(f"nflib: {text}", file=sys.stderr))
    if not missing:
        return 0
    ready_folders(store)
    left_out = [cell for cell in missing if cell.device not in ("", where.type)]  # latencies of other devices
    missing = [cell for cell in missing if cell not in left_out]
    clock, began, refused = Clock(store, where), time.monotonic(), None
    deadline = None if budget is None else began + budget
    say(f"{len(missing)} cells to measure on {device_name(where)}, about {duration(clock.total(missing))}")
    try:
        while missing:
            if deadline is not None and time.monotonic() > deadline:
                raise OutOfTime
            cell = min(missing, key=clock.seconds)
            try:
                if cell.kind != "latency":  # needs shapes only
                    dataset_on(cell.base.dataset, where)
            except UserError as error:
                say(f"{error}; its cells are left out")
                refused, absent = error, [c for c in missing if c.base.dataset == cell.base.dataset]
                left_out, missing = left_out + absent, [c for c in missing if c not in absent]
                continue
            with locked(store.path(cell), wait=False) as mine:
                if not mine:
                    say(f"{cell.words}: another process measures it")
                    left_out.append(cell)
                else:
                    say(f"{cell.words} (about {duration(clock.seconds(cell))}; {len(missing)} to go)")
                    clock.learn(cell, measure_and_store(cell, store, where, deadline))
            missing.remove(cell)
    except OutOfTime:
        say(f"budget spent; {len(missing) + len(left_out)} cells are missing, run the same command again to go on")
    else:
        say(f"done in {duration(time.monotonic() - began)}; records lie in {store.root}")
    if refused and not store.records():
        raise refused
    return len([cell for cell in (*missing, *left_out) if not store.has(cell)])
