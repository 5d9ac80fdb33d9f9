"""Training computes the textbook gradient, touches only what it trains, and ends the same however often it is stopped."""

import copy
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nflib import data, evaluation, generators, models, training
from nflib.data import Split
from nflib.faults import BitFlips, StuckAt
from nflib.generators import transform
from nflib.quantize import Quantized, quantization_aware
from nflib.training import (
    BaseRecipe,
    GeneratorRecipe,
    OutOfTime,
    Resumable,
    eopm_gradient,
    set_initial_gain,
    train_base,
    train_generator,
)

BASE = BaseRecipe("modern", epochs=3, batch=32, learning_rate=0.05, weight_decay=5e-4, schedule="one_cycle")
GENERATOR = GeneratorRecipe(
    "conv_s", "bit_flips", 0.02, models_per_step=2, steps=5, batch=32, learning_rate=0.01,
    schedule="one_cycle", momentum=0.1, initial_gain=0.1, width=0.125,
)  # fmt: skip
LAW = BitFlips(0.02)


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="module")
def few(digits) -> Split:
    """Two batches and a rest."""
    return digits.train.first(70)


def new_base(seed: int = 0) -> nn.Module:
    return models.build("vgg11", width=0.0625, seed=seed)


def frozen(seed: int = 0) -> Quantized:
    return Quantized(new_base(seed).to(memory_format=torch.channels_last))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ----------------------------------------------------------------------------------------------------------- gradient


def textbook_loss(generator, bases, images, labels, patterns, models_per_step, loss_weight) -> torch.Tensor:
    """Eq. 3 as printed: copies of the base model with their own faulty weights, a generator pass for each."""
    total = 0
    for base in bases:
        loss = F.cross_entropy(base.model(transform(generator, images)), labels)
        for k in range(models_per_step):
            faulty = copy.deepcopy(base.model)
            for name, faults in patterns(base, k).items():
                codes = base.codes[name].clone()
                codes[faults.index] = faults.hit(codes[faults.index], base.bits)
                weight = faulty.get_submodule(name).weight
                weight.data = (codes.double() * base.scales[name]).view_as(weight)
            loss = loss + loss_weight / models_per_step * F.cross_entropy(faulty(transform(generator, images)), labels)
        total = total + loss / len(bases)
    return total


