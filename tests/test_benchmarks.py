"""Benchmarks compare like with like: equal gradients, equal accuracies, the stated bit-error rate; and their page is honest."""

import itertools
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks import __main__ as bench
from benchmarks import clock, parts, rivals

from nflib import generators, models
from nflib.faults import error_model
from nflib.pages import performance
from nflib.quantize import Quantized
from nflib.training import FORCED_PRECISION

CPU = torch.device("cpu")
ORIGIN = {"device": "a processor", "threads": 2, "precision": "fp32", "torch": "2", "commit": "0123456789"}


def narrow(name: str = "vgg11", width: float = 0.125) -> torch.nn.Module:
    return models.build(name, width=width).eval()


# -------------------------------------------------------------------------------------------------- like with like


def test_the_official_loop_has_the_same_gradient_as_ours_and_its_log_line_changes_nothing():
    assert parts.difference(narrow(), "conv_s", 2, 0.25) < performance.SAME_GRADIENT
    textbook = parts.TextbookStep(narrow(), "conv_s", 4, 2, width=0.25)
    textbook.gradient(0, log=False)
    first = [p.grad.clone() for p in textbook.generator.parameters()]
    textbook.gradient(0, log=True)
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(first, textbook.generator.parameters()))
    textbook.gradient(1, log=False)
    assert not torch.allclose(first[0], next(textbook.generator.parameters()).grad, rtol=1e-2)


def test_a_step_moves_the_generator_and_not_the_base_model():
    for step in (parts.OurStep(narrow(), "conv_s", 4, 1, width=0.25), parts.TextbookStep(narrow(), "conv_s", 4, 1, width=0.25)):
        base = step.base.model if isinstance(step, parts.OurStep) else step.models.clean
        before = [[p.clone() for p in model.parameters()] for model in (step.generator, base)]
        step(1)
        moved = [any(not torch.equal(a, b) for a, b in zip(old, model.parameters()))
                 for old, model in zip(before, (step.generator, base))]  # fmt: skip
        assert moved == [True, False]


def test_both_evaluations_find_the_same_accuracies():
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 32, 32), generator=chance, dtype=torch.uint8)
    labels = torch.randint(0, 10, (20,), generator=chance)
    kinds = (parts.OurEvaluation, parts.OfficialEvaluation)
    made = [kind(narrow(), generators.build("conv_s", 0.25).eval(), images, labels, 2)(1) for kind in kinds]
    assert [len(values) for values in made[0].values()] == [1, 2, 1, 2]
    for key in made[0]:
        np.testing.assert_allclose(np.resize(made[0][key], 2), made[1][key], atol=5.01)  # one image of twenty


MRFI = pytest.mark.skipif(not rivals.has_mrfi(), reason="MRFI is not installed; `make bench` installs it")
INJECTORS = {  # name: (how to make it, share of bits that change on the way)
    "bit flips": (lambda model: rivals.Ours(model, error_model("bit_flips", 0.01)), 0.01),
    "stuck at": (lambda model: rivals.Ours(model, error_model("stuck_at", 0.01)), 0.005),
    "dense": (lambda model: rivals.Dense(model, 0.01), 0.01),
    "MRFI": (lambda model: rivals.Mrfi(model, 0.01, "RandomPositionByRate"), (1 - np.exp(-0.08)) / 8),
    "MRFI classic": (lambda model: rivals.Mrfi(model, 0.01, "RandomPositionByRate_classic"), 0.01),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=MRFI if "MRFI" in n else []) for n in INJECTORS])
def test_each_way_changes_the_share_of_bits_that_it_should(name):
    """Within five standard errors, another pattern for another seed, and undone."""
    make, share = INJECTORS[name]
    base, injector = Quantized(narrow("resnet18", 0.25)), make(narrow("resnet18", 0.25))
    whole = {layer: weight.clone() for layer, weight in injector.weights().items()}
    found = []
    for seed in (1, 2):
        injector.perturb(seed)
        found.append({layer: weight.clone() for layer, weight in injector.weights().items()})
        injector.undo()
    bits = 8 * sum(base.sizes.values())
    for weights in found:
        # A stuck cell changes half the bits only where ones and zeros are as many: codes near zero have correlated high bits.
        slack = 5 * np.sqrt(8 * share / bits)
        assert abs(rivals.changed_share(base, weights) - share) < slack
    assert any(not torch.equal(found[0][layer], found[1][layer]) for layer in whole)
    if "MRFI" not in name:
        assert all(torch.equal(whole[layer], weight) for layer, weight in injector.weights().items())


def test_the_official_path_reads_the_very_weights_of_our_release_map():
    ours = rivals.Ours(narrow("resnet18", 0.25), error_model("release_map", 0.01))
    official = rivals.Official(narrow("resnet18", 0.25), 0.01)
    for seed in (0, 50000):
        ours.perturb(seed), official.perturb(seed)
        for name, weight in ours.weights().items():
            assert torch.equal(weight, official.weights()[name])
        ours.undo()


