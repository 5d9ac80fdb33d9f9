"""Benchmarks compare like with like: equal gradients, equal accuracies, the stated bit-error rate."""

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
from nflib.faults import named
from nflib.quantize import Quantized
from nflib.training import FORCED_PRECISION

CPU = torch.device("cpu")


def narrow(name: str = "vgg11", width: float = 0.125) -> torch.nn.Module:
    return models.build(name, width=width).eval()


def test_the_official_loop_has_the_same_gradient_as_ours_and_its_log_line_changes_nothing():
    """In double precision: in single precision rounding decides some ReLUs and maxima."""
    ours, theirs = (kind(narrow().double(), "conv_s", 8, 2, width=0.25) for kind in (parts.OurStep, parts.TextbookStep))
    forced = FORCED_PRECISION.set("fp32")
    ours.gradient(0)
    FORCED_PRECISION.reset(forced)
    theirs.gradient(0, log=False)
    for mine, other in zip(ours.generator.parameters(), theirs.generator.parameters()):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-9)
    textbook = parts.TextbookStep(narrow(), "conv_s", 4, 2, width=0.25)
    textbook.gradient(0, log=False)
    first = [p.grad.clone() for p in textbook.generator.parameters()]
    textbook.gradient(0, log=True)
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(first, textbook.generator.parameters()))
    textbook.gradient(1, log=False)
    assert not torch.allclose(first[0], next(textbook.generator.parameters()).grad, rtol=1e-2)


def test_a_step_moves_the_generator_and_not_the_base_model():
    for kind in (parts.OurStep, parts.TextbookStep):
        step = kind(narrow(), "conv_s", 4, 1, width=0.25)
        base = step.base.model if isinstance(step, parts.OurStep) else step.models.clean
        before = [[p.clone() for p in model.parameters()] for model in (step.generator, base)]
        step(1)
        after = [list(model.parameters()) for model in (step.generator, base)]
        assert [all(map(torch.equal, *pair)) for pair in zip(before, after)] == [False, True]


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
    "bit flips": (lambda model: rivals.Ours(model, named("bit_flips", 0.01)), 0.01),
    "stuck at": (lambda model: rivals.Ours(model, named("stuck_at", 0.01)), 0.005),
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
        # A stuck cell changes half the bits only where ones and zeros are as many: high bits of small codes are alike.
        slack = 5 * np.sqrt(8 * share / bits)
        assert abs(rivals.changed_share(base, weights) - share) < slack
    assert any(not torch.equal(found[0][layer], found[1][layer]) for layer in whole)
    if "MRFI" not in name:
        assert all(torch.equal(whole[layer], weight) for layer, weight in injector.weights().items())


def test_the_official_path_reads_the_very_weights_of_our_release_map():
    ours = rivals.Ours(narrow("resnet18", 0.25), named("release_map", 0.01))
    official = rivals.Official(narrow("resnet18", 0.25), 0.01)
    for seed in (0, 50000):
        ours.perturb(seed), official.perturb(seed)
        for name, weight in ours.weights().items():
            assert torch.equal(weight, official.weights()[name])
        ours.undo()


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
    """With calls that do nothing."""
    builders = {"ours": lambda: lambda number: None, "official way": lambda: lambda number: None}
    comparison = parts.Comparison("a task", builders, 3, 5)
    monkeypatch.setitem(bench.PARTS, "evaluation", lambda device: [comparison])
    monkeypatch.setattr("sys.argv", ["benchmarks", "evaluation", "--device", "cpu", "--rounds", "3"])
    threads = torch.get_num_threads()
    try:
        assert bench.main() == 0
    finally:
        torch.set_num_threads(threads)
    assert "a task" in capsys.readouterr().out
    (path,) = (workshop / "results" / "bench").iterdir()
    stored = json.loads(path.read_text())
    assert path == bench.path_of("evaluation", CPU) and len(stored["comparisons"][0]["seconds"]["ours"]) == 3
    assert bench.path_of("evaluation", torch.device("cuda")).name == "evaluation_cuda.json"
