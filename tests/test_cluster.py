"""A Dask cluster of local processes: the same metrics as one process, also when a worker is lost."""

import dataclasses
import os
import signal
import threading
import time

import pytest

from nflib.study import cluster, runner
from nflib.study.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.names import UserError
from nflib.study.records import Store
from nflib.training import BaseRecipe

distributed = pytest.importorskip("dask.distributed")

BASE = Base("digits", "vgg11", BaseRecipe("release", epochs=1, batch=128, learning_rate=0.03), 0.0625)
RECIPE = GeneratorRecipe(
    "unet_s", "bit_flips", models_per_step=1, steps=3, batch=64, width=0.5, schedule="constant", momentum=0.1
)
CELLS = [
    Cell(BASE, generator, error_model="bit_flips", patterns=2, images=60, first_seed=seed)
    for generator in (None, RECIPE)
    for seed in (50000, 50002)
]


def measured() -> list[list[float]]:
    return [Store("smoke").read(Store("smoke").path(cell))["metrics"]["perturbed"] for cell in CELLS]


def lose_a_busy_worker(local, victims: list[int]) -> None:
    """Kill the first worker process that has a task in hand; its process number goes into `victims`."""
    while not (busy := [one.name for one in list(local.scheduler.workers.values()) if one.processing]):
        time.sleep(0.01)
    victims.append(local.workers[busy[0]].pid)
    os.kill(victims[0], signal.SIGKILL)


def test_cells_are_measured_once_each_although_a_worker_is_lost(workshop, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None) as local:
        victims = []
        killer = threading.Thread(target=lose_a_busy_worker, args=(local, victims), daemon=True)
        killer.start()
        assert cluster.run(CELLS, "smoke", "cpu", scheduler=local.scheduler_address) == 0
        killer.join(0)
        assert len(victims) == 1 and victims[0] not in [nanny.pid for nanny in local.workers.values()]
        here = measured()
        assert cluster.run(CELLS, "smoke", "cpu", scheduler="tcp://127.0.0.1:1") == 0  # nothing is left to do
    monkeypatch.setenv("NFLIB_RESULTS", str(workshop / "one process"))
    monkeypatch.setenv("NFLIB_CHECKPOINTS", str(workshop / "one process"))
    assert runner.run(CELLS, "smoke", "cpu") == 0
    for one, other in zip(here, measured()):
        assert one == pytest.approx(other, abs=4)  # threads differ, so rounding may


def test_latencies_of_another_device_are_left_out_and_counted_as_missing(workshop):
    cell = Cell(BASE, RECIPE, kind="latency", patterns=1, images=1, device="cuda")
    assert cluster.run([cell], "smoke", "cpu", scheduler="tcp://127.0.0.1:1") == 1 == runner.run([cell], "smoke", "cpu")


def test_what_a_generator_is_made_from_is_trained_before_it():
    """Teacher, imitation alone, the whole: each has a checkpoint of its own."""
    teacher = dataclasses.replace(RECIPE, name="class_wise", width=1.0)
    whole = dataclasses.replace(RECIPE, teacher=teacher, distillation_steps=4)
    stages = [cell.generator for cell in cluster._stages(dataclasses.replace(CELLS[2], generator=whole))]
    assert stages == [teacher, dataclasses.replace(whole, steps=0), whole]
    assert [cell.generator for cell in cluster._stages(CELLS[2])] == [RECIPE]


def test_a_scheduler_that_is_not_there_is_refused_in_one_line(workshop, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(UserError, match="cannot be reached"):
        cluster.run([dataclasses.replace(CELLS[0], patterns=1)], "smoke", "cpu", scheduler="tcp://127.0.0.1:1")