# ------------------------------------------------------------------------------------------------------- the clock


def test_sides_take_turns_and_the_first_round_does_not_count():
    calls = []
    sides = {name: lambda number, name=name: calls.append((number, name)) for name in "ab"}
    found = clock.by_turns(sides, 4, 60, CPU)
    assert calls == [(number, name) for number in range(5) for name in "ab"]
    assert [len(seconds) for seconds in found.values()] == [4, 4]


@pytest.mark.parametrize(("budget", "rounds"), [(4.5, 3), (0.5, 1), (6.5, 5)])
def test_a_spent_budget_ends_after_three_rounds_or_one_that_takes_for_ever(budget, rounds, monkeypatch):
    seconds = itertools.count()  # of a clock that goes on by one each time a round begins
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: next(seconds), perf_counter=time.perf_counter))
    assert len(clock.by_turns({"a": lambda number: None}, 50, budget, CPU)["a"]) == rounds


def test_a_part_is_measured_and_stored_for_its_page(workshop, monkeypatch, capsys):
    """With calls that do nothing; the memory of each side is asked for in processes of their own, here a stand-in."""
    builders = {"ours": lambda: lambda number: None, "official way": lambda: lambda number: None}
    comparison = parts.Comparison("a task", builders, 3, 5, {}, lambda sides: {"largest_difference_in_images": 0})
    monkeypatch.setitem(bench.PARTS, "evaluation", lambda device: [comparison])
    monkeypatch.setattr(bench, "alone", lambda *words: {"imported_mb": 1, "peak_mb": 2})
    monkeypatch.setattr("sys.argv", ["benchmarks", "evaluation", "--one", "--device", "cpu", "--rounds", "3"])
    threads = torch.get_num_threads()
    try:
        assert bench.main() == 0
    finally:
        torch.set_num_threads(threads)
    assert "a task" in capsys.readouterr().out
    (row, _) = performance.frame(performance.stored(performance.kind(CPU))).itertuples()
    assert (row.part, row.side, row.rounds, row.peak_mb) == ("evaluation", "ours", 3, 2)
    assert [path.name for path in (workshop / "results" / "bench").iterdir()] == [performance.path("evaluation", performance.kind(CPU)).name]


# -------------------------------------------------------------------------------------------------------- the page


def record(part: str, comparisons: list[dict], **more) -> dict:
    return {"version": 1, "part": part, "comparisons": comparisons, "provenance": ORIGIN, **more}


def injection(mrfi: float = 0.025, dense: float = 0.2) -> dict:
    seconds = {"ours, BitFlips": [0.01, 0.01, 0.01], "ours, ReleaseMap": [0.02, 0.02, 0.02], "dense sampling": [dense] * 3}
    seconds |= {"official path": [0.1, 0.2, 0.3], "MRFI": [mrfi] * 3}
    comparison = {"name": "one error pattern", "work": {"model": "ResNet18", "rate": 0.01, "bits": 89314816}, "seconds": seconds}
    comparison["changed_bits"] = {name: 0.0096 if name == "MRFI" else 0.01 for name in seconds}
    stages = [{"law": "bit_flips", "rate": rate, "draw": [0.006], "apply": [0.003], "undo": [0.001], "weights_hit": 9}
              for rate in (0.001, 0.01)]  # fmt: skip
    return record("injection", [comparison], stages=stages)


def training(gap: float = 1e-14, **more) -> dict:
    seconds = {"ours": [1.0, 1.2, 1.1], "official loop": [5.0, 6.0, 5.5]}
    comparison = {"name": "VGG11 + ConvS", "work": {}, "seconds": seconds, "relative_difference": gap, **more}
    return record("training", [comparison])


def evaluation() -> dict:
    seconds = {"ours": [1.0] * 3, "official way": [2.0] * 3}
    comparison = {"name": "200 images", "work": {}, "seconds": seconds, "largest_difference_in_images": 1}
    comparison["memory"] = {"ours": {"peak_mb": 700}, "official way": {"peak_mb": 900}}
    return record("evaluation", [comparison])


def everything(**options) -> dict[str, dict]:
    return {"injection": injection(**options), "training": training(), "evaluation": evaluation()}


def test_ratios_are_of_medians_and_of_the_same_error_model():
    rows = performance.frame(everything()).set_index(["part", "side"])
    assert rows.loc[("injection", "dense sampling"), "ratio"] == pytest.approx(20)
    official = rows.loc[("injection", "official path")]
    assert official["ratio"] == pytest.approx(10)  # over ReleaseMap's 0.02 s, not BitFlips' 0.01
    assert (official["ratio_low"], official["ratio_high"]) == (pytest.approx(7.5), pytest.approx(12.5))
    step = rows.loc[("training", "official loop")]
    assert step["ratio"] == pytest.approx(5) and (step["low_ms"], step["high_ms"]) == (5250, 5750)
    assert rows.loc[("evaluation", "official way"), "peak_mb"] == 900


