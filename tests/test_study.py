"""A cell fixes its number, a record keeps it whole or not at all, and a sweep ends the same however it gets there."""

import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nflib import data, grids, profiles, study
from nflib import store as store_module
from nflib.cells import Base, Cell, canonical, cell_of, digest_of, only, plain
from nflib.eopm import GeneratorRecipe
from nflib.names import PROFILES, UserError
from nflib.store import Store, device_name
from nflib.study import run
from nflib.trained import choose_device, dataset_on
from nflib.training import BaseRecipe

CPU = torch.device("cpu")
CELL = Cell("accuracy", Base("digits", "vgg11", BaseRecipe()), GeneratorRecipe(), (Base("cifar10", "vgg19", BaseRecipe()),))
DIGEST = "5ecbe62a29f68b87"
METRICS = {
    "clean": 91.25,
    "perturbed": [10.0 / 3, 40.0, 1e-05, 55.5, 66.625, 70.1, 12.5, 13.0, 14.0, 15.0],
    "changed_bits": [0.01] * 10,
    "evaluation_seconds": 2.5,
    "base_training": {"seconds": 1.5, "epochs": 300, "losses": [2.3, 0.1]},
    "generator_training": None,
}
PROVENANCE = {"commit": "0" * 40, "dirty": False, "device": "none", "threads": 1}

# Two cells that share a base model; small enough to train within a second.
BASE = Base("digits", "vgg11", BaseRecipe("modern", 2, 256, 0.1, weight_decay=5e-4, schedule="one_cycle"), width=0.0625)
GENERATOR = GeneratorRecipe("conv_s", models_per_step=1, steps=3, batch=64, momentum=0.1, initial_gain=0.1, width=0.125)
TINY = (
    Cell("accuracy", BASE, law="bit_flips", patterns=2, images=100),
    Cell("accuracy", BASE, GENERATOR, patterns=3, images=100),
)


@pytest.fixture
def store(workshop) -> Store:
    return Store("smoke")


@pytest.fixture
def stored(store) -> Path:
    return store.write(CELL, METRICS, PROVENANCE)


NEEDED = {
    "mitigation": {"table": "mitigation"},
    "hit": {"table": "sensitivity"},
    "shift": {"table": "shift"},
    "adversarial_flips": {"models_per_step": 1},
    "imitation_steps": {"teacher": dataclasses.replace(GENERATOR, steps=9)},
    "teacher": {"imitation_steps": 1},
    "teller": {"generator": dataclasses.replace(GENERATOR, name="class_patterns")},
}  # what a changed field cannot do without
EXAMPLES = {"mitigation": ["secded", "spare_sign"], "hit": ["bit 7", "bit 0", "layer 1", "generator too"], "shift": ["noise", "dark"]}  # of values with rules
EXAMPLES |= {"bit_errors": [0.01, 0.02]}
ABSENT = {"teacher": [GENERATOR, dataclasses.replace(GENERATOR, steps=7)], "teller": [BASE, dataclasses.replace(BASE, width=0.5)]}


def test_a_profiled_chip_is_measured_once_however_many_rates_are_asked():
    cells = grids.accuracy("smoke", "digits", "vgg11", "release", ["conv_s"], ["chip_map:a.npz", "stuck_at"], [0.02, 0.01], 3)
    assert [(cell.law, cell.rate) for cell in cells if cell.generator is None] == [("chip_map:a.npz", 0.02), ("stuck_at", 0.02), ("stuck_at", 0.01)]
    assert len(cells) == 6


def test_a_profiled_chip_has_no_voltages(refused):
    with refused("'chip_map:a.npz': a profiled chip has one map, at one voltage"):
        grids.tradeoff("smoke", "digits", ("vgg11",), "release", (), (), ("none",), (), ("chip_map:a.npz",), 0.01, (0.01, 0.001), 3)


