"""Cells handed to a Dask cluster: local worker processes, or any scheduler (Slurm, Kubernetes) that Dask can reach.

Workers see the same data, results and checkpoint folders, and write the records.  What several cells need is trained
once, by whichever worker gets it; a lost worker's task is done again elsewhere.
"""

import contextlib
import functools
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker

import torch

from nflib import data
from nflib.names import UserError
from nflib.study import runner, trained
from nflib.study.cells import Base, Cell, digest_of
from nflib.study.records import Store
from nflib.training import Diverged, progress_bar

CONNECT_SECONDS, WORKER_SECONDS = 20, 300  # a first worker may have to queue


def _work(subject: Base | Cell, measure: bool, profile: str, device: str, threads: int, *parts: None) -> None:
    """On a worker: train a base model or a cell's generator, or measure a cell, once its `parts` are trained."""
    torch.set_num_threads(threads)
    trained.keep_freed_memory()
    act = trained.base_model if isinstance(subject, Base) else trained.generator_model
    if measure:
        act = functools.partial(runner.measure_and_store, store=Store(profile))
    with trained.arithmetic_of(profile), contextlib.suppress(Diverged):  # which measuring meets again, and stores
        act(subject, device=trained.choose_device(device))


def _submit(client, cell: Cell, *settings: object):
    """Hand over a cell and what it needs, by keys that cells share; returns the cell's future."""
    bases, stages = ((), ()) if cell.device else (cell.bases, cell.stages)  # a latency needs shapes only
    submit = functools.partial(client.submit, _work, retries=3)
    made = {}  # futures, by base model
    for base in bases:
        made[base] = submit(base, False, *settings, *map(made.get, base.stages[:-1]), key=f"nflib-{digest_of(base)}")
    parts = list(made.values())
    for stage in stages:
        parts = [submit(stage, False, *settings, *parts, key=f"nflib-{trained.generator_key(stage)}"), *parts]
    return submit(cell, True, *settings, *parts, key=f"nflib-cell-{cell.digest}")


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the body is done: a cluster half started or half closed answers with tracebacks.
    Processes that are started in the body never hear Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # of what killed workers leave: it cleans up
    resource_tracker.ensure_running()  # which would let Ctrl-C through
    held: list[int] = []
    usual = {one: signal.signal(one, lambda number, frame: held.append(number)) for one in (signal.SIGINT, signal.SIGTERM)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for one, handler in usual.items():
            signal.signal(one, handler)
    if held:
        signal.raise_signal(held[0])


@contextlib.contextmanager
def _closed_undisturbed() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        try:
            yield stack
        finally:
            with signals_held():
                stack.close()


def _client(stack: contextlib.ExitStack, workers: int, scheduler: str | None):
    """A client of the scheduler or, without one, of as many local processes, until `stack` is closed."""
    from dask.distributed import Client, LocalCluster
    for chatty in ("distributed", "distributed.client"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)  # what goes wrong is said here, in one line
    if scheduler is None:
        options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
        with signals_held():
            return stack.enter_context(Client(stack.enter_context(LocalCluster(n_workers=workers, **options))))
    if not re.fullmatch(r"(\w+://)?[^/]+:\d{1,5}", scheduler):
        raise UserError(f"scheduler {scheduler!r} has no host and port, as tcp://login:8786 has")
    print(f"nflib: waiting for scheduler {scheduler}, {CONNECT_SECONDS} s at most", file=sys.stderr)
    try:
        return stack.enter_context(Client(scheduler, timeout=CONNECT_SECONDS))
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"scheduler {scheduler!r} cannot be reached: {error}") from None


def run(cells: Iterable[Cell], profile: str, device="auto", workers: int = 0, scheduler: str | None = None) -> int:
    """Measure the cells that have no record, on `workers` local processes or the cluster behind `scheduler`.

    Cells of a data set that cannot be had and latencies of other devices are left out.  Returns how many are missing.
    Raises UserError for no Dask, scheduler or worker, and for cells that failed, when the others are finished.
    """
    store, where, absent = Store(profile), trained.choose_device(device), set()
    runner.clear_up(store)
    missing = runner.pending(store, cells)
    for name in dict.fromkeys(cell.base.dataset for cell in missing if not cell.device):
        try:
            data.load(name)
        except UserError as error:
            print(f"nflib: {error}; its cells are left out", file=sys.stderr)
            absent.add(name)
    ready = [c for c in missing if c.device == where.type or not c.device and c.base.dataset not in absent]
    threads = max(1, torch.get_num_threads() // (workers or 1))
    if not ready:
        return len(missing)
    try:
        from dask.distributed import as_completed
    except ImportError:
        raise UserError("dask.distributed is not installed; pip install 'dask[distributed]'") from None
    runner.ready_folders(store)
    with _closed_undisturbed() as stack:
        client = _client(stack, workers, scheduler)
        futures = {_submit(client, cell, profile, device, threads): cell for cell in ready}
        if not client.nthreads():  # asked only now: some clusters start workers when there is work
            print(f"nflib: waiting for a worker of {scheduler}, {WORKER_SECONDS} s at most", file=sys.stderr)
            try:
                client.wait_for_workers(1, WORKER_SECONDS)
            except TimeoutError:
                raise UserError(f"scheduler {scheduler!r} has no worker after {WORKER_SECONDS} s") from None
        with progress_bar(len(ready), f"cells on {len(client.nthreads())} workers", unit="cell") as bar:
            for _ in as_completed(futures):
                bar.update()
        if failed := [one for one, cell in futures.items() if one.status != "finished" and not store.has(cell)]:
            if failed[0].status in ("cancelled", "lost"):
                raise UserError(f"the scheduler was lost; {len(failed)} cells are missing, run the same command again to go on")
            raise UserError(f"{len(failed)} cells failed, the first one {futures[failed[0]].words}: {failed[0].exception()}")
    return len([cell for cell in missing if not store.has(cell)])