@pytest.mark.parametrize(("mrfi", "dense", "met"), [(0.025, 0.2, "Met Met"), (0.019, 0.2, "Met Not met"), (0.1, 0.1, "Not met Met")])
def test_goals_are_said_to_be_met_or_not_as_measured(mrfi, dense, met):
    lines = performance.goals(performance.frame(everything(mrfi=mrfi, dense=dense)))
    assert " ".join(line.split("**")[1] for line in lines) == f"{met} Not met"  # the step is 5 times as fast


def test_what_makes_a_step_faster_is_taken_apart():
    """By hand, for 2 perturbed models: 14 forward passes' worth against 6; bf16 halves the time; 14 / (14 / 6) / 2 is left."""
    record = training(work={"N": 2})
    record["comparisons"][0]["seconds"] = {"ours": [1.0] * 3, "ours, fp32": [2.0] * 3, "official loop": [14.0] * 3}
    text = performance.summary({"training": record}).data
    assert "2.3 times from fewer operations on base models, 2.0 from bf16, 3.0 from the rest" in text
    assert "with as many perturbed models. **Met** (VGG11 + ConvS): 14.0 times." in text


def test_what_was_not_measured_is_said(workshop):
    assert performance.stored() == {} == performance.stored("cuda")
    text = performance.summary({}).data
    assert text.count("not measured yet; `make bench` measures it") == 3 and text.count("**Not measured**") == 2
    assert "not measured yet" in performance.stage_summary({}).data and performance.pictures({}).data
    without = injection()
    del without["comparisons"][0]["seconds"]["MRFI"]
    assert "**Not measured**: MRFI was not installed" in performance.summary({"injection": without}).data


def test_the_page_says_what_the_records_say():
    records = everything()
    text = performance.summary(records).data
    for words in ("89.3 Mbit at 1 %", "10.0 times as long as ours", "MRFI changes 0.960 % of the bits", "1.10 s a step against 5.50 s, 5.0 times",
                  "the same gradient (relative difference 1e-14", "2.0 times as fast as the official way", "differ by 1 image at most", "a processor, 2 threads"):  # fmt: skip
        assert words in text
    assert "NOT the same gradient" in performance.summary({"training": training(gap=0.01)}).data
    assert "BitFlips at 1 %: 10.0 ms, of which drawing 60 %" in performance.stage_summary(records).data
    assert "Download as CSV" in performance.table(records).data and "draw ms" in performance.stage_table(records).data
    picture = performance.pictures(records).data
    assert picture.count("<img") == 1 and 'alt="Time of each other way over ours' in picture and "dense sampling 20.0" in picture


def test_a_gpu_s_record_says_how_near_the_peak_it_is():
    gpu = training(model_images_per_second=12345.0, share_of_h200_bf16_peak=0.123)
    assert "12,345 images times perturbed models a second, 12.3 % of an H200's" in performance.summary({"training": gpu}).data


def test_how_much_faster_a_step_could_still_become_is_said():
    """By hand: 5.5e11 operations in 1.1 s are half of 1e12 a second; a step is 5 times as fast as the official one."""
    text = performance.summary({"training": training(work={"flops": 5.5e11}, matrix_rate=1e12)}).data
    assert "at 50 % of the rate of a large matrix product here, at all of it a step would be 10.0 times as fast" in text
    assert "matrix product" not in performance.summary({"training": training()}).data


@pytest.mark.parametrize(("forced", "name"), [("bf16", "training.json"), ("fp32", "training_fp32.json")])
def test_a_cpu_without_bf16_has_records_of_its_own(forced, name):
    token = FORCED_PRECISION.set(forced)
    try:
        assert performance.path("training", performance.kind(torch.device("cpu"))).name == name
    finally:
        FORCED_PRECISION.reset(token)
    assert performance.path("training", performance.kind(torch.device("cuda"))).name == "training_cuda.json"


def test_goals_on_other_hardware_are_told(workshop):
    assert "No other hardware is measured yet" in performance.elsewhere("cpu").data
    path = performance.path("training", "cpu_fp32")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(training()))
    said = performance.elsewhere("cpu").data
    assert "**Training on a processor, 2 threads, fp32, PyTorch 2, commit 0123456**" in said and "**Not met** (VGG11 + ConvS): 5.0 times." in said
    assert "No other hardware" in performance.elsewhere("cpu_fp32").data


def test_damaged_records_and_unknown_hardware_are_refused(workshop, refused):
    path = performance.path("training", "cuda")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(training()))
    assert performance.stored("cuda") == {"training": training()} and performance.stored("cpu") == {}
    path.write_text("{}")
    with refused("is damaged; `make bench` measures it again"):
        performance.stored("cuda")
    with refused("unknown hardware 'gpu'"):
        performance.stored("gpu")
