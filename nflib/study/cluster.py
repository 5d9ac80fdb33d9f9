"""Cells handed to a Dask cluster: local worker processes, or any scheduler (Slurm, Kubernetes) that Dask can reach.

Workers see the same results and checkpoint folders.  Each base model, selector, teacher and generator is trained once, by
whichever worker gets it; a lost worker's task is done again elsewhere; records are written by the workers, whole or not at all.
"""

import dataclasses
import os
from collections.abc import Iterable

import torch

from nflib.names import UserError
from nflib.study import runner, trained
from nflib.study.cells import Base, Cell, digest_of
from nflib.study.records import Store
from nflib.training import progress_bar

RETRIES = 3
CONNECT_SECONDS = 20


def _prepare_base(base: Base, profile: str, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    trained.keep_freed_memory()
    with trained.arithmetic_of(profile):
        trained.base_model(base, trained.choose_device(device))


def _prepare_generator(cell: Cell, profile: str, device: str, threads: int, *bases: None) -> None:
    torch.set_num_threads(threads)
    trained.keep_freed_memory()
    with trained.arithmetic_of(profile):
        trained.generator_model(cell, trained.choose_device(device))


def _stages(cell: Cell) -> list[Cell]:
    """The cell with each generator that must be trained for its own, in order: teacher, distillation alone, the whole."""
    recipe = cell.generator
    before = [recipe.teacher] if recipe.teacher else []
    before += [dataclasses.replace(recipe, steps=0)] if recipe.teacher and recipe.steps else []
    return [dataclasses.replace(cell, generator=generator) for generator in (*before, recipe)]


def _measure(cell: Cell, profile: str, device: str, threads: int, *parts: None) -> None:
    torch.set_num_threads(threads)
    trained.keep_freed_memory()
    runner.measure_and_store(cell, Store(profile), trained.choose_device(device))


def run(
    cells: Iterable[Cell], profile: str, device: str = "auto", workers: int = 0, scheduler: str | None = None
) -> int:
    """Measure the cells that have no record, on `workers` local processes or the cluster behind `scheduler`.

    Returns the number still missing.  Raises UserError when Dask is not installed, the scheduler cannot be reached, or a
    cell failed; the others are finished first.
    """
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise UserError("dask.distributed is not installed; pip install 'dask[distributed]'") from None
    where = trained.choose_device(device)
    wanted = runner.pending(Store(profile), cells)
    missing = [cell for cell in wanted if cell.device in ("", where.type)]
    left_out = len(wanted) - len(missing)  # latencies of another kind of device
    if not missing:
        return left_out
    threads = max(1, (os.cpu_count() or 1) // workers) if workers else torch.get_num_threads()
    try:
        local = None if scheduler else LocalCluster(workers, threads_per_worker=1, dashboard_address=None)
        client = Client(scheduler or local, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise UserError(f"scheduler {scheduler!r} cannot be reached: {error}") from None
    failed = []
    with client:
        futures: dict = {}

        def future(key: str, function, *arguments):
            if key not in futures:
                futures[key] = client.submit(function, *arguments, key=f"nflib-{key}", retries=RETRIES)
            return futures[key]

        tasks = {}
        for cell in missing:
            trains = cell.kind != "latency"  # that needs shapes only
            bases = (cell.base, *(cell.trained_on if cell.generator else ()), *([cell.selector] if cell.selector else []))
            bases = dict.fromkeys(bases if trains else ())
            parts = [future(digest_of(base), _prepare_base, base, profile, device, threads) for base in bases]
            for stage in _stages(cell) if cell.generator and trains else ():
                key = trained.generator_key(stage)
                parts = [future(key, _prepare_generator, stage, profile, device, threads, *parts), *parts]
            task = client.submit(
                _measure, cell, profile, device, threads, *parts, key=f"nflib-cell-{cell.digest}", retries=RETRIES
            )
            tasks[task] = cell
        with progress_bar(len(tasks), f"cells on {len(client.scheduler_info()['workers'])} workers", unit="cell") as bar:
            for task in as_completed(tasks):
                if task.status != "finished":
                    failed.append(f"{tasks[task].words}: {task.exception()}")
                bar.update()
    if local:
        local.close()
    if failed:
        raise UserError(f"{len(failed)} cells failed, the first one {failed[0]}")
    return left_out
