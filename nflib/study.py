"""The runner: measures the cells that have no record yet, cheapest first, and knows about how long they take."""

import dataclasses
import functools
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from nflib import damage, data, energy, faults, generators, models
from nflib.cells import Cell, cell_of, digest_of
from nflib.measures import measure
from nflib.names import UserError
from nflib.store import Store, check_writable, device_name
from nflib.trained import checkpoints, choose_device, dataset_on, generator_key, keep_freed_memory, precision_of
from nflib.training import OutOfTime

SIZES = {"digits": (1294, 360), "cifar10": (47500, 10000), "cifar100": (47500, 10000), "gtsrb": (24140, 12630)}
LATENCY_SECONDS = 90.0  # of a latency cell, most of it compiling
DEFAULT_SPEED = {"cpu": 4e10, "cuda": 2e13}  # multiply-accumulates a second, until records say better


def measure_and_store(cell: Cell, store: Store, device: torch.device, deadline: float | None = None) -> dict:
    """Measure a cell and write its record; returns the metrics.  A record that another run, or a worker that was lost
    before it could report, wrote meanwhile counts."""
    if store.has(cell):
        return store.read(store.path(cell))["metrics"]
    with precision_of(store.profile):
        metrics, origin, arrays = measure(cell, device, deadline)
    if store.has(cell):
        return store.read(store.path(cell))["metrics"]
    command = f"nflib sweep --profile {store.profile} --only digest={cell.digest}"
    store.write(cell, metrics, origin | {"command": command}, arrays)
    return metrics


def network(kind: str, name: str, width: float, size: int) -> torch.nn.Module:
    """An untrained "base" model of ten classes or "generator" for images of `size` pixels, to count what it needs."""
    return models.build(name, 10, size, width) if kind == "base" else generators.build(name, width, image_size=size)


@functools.cache
def macs(kind: str, name: str, width: float, size: int) -> int:
    """Multiply-accumulates of one image of `size` pixels, of a "base" model or a "generator"."""
    if name in generators.CONTROLS:
        return 0
    return energy.macs(network(kind, name, width, size), size)


@functools.cache
def work(cell: Cell) -> dict[str, float]:
    """Multiply-accumulates that a cell needs: of training, by checkpoint name, and of "evaluation"."""
    train, test = SIZES.get(cell.base.dataset, (10000, 1000))
    size = data.image_size(cell.base.dataset)
    if cell.table == "overhead":
        return {}
    parts = {}
    for base in {cell.base, *(cell.trained_on if cell.generator else ()), *((cell.teller,) if cell.teller else ())}:
        passes = 3 * (2 if base.recipe.bit_errors or base.recipe.weight_perturbation else 1)  # forward and back
        parts[f"base-{digest_of(base)}"] = passes * base.recipe.epochs * train * macs("base", base.model, base.width, size)
    if cell.generator:
        recipe, on = cell.generator, cell.trained_on
        through = sum(2 * (recipe.models_per_step + 1) * macs("base", b.model, b.width, size) for b in on)
        own, images = 3 * macs("generator", recipe.name, recipe.width, size), min(recipe.batch, train)
        parts[generator_key(cell)] = images * recipe.steps * (through + own)
        if recipe.teacher and recipe.steps:  # the imitation alone has a checkpoint of its own, and so has what it imitates
            parts |= work(dataclasses.replace(cell, generator=dataclasses.replace(recipe, steps=0)))
        elif recipe.teacher:
            parts[generator_key(cell)] = images * recipe.imitation_steps * own
            parts |= work(dataclasses.replace(cell, generator=recipe.teacher))
    forward = macs("base", cell.base.model, cell.base.width, size)
    passes = cell.patterns + 1
    if cell.table == "damage":  # clean, each layer hit alone, all of them hit; then models with cut weights
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
        if cell.surrogates or not (parts := work(cell)):  # a record does not say how long surrogates took
            return
        training = [v for k, v in parts.items() if k != "evaluation"]
        seconds = metrics["evaluation_seconds"]
        facts = [metrics["base_training"], metrics["generator_training"], metrics.get("teller_training")]
        facts.append((metrics["generator_training"] or {}).get("teacher"))
        here = device_name(self.device)
        if any(f and f.get("provenance", {}).get("device", here) != here for f in facts):
            return  # trained on other hardware
        total = seconds + sum(f["seconds"] for f in facts if f)
        self.speeds.append((parts["evaluation"] + sum(training)) / max(total, 1e-3))

    def seconds(self, cell: Cell, planned: set[str] = frozenset()) -> float:
        """Seconds that a cell needs; parts with a checkpoint, or among `planned`, cost nothing."""
        speed = float(np.median(self.speeds)) if self.speeds else DEFAULT_SPEED[self.device.type]
        needed = 0.0 if work(cell) else LATENCY_SECONDS * speed
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
            if "chip" in known and known["chip"] != faults.error_model(cell.law, cell.rate).digest:
                raise UserError(f"{cell.law} is no longer the map of record {store.path(cell)}; give it another name")
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
    keep_freed_memory()
    wanted = pending(store, cells)
    missing = [cell for cell in wanted if cell.on in ("", where.type)]
    left_out = [cell for cell in wanted if cell not in missing]  # latencies of another kind of device
    say = (lambda text: None) if quiet else (lambda text: tqdm.write(text, file=sys.stderr))
    if not missing:
        return len(left_out)
    for folder in (store.root, checkpoints()):
        check_writable(folder)
    clock, began = Clock(store, where), time.monotonic()
    single = len({cell.base.dataset for cell in missing}) == 1
    deadline = None if budget is None else began + budget
    say(f"nflib: {len(missing)} cells to measure on {device_name(where)}, about {duration(clock.total(missing))}")
    try:
        while missing:
            cell = min(missing, key=clock.seconds)
            try:
                if cell.table != "overhead":  # needs shapes only
                    dataset_on(cell.base.dataset, where)
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