def variants(value: object) -> list:
    """The same dataclass with each of its fields, and each field within them, changed."""
    found = []
    for field in dataclasses.fields(value):
        old = getattr(value, field.name)
        if dataclasses.is_dataclass(old):
            news = variants(old)
        elif field.name in EXAMPLES:
            news = EXAMPLES[field.name]
        elif isinstance(old, str):
            news = [old + "x"]
        elif isinstance(old, tuple):
            news = [(), old + old, *((new,) for new in variants(old[0]))]
        elif old is None:
            news = ABSENT[field.name]
        else:
            news = [old + (4 if field.name == "bits" and not old else 1)]
        needed = NEEDED.get(field.name, {})
        found += [dataclasses.replace(value, **{field.name: new}, **needed) for new in news]
    return found


def facts(metrics: dict) -> dict:
    """Metrics without what differs between two runs: seconds, and where training took place."""
    kept = {name: metrics[name] for name in ("clean", "perturbed", "changed_bits", "images")}
    losses = [metrics[part] and metrics[part]["losses"] for part in ("base_training", "generator_training")]
    return kept | {"losses": losses}


def measured(cells=TINY) -> list[dict]:
    store = Store("smoke")
    return [facts(store.read(store.path(cell))["metrics"]) for cell in cells]


def fake(monkeypatch, after=lambda cell: None) -> list[Cell]:
    """Replace measuring by something instant; returns the cells measured, in order, as they come."""
    order = []

    def measure(cell, device, deadline=None):
        after(cell)
        order.append(cell)
        metrics = METRICS | {"perturbed": [50.0] * cell.patterns, "changed_bits": [0.01] * cell.patterns}
        return metrics, PROVENANCE | {"device": device_name(device)}, None

    monkeypatch.setattr(study, "measure", measure)
    return order


# --------------------------------------------------------------------------------------------------------------- cells


def test_the_digest_is_pinned():
    """If it changes, no stored record and no checkpoint is found again."""
    assert CELL.digest == DIGEST


def test_the_digest_changes_with_every_field():
    digests = [CELL.digest, *(cell.digest for cell in variants(CELL))]
    assert len(digests) > 40 and len(set(digests)) == len(digests)
    assert dataclasses.replace(CELL, generator=None).digest not in digests


def test_a_teller_goes_with_class_patterns_only(refused):
    for generator in (None, GENERATOR):
        with refused("a teller goes with class patterns only"):
            dataclasses.replace(CELL, generator=generator, teller=BASE)


def test_a_stored_cell_with_teacher_and_teller_is_read_back_the_same():
    told = dataclasses.replace(GENERATOR, name="class_patterns")
    for change in ({"generator": dataclasses.replace(GENERATOR, imitation_steps=2, teacher=told)}, {"generator": told, "teller": BASE}):
        cell = dataclasses.replace(CELL, **change)
        assert cell_of(json.loads(json.dumps(plain(cell)))) == cell


def test_the_digest_does_not_depend_on_how_a_cell_came_about():
    again = Cell(**{field.name: getattr(CELL, field.name) for field in reversed(dataclasses.fields(Cell))})
    stored = dict(reversed(plain(CELL).items()))
    assert CELL.digest == again.digest == digest_of(stored) == digest_of(json.loads(json.dumps(stored)))


def test_equal_cells_have_equal_digests():
    one, other = (dataclasses.replace(CELL, rate=rate) for rate in (0, 0.0))
    assert one == other and one.digest == other.digest


def test_canonical_json_is_sorted_tight_and_finite():
    assert canonical({"b": 1, "a": (1.5, None, True)}) == '{"a":[1.5,null,true],"b":1}'
    with pytest.raises(ValueError):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("profile", PROFILES)
def test_the_plain_form_of_a_cell_gives_the_cell_back(profile):
    for cell in (CELL, *TINY, *profiles.cells(profile, "accuracy")[::7]):
        assert cell_of(plain(cell)) == cell
        back = cell_of(json.loads(json.dumps(plain(cell))))
        assert back == cell and hash(back) == hash(cell) and back.digest == cell.digest


@pytest.mark.parametrize("profile", PROFILES)
def test_the_cells_of_a_profile_are_distinct(profile):
    cells = profiles.cells(profile, "accuracy")
    assert len(set(cells)) == len({cell.digest for cell in cells}) == len(cells) > 0
    assert len({cell.words + cell.digest for cell in cells}) == len(cells)


