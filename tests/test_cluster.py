"""A Dask cluster: the same metrics as one process, also when a worker is lost; what is not there is refused."""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from examples import TINY, changed, environment, fake, forkserver, own_folders, small_cells, without_gtsrb

from nflib.names import ROOT
from nflib.study import cluster, runner
from nflib.study.cells import Cell
from nflib.study.records import Store

dask, distributed = pytest.importorskip("dask"), pytest.importorskip("dask.distributed")

NOBODY = "tcp://127.0.0.1:1"


def metrics(cells: list[Cell]) -> list[dict]:
    return [Store("smoke").read(Store("smoke").path(cell))["metrics"] for cell in cells]


@pytest.fixture(scope="module")
def in_process():
    """The address of a scheduler whose one worker is a thread of this process, so that tests replace what it calls."""
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as local:
        yield local.scheduler_address


def lose_a_busy_worker(local, victims: list[int]) -> None:
    """Kill the first worker process that has a task in hand; its process number goes into `victims`."""
    while not (busy := [one.name for one in list(local.scheduler.workers.values()) if one.processing]):
        time.sleep(0.01)
    victims.append(local.workers[busy[0]].pid)
    os.kill(victims[0], signal.SIGKILL)


def test_cells_are_measured_once_each_although_a_worker_is_lost(workshop, monkeypatch):
    forkserver()
    cells = small_cells(workshop)
    cells.append(dataclasses.replace(cells[1], first_seed=50006))
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "env": environment()}
    method = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    with method, distributed.LocalCluster(n_workers=2, **options) as local:
        victims = []
        killer = threading.Thread(target=lose_a_busy_worker, args=(local, victims), daemon=True)
        killer.start()
        assert cluster.run(cells, "smoke", "cpu", scheduler=local.scheduler_address) == 0
        killer.join(0)
        assert len(victims) == 1 and victims[0] not in [nanny.pid for nanny in local.workers.values()]
    here = metrics(cells)
    assert cluster.run(cells, "smoke", "cpu", scheduler=NOBODY) == 0  # nothing is left to do
    own_folders(monkeypatch, workshop / "one process")
    assert runner.run(cells, "smoke", "cpu") == 0
    assert [one["perturbed"] for one in here] == [other["perturbed"] for other in metrics(cells)]


def serve(variables: dict[str, str], pipe) -> None:
    """In a process of its own: a scheduler with a worker, until somebody kills it."""
    os.environ |= variables
    with distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=":0") as local:
        pipe.send(local.scheduler_address)
        time.sleep(600)


def test_a_scheduler_that_is_lost_is_told_in_one_line(workshop, monkeypatch, refused):
    heard, handler = [], logging.Handler()
    handler.emit = heard.append
    logging.getLogger("distributed.client").addHandler(handler)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    (here, there), cells = multiprocessing.Pipe(), small_cells(workshop, epochs=2000)
    scheduler = forkserver().Process(target=serve, args=(environment(), there))
    scheduler.start()

    def kill_when_busy() -> None:
        while not list((workshop / "checkpoints").glob("*.lock")):
            time.sleep(0.05)
        scheduler.kill()

    threading.Thread(target=kill_when_busy, daemon=True).start()
    with refused("the scheduler was lost; 2 cells"):
        cluster.run(cells, "smoke", "cpu", scheduler=here.recv())
    assert not heard


def test_ctrl_c_ends_a_sweep_on_workers_in_one_line_and_leaves_nothing(workshop):
    """As a terminal sends it, to every process of the group, in the middle of a training."""
    command = [sys.executable, "-m", "nflib.cli", "sweep", "error_models", "--workers", "2"]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), "start_new_session": True}
    sweep = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, **heard)
    while sweep.poll() is None and not list((workshop / "checkpoints").glob("*.lock")):
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGINT)
    told = sweep.communicate(timeout=100)[1]
    assert sweep.returncode == 130 and "Traceback" not in told and told.splitlines()[-1].startswith("nflib: stopped")
    assert not [path for path in workshop.rglob("*") if path.is_file() and path.suffix not in (".lock", ".pt")]
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(sweep.pid, 0)
            time.sleep(0.1)