@pytest.mark.parametrize("name", ["conv_s", "unet_s"])
@pytest.mark.parametrize("surrogates", [1, 2])
def test_one_generator_pass_gives_the_textbook_gradient(name, surrogates, monkeypatch):
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    chance = torch.Generator().manual_seed(0)
    images = 2 * torch.rand(6, 3, 32, 32, generator=chance, dtype=torch.float64) - 1
    labels = torch.randint(0, 10, (6,), generator=chance)
    bases = [Quantized(models.build("vgg11", width=0.125, seed=seed).double()) for seed in range(surrogates)]
    drawn = {id(base): [StuckAt(0.02).draw(base.sizes, 10 * i + k) for k in range(3)] for i, base in enumerate(bases)}
    one = quantization_aware(generators.build(name, width=0.25).double())
    assert one.training
    other = copy.deepcopy(one)
    clean, perturbed = eopm_gradient(one, bases, images, labels, lambda base, k: drawn[id(base)][k], 3, 5.0)
    loss = textbook_loss(other, bases, images, labels, lambda base, k: drawn[id(base)][k], 3, 5.0)
    loss.backward()
    assert (clean + 5 * perturbed).item() == pytest.approx(loss.item(), rel=1e-6)
    size = torch.cat([parameter.grad.flatten() for parameter in other.parameters()]).norm()
    assert size > 0
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        # Biases before a batch norm have no gradient but rounding: measured against the whole gradient.
        assert (mine.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm() + 1e-12 * size


def test_gradients_accumulate_and_leave_the_base_model_without_any(few):
    generator, base = generators.build("conv_s", width=0.125), frozen()
    images, before = data.to_float(few.images[:8]), state(base.model)
    patterns = [LAW.draw(base.sizes, k) for k in range(2)]
    # In eval mode a second pass is the same as the first.
    generator.eval()
    eopm_gradient(generator, [base], images, few.labels[:8], lambda _, k: patterns[k], 2, 5.0)
    once = [parameter.grad.clone() for parameter in generator.parameters()]
    eopm_gradient(generator, [base], images, few.labels[:8], lambda _, k: patterns[k], 2, 5.0)
    assert all(torch.allclose(p.grad, 2 * g) for p, g in zip(generator.parameters(), once))
    assert all(parameter.grad is None for parameter in base.model.parameters()) and same(before, state(base.model))


# ---------------------------------------------------------------------------------------------- what training touches


def train_new_base(few: Split, recipe: BaseRecipe = BASE, resume=None, deadline=None) -> tuple[dict, dict]:
    model = new_base()
    facts = train_base(model, few, "crop", recipe, resume, deadline=deadline)
    return state(model), facts


def train_new_generator(few: Split, recipe=GENERATOR, resume=None, deadline=None, bases=None) -> tuple[dict, dict]:
    generator = generators.build(recipe.name, recipe.width, recipe.seed)
    facts = train_generator(generator, bases or [frozen()], few, "crop", recipe, LAW, resume, deadline=deadline)
    return state(generator), facts


TRAININGS = {"base": train_new_base, "generator": train_new_generator}


@pytest.fixture(params=TRAININGS)
def train(request, few):
    """A training by name; calling it gives (final state, losses)."""

    def call(**options):
        final, facts = TRAININGS[request.param](few, **options)
        return final, facts["losses"]

    return call


def test_generator_training_leaves_the_base_models_as_they_were(few):
    """Weights and batch-norm statistics bit by bit, codes and scales, gradients, modes."""
    bases = [frozen(0), frozen(1)]
    before = [(state(base.model), copy.deepcopy(base.codes), copy.deepcopy(base.scales)) for base in bases]
    final, _ = train_new_generator(few, bases=bases)
    assert not same(final, state(generators.build("conv_s", GENERATOR.width)))
    for base, (weights, codes, scales) in zip(bases, before):
        assert same(weights, state(base.model)) and same(codes, base.codes) and same(scales, base.scales)
        assert not any(module.training for module in base.model.modules())
        assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_models_end_plain_in_eval_mode_with_the_float_weights_behind_the_codes(few):
    model, generator = new_base(), generators.build("conv_s", 0.125)
    train_base(model, few, "crop", BASE)
    train_generator(generator, [frozen()], few, "crop", GENERATOR, LAW)
    for trained, untrained in ((model, new_base()), (generator, generators.build("conv_s", 0.125))):
        assert trained.state_dict().keys() == untrained.state_dict().keys()
        assert not any(module.training for module in trained.modules())
        weight = next(trained.parameters()).detach()
        quantised = weight / (weight.abs().max() / 127)
        assert not torch.allclose(quantised, quantised.round(), atol=1e-3)


def test_a_batch_norm_of_the_generator_takes_the_recipe_s_momentum(few):
    generator = generators.build("conv_s", 0.125)
    train_generator(generator, [frozen()], few, "crop", GENERATOR, LAW)
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1} and {int(norm.num_batches_tracked) for norm in norms} == {5}


class Recorder:
    """An error model that notes the seeds it is asked for, and harms nothing."""

    def __init__(self):
        self.seeds = []

    def draw(self, sizes, seed, bits):
        self.seeds.append(seed)
        return {}


def test_every_perturbed_model_is_drawn_afresh_from_the_training_seeds(few):
    """steps x N x surrogates patterns, seeds 0 to 30000 (evaluation starts at 50000), not the same twice in a row."""
    law, bases = Recorder(), [frozen(0), frozen(1)]
    facts = train_generator(generators.build("conv_s", 0.125), bases, few, "crop", GENERATOR, law)
    assert len(law.seeds) == 5 * 2 * 2 and len(set(law.seeds)) > 15
    assert all(0 <= seed <= 30000 and isinstance(seed, int) for seed in law.seeds)
    assert facts["steps"] == 5 and facts["model_images"] == 5 * 32 * 2 * 2
    again = Recorder()
    train_generator(generators.build("conv_s", 0.125), bases, few, "crop", GENERATOR, again)
    assert law.seeds == again.seeds


@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_an_epoch_is_fixed_by_seed_and_number(epoch, few):
    """Whole batches of images that are met once each; another epoch or seed is another order; none when interrupted."""
    many = Split(torch.arange(70, dtype=torch.uint8).view(70, 1, 1, 1).expand(70, 3, 32, 32), torch.arange(70))
    torch.manual_seed(epoch)
    batches = list(training._batches(many, 32, "crop", 4, epoch))
    labels = torch.cat([labels for _, labels in batches])
    assert [len(images) for images, _ in batches] == [32, 32] and len(labels.unique()) == 64
    for images, own in batches:  # augmentation never parts an image from its label
        assert torch.equal(((images[:, 0, 16, 16] + 1) * 127.5).round().long(), own)
    first = next(iter(training._batches(many, 32, "crop", 4, epoch)))
    assert torch.equal(first[0], batches[0][0]) and torch.equal(first[1], batches[0][1])
    for seed, number in ((5, epoch), (4, epoch + 1)):
        assert not torch.equal(next(iter(training._batches(many, 32, "crop", seed, number)))[1], first[1])


