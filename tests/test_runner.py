"""A sweep ends the same however it gets there, does nothing twice, and loses nothing."""

import dataclasses
import hashlib
import itertools
import os
import random
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch

from examples import BASE, CELL, GENERATOR, METRICS, PROVENANCE, TINY, at_call, changed, environment, fake, forkserver
from examples import own_data, own_folders, small_cells, without_gtsrb
from nflib import data, training
from nflib.names import UserError
from nflib.study import measures, runner, trained
from nflib.study.cells import Cell, digest_of
from nflib.study.records import Store, device_name
from nflib.study.runner import run
from nflib.study.trained import choose_device
from nflib.study.weights import path_of

CPU = torch.device("cpu")


def facts(metrics: dict) -> dict:
    """Metrics without what differs between two runs: seconds, and where training took place."""
    kept = {name: metrics[name] for name in ("clean", "perturbed", "changed_bits", "images")}
    losses = [metrics[part] and metrics[part]["losses"] for part in ("base_training", "generator_training")]
    return kept | {"losses": losses}


def measured(cells=TINY) -> list[dict]:
    store = Store("smoke")
    return [facts(store.read(store.path(cell))["metrics"]) for cell in cells]


def test_unknown_and_absent_devices_are_refused(workshop, monkeypatch, refused):
    with refused("tpu"):
        run(TINY, "smoke", "tpu", quiet=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused("cuda"):
        run(TINY, "smoke", "cuda", quiet=True)
    assert choose_device("auto") == choose_device("cpu") == CPU and not (workshop / "results").exists()


def test_cells_are_measured_stored_and_reproduced_from_nothing(workshop, monkeypatch, capsys):
    """Records that hold what the cells ask for; nothing is measured twice; other folders give the same metrics."""
    assert run(TINY, "smoke", "cpu") == 0
    first = measured()
    for cell, metrics in zip(TINY, first):
        assert len(metrics["perturbed"]) == len(metrics["changed_bits"]) == cell.patterns and metrics["images"] == 100
    stored = {path: path.read_bytes() for path in (workshop / "results").rglob("*.*")}
    assert len(stored) == 2 and len(list((workshop / "checkpoints").iterdir())) == 2
    origin = Store("smoke").read(Store("smoke").path(TINY[1]))["provenance"]
    assert origin["data"] == data.load("digits").digest and len(origin["base"]) == len(origin["generator"]) == 64
    assert {"commit", "dirty", "sources", "torch", "numpy", "python", "device", "threads", "precision"} <= origin.keys()
    assert origin["command"] == f"nflib sweep --profile smoke --only digest={TINY[1].digest}"
    assert not capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(runner, "measure", None)  # calling it would fail
        assert run(TINY, "smoke", "cpu") == 0
    assert stored == {path: path.read_bytes() for path in (workshop / "results").rglob("*.*")}

    own_folders(monkeypatch, workshop / "again")
    assert run(reversed(TINY), "smoke", "cpu", quiet=True) == 0
    assert measured() == first


def test_an_interrupted_sweep_gives_the_metrics_of_an_uninterrupted_one(workshop, monkeypatch):
    """A budget of nearly nothing: each call gets as far as the next step or cell, and the next one goes on from there."""
    assert run(TINY, "smoke", "cpu", quiet=True) == 0
    whole = measured()
    own_folders(monkeypatch, workshop / "again")
    counts = []
    while not counts or counts[-1]:
        counts.append(run(TINY, "smoke", "cpu", budget=1e-3, quiet=True))
        assert len(counts) < 200
    assert counts == sorted(counts, reverse=True) and measured() == whole
    assert {path.suffix for path in (workshop / "again").rglob("*.*")} == {".json", ".safetensors"}


def at_every_step(replace) -> None:
    """Let training and evaluation store their state at every step, and records be the same bytes whenever they are made."""
    by_chip = measures._by_chip
    replace(training.Resumable.__init__, "__defaults__", (None, -1.0))
    replace(measures, "KEPT_SECONDS", -1.0)
    replace(measures, "_by_chip", lambda *given, **more: (*by_chip(*given, **more)[:2], 0.0))
    replace(time, "perf_counter", lambda: 0.0)


def stored(workshop) -> dict:
    """What lies in a workshop, every byte.  Locks may stay where their holder was killed, and are held by nobody."""
    paths = [path for name in ("results", "checkpoints") for path in (workshop / name).rglob("*") if path.is_file()]
    return {path.relative_to(workshop): path.read_bytes() for path in paths if path.suffix != ".lock"}


def sweep_and_die(cells: list[Cell], variables: dict[str, str], call: int) -> None:
    """In a process of its own: a sweep that is killed at one of the calls that write files."""
    os.environ |= variables
    sys.stderr = open(os.devnull, "w")
    at_every_step(setattr)
    at_call(call, lambda: os.kill(os.getpid(), signal.SIGKILL), setattr)
    run(cells, "smoke", "cpu", quiet=True)


def test_a_sweep_that_is_killed_twenty_times_ends_as_one_that_never_was(workshop):
    """At random moments, and at random calls that write: every byte of records and checkpoints is the same afterwards."""
    context, chance, kills, took = forkserver(), random.Random(0), 0, 0.0
    cells, whole = small_cells(workshop), {}
    while kills < 20 or stored(workshop):  # the last one ends
        call = chance.randrange(40) if whole and kills < 20 and kills % 2 else -1
        child, began = context.Process(target=sweep_and_die, args=(cells, environment(), call)), time.monotonic()
        child.start()
        child.join(chance.uniform(0.05, took) if whole and kills < 20 and call < 0 else None)
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        kills += child.exitcode != 0
        if child.exitcode == 0:
            whole, took = whole or stored(workshop), min(took or 1e9, time.monotonic() - began)  # the first waits for imports
            assert stored(workshop) == whole and {path.suffix for path in whole} == {".json", ".safetensors"}
            shutil.rmtree(workshop / "results")
            shutil.rmtree(workshop / "checkpoints")


def test_whichever_call_that_writes_fails_the_next_sweep_completes(workshop, monkeypatch):
    """A line is said or the sweep goes on; what is there is whole; in the end every byte is as if nothing had failed."""
    def fail():
        raise OSError(5, "Input/output error")

    cells = small_cells(workshop, 1)[:1]
    at_every_step(monkeypatch.setattr)
    assert run(cells, "smoke", "cpu", quiet=True) == 0
    whole = stored(workshop)
    for number in itertools.count():
        shutil.rmtree(workshop / "results")
        shutil.rmtree(workshop / "checkpoints")
        with monkeypatch.context() as patch:
            calls = at_call(number, fail, patch.setattr)
            try:
                run(cells, "smoke", "cpu", quiet=True)
            except (UserError, OSError) as error:  # which the command line tells in one line
                assert "Input/output error" in str(error) and "\n" not in str(error)
        there = stored(workshop)
        assert all(path.name.endswith(".resume.pt") or whole[path] == content for path, content in there.items())
        assert run(cells, "smoke", "cpu", quiet=True) == 0 and stored(workshop) == whole
        if next(calls) <= number:
            break
    assert number > 15


def test_evaluation_that_is_stopped_goes_on_with_the_chips_that_are_left(workshop, monkeypatch):
    cell = dataclasses.replace(TINY[0], patterns=13)
    assert run(TINY[:1], "smoke", "cpu", quiet=True) == 0  # trains the base model
    asked, real = [], measures.evaluation.perturbed_accuracies
    count = lambda base, error_model, seeds, *rest, **more: asked.append(len(seeds)) or real(base, error_model, seeds, *rest, **more)  # noqa: E731
    monkeypatch.setattr(measures.evaluation, "perturbed_accuracies", count)
    runs = [run([cell], "smoke", "cpu", budget=1e-6 if k else 1e-3, quiet=True) for k in range(9)]
    while runs[-1]:
        runs.append(run([cell], "smoke", "cpu", budget=0.02, quiet=True))
    assert sum(asked) == 13 and max(asked) == 5
    assert measured([cell])[0]["perturbed"][:2] == measured(TINY[:1])[0]["perturbed"]
    assert not list((workshop / "checkpoints").glob("*.json"))


def test_a_generator_learns_against_its_surrogates_and_not_the_base_it_is_measured_with(workshop):
    """Restricted access: a cell with a surrogate needs two base models and one generator."""
    other = changed(TINY[0], seed=1).base
    cell = dataclasses.replace(TINY[1], surrogates=(other,))
    assert TINY[1].trained_on == (BASE,) and cell.trained_on == (other,)
    assert run([cell], "smoke", "cpu", quiet=True) == 0
    names = {path.stem for path in (workshop / "checkpoints").iterdir()}
    assert {f"base-{digest_of(BASE)}", f"base-{digest_of(other)}"} < names and len(names) == 3
    assert names == runner.work(cell).keys() - {"evaluation"}


def test_a_damaged_record_is_named_and_the_rest_goes_on(workshop, monkeypatch, refused, capsys):
    order, store = fake(monkeypatch), Store("smoke")
    path = store.write(CELL, METRICS, PROVENANCE)
    path.write_bytes(path.read_bytes().replace(b"91.25", b"91.75"))
    assert run(TINY, "smoke", "cpu", quiet=True) == 0 and set(order) == set(TINY)
    assert str(path) in capsys.readouterr().err
    with refused("checksum"):
        run([CELL], "smoke", "cpu", quiet=True)  # asked for itself


def test_cells_are_measured_once_each_cheapest_first(workshop, monkeypatch):
    order = fake(monkeypatch)
    cells = [dataclasses.replace(TINY[0], patterns=patterns) for patterns in (7, 2, 30, 1, 12)]
    assert run([*cells, *cells], "smoke", "cpu", quiet=True) == 0
    assert [cell.patterns for cell in order] == [1, 2, 7, 12, 30]


def test_a_budget_stops_between_cells(workshop, monkeypatch, capsys):
    order = fake(monkeypatch)
    assert run(TINY, "smoke", "cpu", budget=0.0) == 2 and not order
    told = capsys.readouterr()
    assert "budget" in told.err and not told.out


def test_ctrl_c_leaves_the_records_made_so_far(workshop, monkeypatch):
    def interrupt(cell):
        if cell.patterns == 2:
            raise KeyboardInterrupt

    cells = [dataclasses.replace(TINY[0], patterns=patterns) for patterns in (1, 2, 3)]
    fake(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(cells, "smoke", "cpu", quiet=True)
    assert [Store("smoke").has(cell) for cell in cells] == [True, False, False]
    order = fake(monkeypatch)
    assert run(cells, "smoke", "cpu", quiet=True) == 0 and order == cells[1:]


def test_a_cell_that_another_process_measures_is_left_to_it(workshop, monkeypatch):
    order = fake(monkeypatch)
    with trained.locked(Store("smoke").path(TINY[0])):
        assert run(TINY, "smoke", "cpu", quiet=True) == 1 and order == [TINY[1]]
    assert run(TINY, "smoke", "cpu", quiet=True) == 0 and order == [TINY[1], TINY[0]]


def test_a_data_set_that_cannot_be_had_costs_its_own_cells_only(workshop, monkeypatch, capsys):
    without_gtsrb(monkeypatch)
    order = fake(monkeypatch)
    lost = dataclasses.replace(TINY[0], base=dataclasses.replace(BASE, dataset="gtsrb"), images=1)
    assert run([lost, *TINY], "smoke", "cpu") == 1 and set(order) == set(TINY)
    assert "no route to host" in capsys.readouterr().err


def test_expected_seconds_count_shared_training_once(workshop):
    clock = runner.Clock(Store("smoke"), CPU)
    alone, more = TINY[0], dataclasses.replace(TINY[0], patterns=5)
    evaluation = runner.work(more)["evaluation"] / runner.DEFAULT_SPEED["cpu"]
    assert clock.total([alone, more]) == pytest.approx(clock.seconds(alone) + evaluation)
    assert runner.work(more)["evaluation"] == 2 * runner.work(alone)["evaluation"]  # 6 passes over the images, and 3
    hit = changed(alone, bit_errors=0.01)
    usual, twice = (sum(v for k, v in runner.work(cell).items() if k.startswith("base-")) for cell in (alone, hit))
    assert twice == 2 * usual > 0  # every step reads the codes with and without errors
    for key in runner.work(alone).keys() - {"evaluation"}:  # published models need no training
        path_of(key).parent.mkdir(parents=True, exist_ok=True)
        path_of(key).touch()
    assert clock.seconds(alone) == pytest.approx(evaluation / 2)


def test_fine_tuning_starts_from_a_model_that_is_trained_once_and_counted(workshop, monkeypatch):
    tuned = changed(TINY[0], name="varied", start=BASE.recipe, tuned=(2,), epochs=1)
    usual, whole = runner.work(TINY[0]), runner.work(tuned)
    assert usual.items() < whole.items() and whole[trained.base_key(tuned.base)] == usual[trained.base_key(BASE)] / 2  # 1 epoch, of 2
    assert run([tuned], "smoke", "cpu", quiet=True) == 0
    monkeypatch.setattr(trained, "train_base", None)  # calling it would fail
    assert run(TINY[:1], "smoke", "cpu", quiet=True) == 0
    (start, facts, digest), (model, more, _) = (trained.base_model(base, CPU) for base in (BASE, tuned.base))
    assert more["start"] == {"sha256": digest, "seconds": facts["seconds"]}
    same = [torch.equal(model.codes[name], codes) for name, codes in start.codes.items()]
    assert same == [number != 2 for number in range(1, len(same) + 1)]
    clock = runner.Clock(Store("smoke"), CPU)
    clock.speeds.clear()
    metrics = {"evaluation_seconds": 0.0, "base_training": {"seconds": 1.0, "start": {"seconds": 3.0}}, "generator_training": None}
    clock.learn(tuned, metrics)
    assert clock.speeds == [pytest.approx(sum(whole.values()) / 4)]


def test_speed_is_not_learnt_from_what_was_trained_on_other_hardware(workshop):
    clock = runner.Clock(Store("smoke"), CPU)
    training = {"seconds": 5.0, "provenance": {"device": device_name(CPU)}}
    metrics = {"evaluation_seconds": 1.0, "base_training": training, "generator_training": None}
    clock.learn(TINY[0], metrics)
    clock.learn(TINY[0], metrics | {"base_training": training | {"provenance": {"device": "another"}}})
    assert len(clock.speeds) == 1


@pytest.mark.parametrize("seconds, words", [(12.4, "12 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (12240, "3.4 h")])
def test_durations_in_words(seconds, words):
    assert runner.duration(seconds) == words


def test_another_data_set_under_the_same_name_is_refused(workshop, refused):
    """Neither its stored records nor the base model that the old images trained are mixed with the new ones."""
    cell, _ = small_cells(workshop, 1)
    assert run([cell], "smoke", "cpu") == 0 == run([cell], "smoke", "cpu")
    own_data(workshop, 1)
    for asked in (cell, dataclasses.replace(cell, rate=0.02)):
        with refused("'mine'"):
            run([asked], "smoke", "cpu")


def test_another_chip_under_the_same_name_is_refused_and_a_record_says_which_it_was(workshop, refused):
    path, ones = workshop / "chip.npz", np.zeros((4, 16), bool)
    ones[0, 0] = True
    np.savez(path, stuck_at_0=ones, stuck_at_1=~ones)
    cell = dataclasses.replace(changed(TINY[0], epochs=0), error_model=f"chip_map:{path}", patterns=1)
    assert run([cell], "smoke", "cpu") == 0
    (record,) = Store("smoke").records()
    assert record["provenance"]["chip"] == hashlib.sha256(path.read_bytes()).hexdigest()
    np.savez(path, stuck_at_0=~ones, stuck_at_1=ones)
    with refused("chip.npz"):
        run([cell], "smoke", "cpu")


def test_a_record_that_another_run_wrote_meanwhile_counts(workshop, monkeypatch):
    """Two runs measure one cell: the second finds the first one's record when it has measured, and goes on."""
    cell, measure = dataclasses.replace(changed(TINY[0], epochs=0), patterns=1), runner.measure

    def overtaken(*given):
        monkeypatch.setattr(runner, "measure", measure)
        runner.measure_and_store(cell, Store("smoke"), CPU)
        return measure(*given)

    monkeypatch.setattr(runner, "measure", overtaken)
    assert run([cell], "smoke", "cpu") == 0 and len(Store("smoke").records()) == 1


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(workshop, monkeypatch, refused):
    monkeypatch.setattr(runner, "measure", lambda *given: pytest.fail("work was begun"))
    (workshop / "results").write_text("a file where the folder should be")
    with refused("cannot be"):
        run([dataclasses.replace(TINY[0], patterns=1)], "smoke", "cpu")


def test_what_dead_processes_left_goes_and_folders_are_looked_at_before_any_work(workshop, monkeypatch):
    """Parts, and states whose result is stored, also where nothing is left to do; states of what is not done stay."""
    store, places, asked = Store("smoke"), workshop / "checkpoints", []
    store.write(CELL, METRICS, PROVENANCE)
    gone = [places / "base-0.1.resume.pt", places / f"{CELL.digest}.chips.json", store.root / "accuracy" / "x.json.999999999.part"]
    kept = [places / "base-0.safetensors", places / "base-1.1.resume.pt", places / f"{TINY[1].digest}.chips.json"]
    places.mkdir()
    for path in (*gone, *kept):
        path.write_bytes(b"")
    assert run([CELL], "smoke", "cpu") == 0
    assert not any(path.exists() for path in gone) and all(path.exists() for path in kept)
    monkeypatch.setattr(runner, "check_writable", asked.append)
    runner.ready_folders(store)
    assert {store.root, store.root / "accuracy", places} == set(asked)


def test_a_generator_with_a_selector_is_measured_without_labels(workshop):
    told = dataclasses.replace(GENERATOR, name="class_wise", width=1.0)
    cell = Cell(BASE, told, patterns=1, images=50, selector=BASE)
    assert run([cell], "smoke", "cpu", quiet=True) == 0
    assert Store("smoke").records()[0]["metrics"]["selector_training"]["epochs"] == 2