def test_a_data_set_that_cannot_be_had_costs_its_own_cells_only(workshop, in_process, monkeypatch, capsys):
    without_gtsrb(monkeypatch)
    order = fake(monkeypatch)
    base = dataclasses.replace(TINY[0].base, dataset="gtsrb")
    lost = [dataclasses.replace(TINY[0], base=base, patterns=patterns) for patterns in (1, 2)]
    assert cluster.run(lost, "smoke", "cpu", scheduler=NOBODY) == 2  # no cluster is needed for nothing
    assert capsys.readouterr().err.count("no route to host") == 1
    monkeypatch.setattr(cluster.trained, "base_model", lambda *given, **more: None)
    monkeypatch.setattr(cluster.trained, "generator_model", lambda *given, **more: None)
    assert cluster.run([*lost, *TINY], "smoke", "cpu", scheduler=in_process) == 2 and set(order) == set(TINY)
    assert capsys.readouterr().err.count("no route to host") == 1


def test_a_training_that_diverges_is_stored_and_a_cell_that_fails_is_named(workshop, in_process, monkeypatch, refused):
    diverging = changed(small_cells(workshop)[0], weight_decay=1e4, epochs=9)
    assert cluster.run([diverging], "smoke", "cpu", scheduler=in_process) == 0
    assert "loss" in metrics([diverging])[0]["diverged"]
    monkeypatch.setattr(runner, "measure", lambda *given: 1 / 0)
    monkeypatch.setattr(cluster.trained, "base_model", lambda *given, **more: None)
    with refused(f"1 .*{TINY[0].base.recipe.name}.*zero"):
        cluster.run(TINY[:1], "smoke", "cpu", scheduler=in_process)


def test_latencies_of_another_device_are_left_out_and_counted_as_missing(workshop):
    cell = dataclasses.replace(TINY[1], kind="latency", patterns=1, images=1, device="cuda")
    assert cluster.run([cell], "smoke", "cpu", scheduler=NOBODY) == 1 == runner.run([cell], "smoke", "cpu")


def test_what_a_generator_is_made_from_is_trained_before_it():
    """Teacher, distillation alone, the whole: each has a checkpoint of its own."""
    recipe = TINY[1].generator
    teacher = dataclasses.replace(recipe, name="class_wise", width=1.0)
    whole = dataclasses.replace(recipe, teacher=teacher, distillation_steps=4)
    alone = dataclasses.replace(whole, steps=0)
    for made, stages in ((None, []), (recipe, [recipe]), (alone, [teacher, alone]), (whole, [teacher, alone, whole])):
        cell = dataclasses.replace(TINY[0], generator=made)
        assert [stage.generator for stage in cell.stages] == stages


def test_what_a_base_model_is_fine_tuned_from_is_trained_before_it():
    submitted = {}
    client = SimpleNamespace(submit=lambda _, subject, *rest, key, retries: submitted.update({subject: (key, rest)}) or key)
    tuned = changed(TINY[1], start=TINY[1].base.recipe)
    cluster._submit(client, tuned)
    (first, _), (_, needed) = submitted[TINY[1].base], submitted[tuned.base]
    assert first in needed


@pytest.mark.parametrize("address, words", [
    ("", "port"), ("login", "'login' .*port"), ("tcp://login", "port"), ("login:port", "port"), ("tcp://:8786", "port"),
    (NOBODY, f"{NOBODY}.* reached"), ("http://login:80", "reached.*http"), ("tls://127.0.0.1:1", "reached.*TLS"),
])  # fmt: skip
def test_a_scheduler_that_is_not_there_is_refused_in_one_line(address, words, workshop, monkeypatch, refused, capsys):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with refused(words):
        cluster.run(TINY[:1], "smoke", "cpu", scheduler=address)
    assert bool(capsys.readouterr().err) == ("reached" in words)  # what is waited for


def test_a_scheduler_without_workers_is_waited_for_and_refused_in_one_line(workshop, monkeypatch, refused, capsys):
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as local:
        with refused("has no worker"):
            cluster.run(TINY[:1], "smoke", "cpu", scheduler=local.scheduler_address)
        assert "worker" in capsys.readouterr().err


def test_there_are_as_many_local_workers_as_are_asked_for():
    with contextlib.ExitStack() as stack:
        assert len(cluster._client(stack, 1, None).nthreads()) == 1