def rates(schedule: str, peak: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], peak)
    scheduler = training._schedule(optimizer, schedule, peak, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_learning_rates_follow_their_schedule():
    assert rates("constant", 0.3, 5) == [0.3] * 5
    np.testing.assert_allclose(rates("release_steps", 0.001, 1501), 0.001 * 0.96 ** (np.arange(1501) // 500))
    cycle = rates("one_cycle", 0.1, 100)
    assert max(cycle) == pytest.approx(0.1) and 10 < int(np.argmax(cycle)) < 50
    assert cycle[0] < 0.01 and cycle[-1] < 0.001
    assert rates("one_cycle", 0.1, 1)  # a run of fewer steps than the schedule can have


# ---------------------------------------------------------------------------------------- the same end, however stopped


def test_training_is_deterministic(train):
    """The same recipe twice gives the same bits, whatever the state of the global generator."""
    torch.manual_seed(1)
    first = train()
    torch.manual_seed(2)
    second = train()
    assert same(first[0], second[0]) and first[1] == second[1]


def test_another_seed_trains_another_model(few):
    one, other = (train_new_base(few, replace(BASE, seed=seed))[0] for seed in (0, 1))
    assert not same(one, other)  # both from the same initial weights: order and augmentation differ


def test_interrupted_training_ends_bit_by_bit_the_same(train, tmp_path):
    """Out of time after every epoch (base model) or step (generator); each call takes up where the last one stopped."""
    whole, resume, stops = train(), tmp_path / "training.resume.pt", 0
    while True:
        try:
            final = train(resume=resume, deadline=0.0)
            break
        except OutOfTime:
            stops += 1
            assert [path.name for path in tmp_path.iterdir()] == [resume.name]
    assert stops in (BASE.epochs, GENERATOR.steps)
    assert same(whole[0], final[0]) and whole[1] == final[1]
    assert not list(tmp_path.iterdir())


def test_a_deadline_in_the_future_stops_nothing(train, tmp_path):
    final = train(resume=tmp_path / "resume.pt", deadline=time.monotonic() + 3600)
    assert same(train()[0], final[0]) and not list(tmp_path.iterdir())


def garbage(content: bytes) -> bytes:
    return b"not a file of torch"


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def stop_once(train, resume) -> None:
    with pytest.raises(OutOfTime):
        train(resume=resume, deadline=0.0)


@pytest.mark.parametrize("damage", [garbage, cut, empty])
def test_a_damaged_resume_file_costs_its_progress_and_nothing_else(train, damage, tmp_path):
    resume = tmp_path / "training.resume.pt"
    stop_once(train, resume)
    resume.write_bytes(damage(resume.read_bytes()))
    final = train(resume=resume)
    assert same(train()[0], final[0]) and not resume.exists()


def test_a_resume_file_that_lacks_a_part_leaves_no_trace(train, tmp_path):
    """Loaded before the lack shows, the model's later weights must not stay."""
    resume = tmp_path / "training.resume.pt"
    stop_once(train, resume)
    stored = torch.load(resume, weights_only=True)
    del stored["optimizer"]
    torch.save(stored, resume)
    assert same(train()[0], train(resume=resume)[0])


def test_a_resume_file_with_a_flipped_bit_in_its_weights_is_ignored(train, tmp_path):
    resume = tmp_path / "training.resume.pt"
    stop_once(train, resume)
    stored = torch.load(resume, weights_only=True)
    weight = next(tensor for tensor in stored["model"].values() if tensor.ndim == 4)
    content = bytearray(resume.read_bytes())
    place = content.find(weight.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy().tobytes())
    assert place > 0
    content[place + 2] ^= 1
    resume.write_bytes(content)
    assert same(train()[0], train(resume=resume)[0])


def test_state_is_kept_now_and_then_and_when_time_is_over(tmp_path):
    path, model = tmp_path / "deep" / "state.pt", nn.Linear(2, 2)
    state = Resumable(path, seconds=3600, model=model)
    assert state.load() == {}
    state.save(lambda: {"step": 1})
    assert not path.exists()
    Resumable(path, seconds=-1, model=model).save(lambda: {"step": 2})
    with torch.no_grad():
        weight = model.weight.clone()
        model.weight.zero_()
    assert state.load() == {"step": 2} and torch.equal(model.weight, weight)
    with pytest.raises(OutOfTime):
        Resumable(path, deadline=0.0, model=model).save(lambda: {"step": 3})
    assert state.load() == {"step": 3}
    state.done()
    state.done()
    assert not path.exists()
    with pytest.raises(OutOfTime):
        Resumable(None, deadline=0.0).save(dict)
    assert Resumable(None).load() == {}


# --------------------------------------------------------------------------------------------------------- the start


@pytest.mark.parametrize("name", [*generators.NAMES, "universal"])
def test_a_small_initial_gain_starts_near_the_image_itself(name):
    images = 2 * torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    whole, small, none, one = (generators.build(name, width=0.25) for _ in range(4))
    for generator, gain in ((small, 0.01), (none, 0.0), (one, 1.0)):
        set_initial_gain(generator, gain)
    with torch.no_grad():
        assert torch.equal(transform(none, images), images)
        assert torch.equal(one(images), whole(images))
        moved, much = (transform(generator, images) - images for generator in (small, whole))
        assert moved.abs().max() < 0.1
        assert moved.norm() < 0.03 * much.norm() or name == "universal"


# ------------------------------------------------------------------------------------------------------------ precision


@pytest.fixture(scope="module")
def trained(digits) -> Quantized:
    model = models.build("vgg11", width=0.125)
    recipe = BaseRecipe("modern", 4, 64, 0.1, weight_decay=5e-4, schedule="one_cycle")
    facts = train_base(model, digits.train, "crop", recipe)
    assert facts["losses"][-1] < 0.5 * facts["losses"][0]
    return Quantized(model.to(memory_format=torch.channels_last))


def test_bf16_accuracies_lie_within_0_3_points_of_fp32(trained, digits, monkeypatch):
    """All 1,797 digits, clean and under two error patterns (their mean), the base model alone."""
    splits = (digits.train, digits.validation, digits.test)
    whole = Split(torch.cat([s.images for s in splits]), torch.cat([s.labels for s in splits]))
    found = {}
    for arithmetic in ("fp32", "bf16"):
        monkeypatch.setattr(training, "precision", lambda device: arithmetic)
        batches = evaluation.prepared(whole, None)
        clean = evaluation.accuracy(trained, batches)
        perturbed, _ = evaluation.perturbed_accuracies(trained, BitFlips(0.001), range(50000, 50002), batches)
        found[arithmetic] = np.array([clean, np.mean(perturbed)])
    assert found["fp32"][0] > 90
    assert (np.abs(found["bf16"] - found["fp32"]) <= 0.3).all(), found


def test_bf16_is_really_used_where_it_is_the_precision(trained, digits, monkeypatch):
    batches = evaluation.prepared(digits.test.first(20), None)
    logits = {}
    for arithmetic in ("fp32", "bf16"):
        monkeypatch.setattr(training, "precision", lambda device: arithmetic)
        logits[arithmetic] = evaluation.outputs(trained, batches)
        assert logits[arithmetic].dtype == torch.float32
    assert torch.equal(logits["bf16"], logits["bf16"].bfloat16().float()) and not torch.equal(*logits.values())


def test_evaluation_counts_right_answers(trained, digits):
    """Against one image at a time, with and without a pattern; the shares of changed bits are near the rate."""
    batches = evaluation.prepared(digits.test.first(60), None, batch=25)
    assert [len(labels) for _, labels in batches] == [25, 25, 10]
    with torch.inference_mode():
        right = [
            int(trained(data.to_float(image[None])).argmax()) == int(label)
            for image, label in zip(digits.test.images[:60], digits.test.labels)
        ]
    assert evaluation.accuracy(trained, batches) == pytest.approx(100 * np.mean(right), abs=100 / 60 + 1e-9)
    ticks = []
    accuracies, shares = evaluation.perturbed_accuracies(trained, LAW, (1, 2), batches, lambda: ticks.append(1))
    assert len(accuracies) == len(shares) == len(ticks) == 2
    stored = 8 * sum(trained.sizes.values())
    assert all(abs(share - 0.02) < 5 * np.sqrt(0.02 / stored) for share in shares)