def test_unknown_profiles_and_tables_are_refused(refused):
    with refused("unknown profile 'smok'; did you mean 'smoke'"):
        profiles.cells("smok", "accuracy")
    with refused("unknown table 'acuracy'; did you mean 'accuracy'"):
        profiles.cells("smoke", "acuracy")


# ---------------------------------------------------------------------------------------------------------------- only


def test_only_keeps_the_cells_that_meet_every_condition():
    cells = profiles.cells("smoke", "accuracy")
    assert only(cells, []) == cells
    one = only(cells, ["model=vgg11", "law=bit_flips"])
    assert one == [cell for cell in cells if cell.base.model == "vgg11" and cell.law == "bit_flips"] != []
    either = [cell for cell in cells if cell.base.model in ("vgg11", "resnet18")]
    assert only(cells, ["model=vgg11,resnet18"]) == only(cells, ["model=vgg11", "model=resnet18"]) == either
    assert only(cells, [f"digest={cells[3].digest}"]) == [cells[3]]
    assert all(cell.generator is None for cell in only(cells, ["generator=none", "rate=0.01"]))
    assert only(iter(cells), ["dataset=digits"]) == cells


@pytest.mark.parametrize(
    "condition, words",
    [
        ("colour=red", "unknown key 'colour'; allowed: digest, kind, dataset, model"),
        ("model=vgg13", "no cell has model=vgg13; there are: resnet18, resnet50, vgg11, vgg16, vgg19"),
        ("model=vgg11,vgg13", "no cell has model=vgg13"),
        ("rate=1", "no cell has rate=1; there are: 0.01"),
        ("model", "'model' is not KEY=VALUE"),
        ("model=", "'model=' is not KEY=VALUE"),
        ("", "'' is not KEY=VALUE"),
    ],
)
def test_unknown_keys_and_values_are_refused(condition, words, refused):
    with refused(words):
        only(profiles.cells("smoke", "accuracy"), [condition])


def test_conditions_that_exclude_each_other_are_refused(refused):
    with refused("no cell has law=stuck_at; there are: "):
        only(profiles.cells("smoke", "accuracy"), ["generator=conv_l", "law=stuck_at"])


# ------------------------------------------------------------------------------------------------------------- records


def test_a_record_is_read_as_it_was_written(store):
    assert not store.has(CELL)
    path = store.write(CELL, METRICS, PROVENANCE)
    assert path == store.path(CELL) and path.name == f"{CELL.digest}.json" and path.parent.name == "accuracy"
    assert path.parent.parent.parent.name == "records" and store.has(CELL)
    record = store.read(path)
    assert record["metrics"] == METRICS and record["provenance"] == PROVENANCE
    assert cell_of(record["cell"]) == CELL
    assert store.records() == store.records("accuracy") == [record] and store.records("no such table") == []
    assert Store("paper").records() == []


def test_equal_records_are_equal_bytes(stored, tmp_path):
    other = Store("smoke", tmp_path / "elsewhere").write(
        CELL, dict(reversed(METRICS.items())), dict(reversed(PROVENANCE.items()))
    )
    assert other.read_bytes() == stored.read_bytes() and stored.read_bytes().endswith(b"}\n")


def test_every_change_of_a_byte_is_refused(store, stored, refused):
    """At 80 places: a bit flipped low and high, the byte lost, the rest lost.  What reads the same may differ in blanks."""
    content, whole = stored.read_bytes(), store.read(stored)
    accepted = 0
    for place in range(0, len(content), max(1, len(content) // 80)):
        before, byte, after = content[:place], content[place], content[place + 1 :]
        for changed in (before + bytes([byte ^ 1]) + after, before + bytes([byte ^ 128]) + after, before + after, before):
            stored.write_bytes(changed)
            try:
                record = store.read(stored)
            except UserError as refusal:
                assert str(refusal).startswith(f"record {stored} is damaged: ") and "\n" not in str(refusal)
            else:
                assert canonical(record) == canonical(whole)
                accepted += 1
    assert accepted < 40  # lost blanks only


def rewritten(stored: Path, change) -> None:
    """Change a record's content and put the checksum right, as somebody would who edits by hand."""
    body = json.loads(stored.read_text())
    del body["sha256"]
    change(body)
    stored.write_text(json.dumps({**body, "sha256": store_module._checksum(body)}))


EDITS = {
    "another cell": (lambda body: body["cell"].update(rate=0.02), "does not lie where its cell belongs"),
    "another table": (lambda body: body["cell"].update(table="transfer"), "does not lie where its cell belongs"),
    "a pattern lost": (lambda body: body["metrics"]["perturbed"].pop(), "accuracies are incomplete"),
    "an accuracy above 100": (lambda body: body["metrics"].update(clean=100.5), "accuracies are incomplete or out of range"),
    "no accuracies": (lambda body: body["metrics"].pop("perturbed"), "'perturbed' is missing"),
    "an accuracy in words": (lambda body: body["metrics"].update(clean="high"), "is damaged"),
    "no provenance": (lambda body: body.pop("provenance"), "'provenance' is missing"),
    "no commit": (lambda body: body["provenance"].pop("commit"), "'commit' is missing"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_record_that_cannot_be_right_is_refused_whatever_its_checksum(edit, store, stored, refused):
    change, words = EDITS[edit]
    rewritten(stored, change)
    with refused(words):
        store.read(stored)
    with refused(words):
        store.records()


@pytest.mark.parametrize("content", ["", "[]", "[1]", "null", "7", '"text"', "{}", '{"sha256": 1}', "{" * 50])
def test_what_is_no_record_is_refused(content, store, stored, refused):
    stored.write_text(content)
    with refused("is damaged"):
        store.read(stored)


def test_a_record_in_another_s_place_is_refused(store, stored, refused):
    other = stored.with_name("0" * 16 + ".json")
    stored.rename(other)
    with refused("does not lie where its cell belongs"):
        store.read(other)
    with refused("is damaged"):
        store.read(stored)  # it is not there any more


def test_nothing_is_overwritten(store, stored, refused):
    before = stored.read_bytes()
    with refused("is there already; delete it to measure again"):
        store.write(CELL, METRICS | {"clean": 1.0}, PROVENANCE)
    assert stored.read_bytes() == before and list(stored.parent.iterdir()) == [stored]


@pytest.mark.parametrize("metrics", [{"clean": float("nan")}, {"clean": float("inf")}, {"clean": torch.ones(1)}])
def test_what_json_cannot_hold_is_not_written(metrics, store):
    with pytest.raises((ValueError, TypeError)):
        store.write(CELL, METRICS | metrics, PROVENANCE)
    assert not store.has(CELL) and not list(store.root.rglob("*.*"))


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Overflowing:
    """A file that takes half of what is written, and then the disk is full."""

    def __init__(self, path, *options):
        self.file = open(path, *options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, text):
        self.file.write(text[: len(text) // 2])
        full()


@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
def test_a_full_disk_takes_one_line_and_leaves_what_was_there(where, store, stored, monkeypatch, refused):
    before, other = stored.read_bytes(), dataclasses.replace(CELL, rate=0.005)
    with monkeypatch.context() as patch:
        if where in ("open", "write"):
            patch.setattr(store_module, "open", full if where == "open" else Overflowing, raising=False)
        else:
            patch.setattr(store_module.os, where, full)
        with refused("cannot be written: No space left on device; stored records are untouched"):
            store.write(other, METRICS, PROVENANCE)
    assert list(stored.parent.iterdir()) == [stored] and stored.read_bytes() == before
    store.write(other, METRICS, PROVENANCE)
    assert len(store.records()) == 2


def test_a_results_folder_that_is_a_file_takes_one_line(tmp_path, refused):
    (tmp_path / "results").write_text("")
    with refused("cannot be written"):
        Store("smoke", tmp_path / "results").write(CELL, METRICS, PROVENANCE)


# -------------------------------------------------------------------------------------------------------------- runner


def test_unknown_and_absent_devices_are_refused(workshop, monkeypatch, refused):
    with refused("unknown device 'tpu'; allowed: auto, cpu, cuda"):
        run(TINY, "smoke", "tpu", quiet=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused("device 'cuda' is not there; use --device cpu"):
        run(TINY, "smoke", "cuda", quiet=True)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    assert not (workshop / "results").exists()


def test_cells_are_measured_stored_and_reproduced_from_nothing(workshop, monkeypatch, capsys):
    """Records that hold what the cells ask for; nothing is measured twice; other folders give the same metrics."""
    assert run(TINY, "smoke", "cpu") == 0
    first = measured()
    for cell, metrics in zip(TINY, first):
        assert len(metrics["perturbed"]) == len(metrics["changed_bits"]) == cell.patterns and metrics["images"] == 100
    records = {path: path.read_bytes() for path in (workshop / "results").rglob("*.*")}
    assert len(records) == 2 and len(list((workshop / "checkpoints").iterdir())) == 2
    origin = Store("smoke").read(Store("smoke").path(TINY[1]))["provenance"]
    assert origin["data"] == data.load("digits").digest and len(origin["base"]) == len(origin["generator"]) == 64
    assert {"commit", "dirty", "torch", "numpy", "python", "device", "threads", "precision"} <= origin.keys()
    assert origin["command"] == f"nflib sweep --profile smoke --only digest={TINY[1].digest}"
    assert not capsys.readouterr().out

    with monkeypatch.context() as patch:
        patch.setattr(study, "measure", None)  # calling it would fail
        assert run(TINY, "smoke", "cpu") == 0
    assert records == {path: path.read_bytes() for path in (workshop / "results").rglob("*.*")}

    for name in ("RESULTS", "CHECKPOINTS"):
        monkeypatch.setenv(f"NFLIB_{name}", str(workshop / "again" / name))
    assert run(reversed(TINY), "smoke", "cpu", quiet=True) == 0
    assert measured() == first


def test_an_interrupted_sweep_gives_the_metrics_of_an_uninterrupted_one(workshop, monkeypatch):
    """A budget of nothing: each call gets as far as the next step or cell, and the next one goes on from there."""
    assert run(TINY, "smoke", "cpu", quiet=True) == 0
    whole = measured()
    for name in ("RESULTS", "CHECKPOINTS"):
        monkeypatch.setenv(f"NFLIB_{name}", str(workshop / "again" / name))
    counts = []
    while not counts or counts[-1]:
        counts.append(run(TINY, "smoke", "cpu", budget=0.0, quiet=True))
        assert len(counts) < 20
    assert counts == sorted(counts, reverse=True) and len(counts) >= 5 * BASE.recipe.epochs + GENERATOR.steps
    assert measured() == whole
    assert {path.suffix for path in (workshop / "again").rglob("*.*")} == {".json", ".safetensors"}


def test_a_generator_learns_against_its_surrogates_and_not_the_base_it_is_measured_with(workshop):
    """Restricted access: a cell with a surrogate needs two base models and one generator."""
    other = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, seed=1))
    cell = dataclasses.replace(TINY[1], surrogates=(other,))
    assert TINY[1].trained_on == (BASE,) and cell.trained_on == (other,)
    assert run([cell], "smoke", "cpu", quiet=True) == 0
    names = {path.stem for path in (workshop / "checkpoints").iterdir()}
    assert {f"base-{digest_of(BASE)}", f"base-{digest_of(other)}"} < names and len(names) == 3
    assert names == study.work(cell).keys() - {"evaluation"}


def test_a_damaged_checkpoint_is_refused(workshop, refused):
    assert run(TINY[:1], "smoke", "cpu", quiet=True) == 0
    (path,) = (workshop / "checkpoints").iterdir()
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-10] ^= 1  # in a weight
    told = content.replace(b'\\"epochs\\": 2', b'\\"epochs\\": 3')  # in its training facts
    assert told != content
    for damaged in (content[: len(content) // 2], b"", b"no checkpoint at all", bytes(flipped), told):
        path.write_bytes(damaged)
        with refused("checkpoint .* is damaged; delete it to train again"):
            run(TINY, "smoke", "cpu", quiet=True)


def test_a_damaged_record_stops_the_run_before_any_work(store, monkeypatch, refused):
    order = fake(monkeypatch)
    path = store.write(CELL, METRICS, PROVENANCE)
    path.write_bytes(path.read_bytes().replace(b"91.25", b"91.75"))
    with refused("its checksum does not match its content"):
        run([*TINY, CELL], "smoke", "cpu", quiet=True)
    with refused("its checksum does not match its content"):
        run(TINY, "smoke", "cpu", quiet=True)  # though it is of another cell
    assert not order and not any(store.has(cell) for cell in TINY)


def test_cells_are_measured_once_each_cheapest_first(workshop, monkeypatch):
    order = fake(monkeypatch)
    cells = [dataclasses.replace(TINY[0], patterns=patterns) for patterns in (7, 2, 30, 1, 12)]
    assert run([*cells, *cells], "smoke", "cpu", quiet=True) == 0
    assert [cell.patterns for cell in order] == [1, 2, 7, 12, 30]


def test_a_budget_stops_between_cells_and_says_how_many_are_missing(workshop, monkeypatch, capsys):
    order = fake(monkeypatch)
    cells = [dataclasses.replace(TINY[0], patterns=patterns) for patterns in (1, 2, 3)]
    assert [run(cells, "smoke", "cpu", budget=0.0) for _ in range(3)] == [2, 1, 0] and len(order) == 3
    told = capsys.readouterr()
    assert "budget spent; 2 cells are missing" in told.err and not told.out


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


def test_a_data_set_that_cannot_be_had_costs_its_own_cells_only(workshop, monkeypatch, capsys):
    def unreachable():
        raise OSError("no route to host")

    monkeypatch.setitem(data.SOURCES, "gtsrb", [("torchvision", unreachable)])
    order = fake(monkeypatch)
    lost = dataclasses.replace(TINY[0], base=dataclasses.replace(BASE, dataset="gtsrb"), images=1)
    assert run([lost, *TINY], "smoke", "cpu") == 1 and set(order) == set(TINY)
    assert "no route to host" in capsys.readouterr().err


def test_expected_seconds_count_shared_training_once(workshop):
    clock = study.Clock(Store("smoke"), torch.device("cpu"))
    alone, more = TINY[0], dataclasses.replace(TINY[0], patterns=5)
    evaluation = study.work(more)["evaluation"] / study.DEFAULT_SPEED["cpu"]
    assert clock.total([alone, more]) == pytest.approx(clock.seconds(alone) + evaluation)
    assert study.work(more)["evaluation"] == 2 * study.work(alone)["evaluation"]  # 6 passes over the test images, and 3
    hit = dataclasses.replace(alone, base=dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, bit_errors=0.01)))
    usual, twice = (sum(macs for part, macs in study.work(cell).items() if part.startswith("base-")) for cell in (alone, hit))
    assert twice == 2 * usual > 0  # every step reads the codes with and without errors


def test_speed_is_not_learnt_from_what_was_trained_on_other_hardware(workshop):
    clock = study.Clock(Store("smoke"), torch.device("cpu"))
    training = {"seconds": 5.0, "provenance": {"device": clock_device()}}
    metrics = {"evaluation_seconds": 1.0, "base_training": training, "generator_training": None}
    clock.learn(TINY[0], metrics)
    assert len(clock.speeds) == 1
    clock.learn(TINY[0], metrics | {"base_training": training | {"provenance": {"device": "another"}}})
    assert len(clock.speeds) == 1


def clock_device() -> str:
    return study.device_name(torch.device("cpu"))


@pytest.mark.parametrize("seconds, words", [(12.4, "12 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (12240, "3.4 h")])
def test_durations_in_words(seconds, words):
    assert study.duration(seconds) == words


def own_data(workshop, seed: int) -> None:
    chance = np.random.default_rng(seed)
    images = [chance.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in (60, 10)]
    labels = [np.arange(count, dtype=np.uint8) % 3 for count in (60, 10)]
    (workshop / "data").mkdir(exist_ok=True)
    np.savez(workshop / "data" / "mine.npz", train_images=images[0], train_labels=labels[0], test_images=images[1], test_labels=labels[1])
    dataset_on.cache_clear()


def test_another_data_set_under_the_same_name_is_refused(workshop, refused):
    """Neither its stored records nor the base model that the old images trained are mixed with the new ones."""
    base = dataclasses.replace(BASE, dataset="mine", recipe=dataclasses.replace(BASE.recipe, epochs=1, batch=20))
    cells = [Cell("accuracy", base, patterns=1, rate=rate) for rate in (0.01, 0.02)]
    own_data(workshop, 0)
    assert run(cells[:1], "smoke", "cpu") == 0 == run(cells[:1], "smoke", "cpu")
    own_data(workshop, 1)
    with refused("data set 'mine' is no longer the one of record .*; give it another name"):
        run(cells[:1], "smoke", "cpu")
    with refused("was trained on another data set 'mine'"):
        run(cells[1:], "smoke", "cpu")


def test_another_chip_under_the_same_name_is_refused_and_a_record_says_which_it_was(workshop, refused):
    path, ones = workshop / "chip.npz", np.zeros((4, 16), bool)
    np.savez(path, stuck_at_0=ones, stuck_at_1=~ones)
    cell = Cell("accuracy", dataclasses.replace(BASE, recipe=BaseRecipe(epochs=0)), law=f"chip_map:{path}", patterns=1)
    assert run([cell], "smoke", "cpu") == 0
    assert Store("smoke").records()[0]["provenance"]["chip"] == hashlib.sha256(path.read_bytes()).hexdigest()
    np.savez(path, stuck_at_0=~ones, stuck_at_1=ones)
    with refused("chip.npz is no longer the map of record"):
        run([cell], "smoke", "cpu")


def test_a_record_that_another_run_wrote_meanwhile_counts(workshop, monkeypatch):
    """Two runs measure one cell: the second finds the first one's record when it has measured, and goes on."""
    cell, measure = Cell("accuracy", dataclasses.replace(BASE, recipe=BaseRecipe(epochs=0)), patterns=1), study.measure

    def overtaken(*given):
        monkeypatch.setattr(study, "measure", measure)
        study.measure_and_store(cell, Store("smoke"), CPU)
        return measure(*given)

    monkeypatch.setattr(study, "measure", overtaken)
    assert run([cell], "smoke", "cpu") == 0 and len(Store("smoke").records()) == 1


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(workshop, monkeypatch, refused):
    monkeypatch.setattr(study, "measure", lambda *given: pytest.fail("work was begun"))
    (workshop / "results").write_text("a file where the folder should be")
    with refused("cannot be written to"):
        run([Cell("accuracy", BASE, patterns=1)], "smoke", "cpu")


def test_a_copy_without_its_repository_says_its_commit_if_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(store_module, "ROOT", tmp_path)
    for stated, known in (("a" * 40, {"commit": "a" * 40, "dirty": False}), ("", {"commit": "unknown", "dirty": None})):
        monkeypatch.setenv("NFLIB_COMMIT", stated)
        store_module._code.cache_clear()
        assert store_module._code() == known
    store_module._code.cache_clear()


def test_at_full_size_generators_imitate_alone_unless_eq_3_is_what_is_asked_about():
    def lengths(recipe: GeneratorRecipe) -> tuple:
        return recipe.steps > 0, recipe.imitation_steps > 0, recipe.teacher is not None

    habit, both, plain_one = (grids.generator_recipe("paper", "conv_s", "bit_flips", 0.01, imitation) for imitation in (None, True, False))
    assert [lengths(recipe) for recipe in (habit, both, plain_one)] == [(False, True, True), (True, True, True), (True, False, False)]
    assert habit.teacher.name == "class_patterns" and habit.teacher.steps > 0 and habit.teacher.law == "bit_flips"
    assert lengths(grids.generator_recipe("paper", "universal", "bit_flips", 0.01)) == (True, False, False)
    varied = ("paper", "cifar10", ("vgg11",), "release", ("conv_s",), "release_map", 0.01, (1, 2), (0.1,), False, 2)
    asked = [cell.generator for cell in grids.ablations(*varied) if cell.generator]
    attacked = ("paper", "cifar10", "vgg11", "release", (10,), (), "release_map", (0.01,), 2)
    asked += [cell.generator for cell in grids.robust_training(*attacked) if cell.generator]
    assert len(asked) == 5 and all(lengths(recipe) == (True, False, False) for recipe in asked)
    assert lengths(grids.generator_recipe("smoke", "conv_s", "bit_flips", 0.01)) == (True, False, False)
