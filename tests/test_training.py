"""Training computes the textbook gradient, touches only what it trains, and ends the same however often it is stopped."""

import copy
import functools
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nflib import data, eopm, evaluation, generators, models, training
from nflib.data import Split
from nflib.eopm import (
    GeneratorRecipe,
    adversarial_pattern,
    ascent_bits,
    eopm_gradient,
    distill,
    distillation_gradient,
    set_initial_gain,
    train_generator,
)
from nflib.faults import BitFlips, LayerFaults, StuckAt, changed_bits, perturbed
from nflib.generators import transform
from nflib.quantize import Quantized, encode, plain, quantization_aware, weighted_layers
from nflib.training import BaseRecipe, Diverged, OutOfTime, Resumable, adversarial_weights, train_base

BASE = BaseRecipe("modern", epochs=3, batch=32, learning_rate=0.05, weight_decay=5e-4, schedule="one_cycle")
RANDOM = replace(BASE, bit_errors=0.01)
BASE_STEPS = 2  # of an epoch: full batches in `few`
GENERATOR = GeneratorRecipe(
    "conv_s", "bit_flips", 0.02, models_per_step=2, steps=5, batch=32, learning_rate=0.01,
    schedule="one_cycle", momentum=0.1, initial_gain=0.1, width=0.125,
)  # fmt: skip
ADVERSARIAL = replace(GENERATOR, models_per_step=1, adversarial_flips=50)
TEACHER = replace(GENERATOR, name="class_wise", width=1.0)
DISTILLATION = replace(GENERATOR, distillation_steps=4, teacher=TEACHER)
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
            for name, faults in patterns(base, k, None).items():
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
    clean, perturbed = eopm_gradient(one, bases, images, labels, lambda base, k, _: drawn[id(base)][k], 3, 5.0)
    loss = textbook_loss(other, bases, images, labels, lambda base, k, _: drawn[id(base)][k], 3, 5.0)
    loss.backward()
    assert (clean + 5 * perturbed).item() == pytest.approx(loss.item(), rel=1e-6)
    size = torch.cat([parameter.grad.flatten() for parameter in other.parameters()]).norm()
    assert size > 0
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        # Biases before a batch norm have no gradient but rounding: measured against the whole gradient.
        assert (mine.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm() + 1e-12 * size


def test_over_the_rotations_of_its_parts_a_split_batch_gives_the_textbook_gradient(few, monkeypatch):
    """Seven images in three parts: also where the number of models does not divide the batch."""
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    base, images, labels = Quantized(new_base().double()), data.to_float(few.images[:7]).double(), few.labels[:7]
    drawn = [LAW.draw(base.sizes, k) for k in range(3)]
    split = generators.build("conv_s", width=0.25).double()
    whole = copy.deepcopy(split)
    clean, perturbed = eopm_gradient(whole, [base], images, labels, lambda base, k, _: drawn[k], 3, 5.0)
    losses = []
    for r in range(3):
        terms = eopm_gradient(split, [base], images, labels, lambda base, k, _: drawn[(k + r) % 3], 3, 5.0, True)
        losses.append(torch.stack(terms))
    assert torch.allclose(sum(losses) / 3, torch.stack([clean, perturbed]), rtol=1e-5)
    size = torch.cat([parameter.grad.flatten() for parameter in whole.parameters()]).norm()
    assert len({loss[1].item() for loss in losses}) == 3 and size > 0
    for mine, textbook in zip(split.parameters(), whole.parameters(), strict=True):
        assert (mine.grad / 3 - textbook.grad).norm() <= 1e-5 * size


def test_a_split_batch_needs_an_image_for_each_model(refused):
    with refused("models_per_step"):
        GeneratorRecipe(batch=8, models_per_step=9, split_batch=True)


def test_gradients_accumulate_and_leave_the_base_model_without_any(few):
    generator, base = generators.build("conv_s", width=0.125), frozen()
    images, before = data.to_float(few.images[:8]), state(base.model)
    patterns = [LAW.draw(base.sizes, k) for k in range(2)]
    # In eval mode a second pass is the same as the first.
    generator.eval()
    eopm_gradient(generator, [base], images, few.labels[:8], lambda base, k, _: patterns[k], 2, 5.0)
    once = [parameter.grad.clone() for parameter in generator.parameters()]
    eopm_gradient(generator, [base], images, few.labels[:8], lambda base, k, _: patterns[k], 2, 5.0)
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


def class_wise(size: float = 2.0) -> nn.Module:
    """Class patterns as if trained: each class has its own."""
    teacher = generators.build("class_wise")
    with torch.no_grad():
        teacher.raw.normal_(0, size, generator=torch.Generator().manual_seed(0))
    return teacher.eval().requires_grad_(False)


def train_by_distillation(few: Split, recipe=DISTILLATION, resume=None, deadline=None) -> tuple[dict, dict]:
    generator = generators.build(recipe.name, recipe.width, recipe.seed)
    facts = distill(generator, class_wise(), few, "crop", recipe, resume, deadline=deadline)
    return state(generator), facts


def train_on_bit_errors(few: Split, **options) -> tuple[dict, dict]:
    return train_new_base(few, RANDOM, **options)


TRAININGS = {"base": train_new_base, "bit errors": train_on_bit_errors, "generator": train_new_generator, "imitation": train_by_distillation}


@pytest.fixture(params=TRAININGS)
def train(request, few):
    """A training by name; calling it gives (final state, losses)."""

    def call(**options):
        final, facts = TRAININGS[request.param](few, **options)
        return final, facts["losses"] or facts["distillation_losses"]

    return call


@pytest.mark.parametrize("recipe", [GENERATOR, ADVERSARIAL])
def test_generator_training_leaves_the_base_models_as_they_were(recipe, few):
    """Weights and batch-norm statistics bit by bit, codes and scales, gradients, modes."""
    bases = [frozen(0), frozen(1)]
    before = [(state(base.model), copy.deepcopy(base.codes), copy.deepcopy(base.scales)) for base in bases]
    final, _ = train_new_generator(few, recipe, bases=bases)
    assert not same(final, state(generators.build("conv_s", GENERATOR.width)))
    for base, (weights, codes, scales) in zip(bases, before):
        assert same(weights, state(base.model)) and same(codes, base.codes) and same(scales, base.scales)
        assert not any(module.training for module in base.model.modules())
        assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_imitation_follows_the_textbook_gradient_and_rests_where_the_teacher_is(few, monkeypatch):
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    teacher, images = class_wise(), data.to_float(few.images[:8])
    one = generators.build("conv_s", width=0.125).eval()
    other = copy.deepcopy(one)
    distance = distillation_gradient(one, teacher, images, few.labels[:8])
    added = torch.tanh(teacher.raw[few.labels[:8]])
    loss = ((images + added).clamp(-1, 1) - transform(other, images)).square().mean()
    loss.backward()
    assert distance.item() == pytest.approx(loss.item(), rel=1e-5) and loss > 0.1
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert (mine.grad - theirs.grad).norm() <= 1e-4 * theirs.grad.norm() + 1e-9
    assert distillation_gradient(copy.deepcopy(teacher).requires_grad_(), teacher, images, few.labels[:8]) == 0


def test_imitation_needs_no_base_model_and_brings_the_generator_nearer(few):
    """The recorded distance falls; nothing of Eq. 3 is recorded."""
    _, facts = train_by_distillation(few, replace(DISTILLATION, distillation_steps=60))
    distances = [distance for _, distance in facts["distillation_losses"]]
    assert [step for step, _ in facts["distillation_losses"]] == list(range(3, 61, 3))
    assert distances[-1] < 0.9 * distances[0] and facts["losses"] == [] and facts["model_images"] == facts["steps"] == 0


def test_eq_3_after_imitation_starts_from_it_and_goes_on_with_the_batches_that_follow(few, monkeypatch):
    generator, used = generators.build(DISTILLATION.name, DISTILLATION.width, DISTILLATION.seed), []
    distilled = distill(generator, class_wise(), few, "crop", DISTILLATION)
    kept = state(generator)

    def note(generator, bases, images, labels, *rest):
        used.append(labels)
        now = {name.replace("parametrizations.weight.original", "weight"): value for name, value in generator.state_dict().items()}
        assert same(kept, now)  # nothing has a gradient here, so it stays
        return torch.tensor(0.0), torch.tensor(0.0)

    monkeypatch.setattr(eopm, "eopm_gradient", note)
    facts = train_generator(generator, [frozen()], few, "crop", DISTILLATION, LAW, distilled=distilled)
    order = [labels for epoch in range(5) for _, labels in training.batches_of(few, 32, "crop", DISTILLATION.seed, epoch)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(used, order[4:9], strict=True))
    assert facts["distillation_losses"] == distilled["distillation_losses"] and facts["seconds"] >= distilled["seconds"]


def test_a_recipe_names_a_teacher_exactly_when_it_imitates(refused):
    for change in ({"teacher": None}, {"distillation_steps": 0}, {"distillation_steps": -1}):
        with refused("distillation_steps is"):
            replace(DISTILLATION, **change)


def test_class_wise_learn_to_bring_the_models_to_the_given_label(digits):
    some, model, generator, law = digits.train.first(320), new_base(), generators.build("class_wise"), BitFlips(0.002)
    train_base(model, some, "crop", replace(BASE, epochs=6))
    recipe = replace(TEACHER, steps=60, learning_rate=0.05, models_per_step=1)
    losses = train_generator(generator, [Quantized(model)], some, "crop", recipe, law)["losses"]
    clean, perturbed = np.mean(losses[-5:], 0)[1:]
    assert clean < 0.6 * losses[0][1] and perturbed < 0.8 * losses[0][2]


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

    def draw(self, sizes, seed, bits, device):
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


def test_adversarial_training_asks_no_law_and_trains_another_generator(few):
    law, generator = Recorder(), generators.build("conv_s", 0.125)
    facts = train_generator(generator, [frozen()], few, "crop", ADVERSARIAL, law)
    assert not law.seeds and facts["model_images"] == 5 * 32
    random, _ = train_new_generator(few, replace(ADVERSARIAL, adversarial_flips=0))
    assert not same(state(generator), random)


@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_an_epoch_is_fixed_by_seed_and_number(epoch, few):
    """Whole batches of images that are met once each; another epoch or seed is another order; none when interrupted."""
    many = Split(torch.arange(70, dtype=torch.uint8).view(70, 1, 1, 1).expand(70, 3, 32, 32), torch.arange(70))
    torch.manual_seed(epoch)
    batches = list(training.batches_of(many, 32, "crop", 4, epoch))
    labels = torch.cat([labels for _, labels in batches])
    assert [len(images) for images, _ in batches] == [32, 32] and len(labels.unique()) == 64
    for images, own in batches:  # augmentation never parts an image from its label
        assert torch.equal(((images[:, 0, 16, 16] + 1) * 127.5).round().long(), own)
    first = next(iter(training.batches_of(many, 32, "crop", 4, epoch)))
    assert torch.equal(first[0], batches[0][0]) and torch.equal(first[1], batches[0][1])
    for seed, number in ((5, epoch), (4, epoch + 1)):
        assert not torch.equal(next(iter(training.batches_of(many, 32, "crop", seed, number)))[1], first[1])


def rates(schedule: str, peak: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], peak)
    scheduler = training.schedule_of(optimizer, schedule, peak, steps)
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


# ------------------------------------------------------------------------------------ adversarial weight perturbation


def textbook_base(few: Split, recipe: BaseRecipe) -> dict[str, torch.Tensor]:
    """Base training step by step: gradient and batch-norm statistics of a copy whose float weights are moved, if gamma."""
    model = quantization_aware(new_base()).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay)
    scheduler = training.schedule_of(optimizer, recipe.schedule, recipe.learning_rate, recipe.epochs * 2)
    for epoch in range(recipe.epochs):
        for images, labels in training.batches_of(few, recipe.batch, "crop", recipe.seed, epoch):
            moved = copy.deepcopy(model)
            if recipe.weight_perturbation:
                probe = copy.deepcopy(model)
                with training.autocast(images.device):
                    F.cross_entropy(probe(images), labels).backward()
                for name, layer in weighted_layers(probe).items():
                    weight = layer.parametrizations.weight.original
                    step = weight.grad / weight.grad.norm() * (recipe.weight_perturbation * weight.detach().norm())
                    moved.get_submodule(name).parametrizations.weight.original.data += step
            moved.zero_grad()
            with training.autocast(images.device):
                F.cross_entropy(moved(images), labels).backward()
            for parameter, other in zip(model.parameters(), moved.parameters(), strict=True):
                parameter.grad = other.grad
            for buffer, other in zip(model.buffers(), moved.buffers(), strict=True):
                buffer.copy_(other)
            optimizer.step()
            scheduler.step()
    return state(plain(model))


@pytest.mark.parametrize("gamma", [0.0, 0.05])
def test_base_training_is_the_textbook_s_with_and_without_moved_weights(gamma, few):
    """Bit by bit, batch-norm statistics and the number of batches that they have seen included; gamma 0 is plain SGD."""
    recipe = replace(BASE, weight_perturbation=gamma)
    final, facts = train_new_base(few, recipe)
    assert same(final, textbook_base(few, recipe))
    assert all(int(count) == 6 for name, count in final.items() if name.endswith("num_batches_tracked"))
    assert same(final, train_new_base(few)[0]) == (gamma == 0)
    assert (facts["losses"] == train_new_base(few)[1]["losses"]) == (gamma == 0)


@pytest.mark.parametrize("name", ["vgg11", "preact_resnet18"])
def test_every_weighted_layer_moves_by_gamma_of_its_norm_up_the_gradient_and_comes_back(name, few, monkeypatch):
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    model = quantization_aware(models.build(name, width=0.0625)).train()
    images, labels = data.to_float(few.images[:32]), few.labels[:32]
    probe = copy.deepcopy(model)
    loss = F.cross_entropy(probe(images), labels)
    loss.backward()
    before = state(model)
    with adversarial_weights(model, images, labels, 0.01):
        now = state(model)
        for layer, own in weighted_layers(model).items():
            key, weight = f"{layer}.parametrizations.weight.original", own.parametrizations.weight.original
            step = now[key] - before[key]
            assert step.norm().item() == pytest.approx(0.01 * before[key].norm().item(), rel=1e-3)
            gradient = probe.get_submodule(layer).parametrizations.weight.original.grad
            assert F.cosine_similarity(step.flatten(), gradient.flatten(), dim=0) > 0.999
            assert weight.grad is None
        moved = {key for key in now if not torch.equal(now[key], before[key])}
        assert moved == {f"{layer}.parametrizations.weight.original" for layer in weighted_layers(model)}
        assert F.cross_entropy(copy.deepcopy(model)(images), labels) > 1.01 * loss
    assert same(before, state(model))
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_moved_weights_come_back_whatever_happens(few):
    model = quantization_aware(new_base())
    images, labels, before = data.to_float(few.images[:8]), few.labels[:8], state(model)
    with pytest.raises(KeyboardInterrupt), adversarial_weights(model, images, labels, 0.1):
        assert not same(before, state(model))
        raise KeyboardInterrupt
    with pytest.raises(ValueError), adversarial_weights(model, images, labels[:3], 0.1):
        pass
    assert same(before, state(model))
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_a_layer_without_gradient_stays(few):
    model = quantization_aware(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 10)))
    with torch.no_grad():
        model[2].parametrizations.weight.original.zero_()
    before = state(model)
    with adversarial_weights(model, data.to_float(few.images[:8]), few.labels[:8], 0.1):
        assert same(before, state(model))  # nothing reaches the convolution, and the other layer has no norm to move by


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_a_weight_perturbation_that_is_no_size_is_refused(gamma, refused):
    with refused(f"weight_perturbation is {gamma}; allowed are numbers from 0"):
        replace(BASE, weight_perturbation=gamma)


@pytest.mark.parametrize("limit", [0.01, 0.05])
def test_clipping_bounds_the_weights_that_errors_hit_and_nothing_else(limit, few):
    clipped, free = (train_new_base(few, replace(BASE, clipping=value))[0] for value in (limit, 0.0))
    weighted = {f"{name}.weight" for name in weighted_layers(new_base())}
    assert all(clipped[name].abs().max() <= limit < free[name].abs().max() for name in weighted)
    assert any(clipped[name].abs().max() > limit for name in clipped.keys() - weighted if "running" not in name)


def test_without_clipping_training_is_plain_to_the_bit(few):
    assert same(train_new_base(few, replace(BASE, clipping=0.0))[0], textbook_base(few, BASE))
    assert same(train_new_base(few, replace(BASE, clipping=1e6))[0], train_new_base(few)[0])


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_a_clipping_that_is_no_limit_is_refused(limit, refused):
    with refused(f"clipping is {limit}; allowed are numbers from 0"):
        replace(BASE, clipping=limit)


# -------------------------------------------------------------------------------------- training on random bit errors


def read_codes(model: nn.Module, pattern) -> nn.Module:
    """A plain copy of a quantisation-aware model whose weights are decoded from the codes that are read back."""
    faulty = plain(copy.deepcopy(model))
    for name, layer in weighted_layers(faulty).items():
        codes, scale = encode(layer.weight, 8)
        flat = codes.flatten()
        flat[pattern[name].index] = pattern[name].hit(flat[pattern[name].index])
        layer.weight.data = flat.view(codes.shape) * scale
    return faulty


def test_a_step_takes_the_mean_gradient_of_both_readings_of_the_codes(few, monkeypatch):
    """Against a copy for each reading, the second with decoded weights of its own."""
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    recipe = replace(RANDOM, epochs=1, batch=70, schedule="constant", bit_errors=0.03)
    sizes = {name: layer.weight.numel() for name, layer in weighted_layers(new_base()).items()}
    model = quantization_aware(new_base()).to(memory_format=torch.channels_last).train()
    ((images, labels),) = training.batches_of(few, 70, "crop", recipe.seed, 0)
    clean = F.cross_entropy(model(images), labels)
    clean.backward()
    faulty = read_codes(model, training.training_pattern(sizes, recipe, 0, images.device))
    dirty = F.cross_entropy(faulty(images), labels)
    dirty.backward()
    final, facts = train_new_base(few, recipe)
    assert abs(dirty - clean) > 1e-3
    assert facts["losses"] == pytest.approx([(clean.item() + dirty.item()) / 2], rel=1e-5)
    for name, layer in weighted_layers(model).items():
        weight, other = layer.parametrizations.weight.original, faulty.get_submodule(name).weight
        step = (weight.grad + other.grad) / 2 + recipe.weight_decay * weight.detach()
        torch.testing.assert_close(final[f"{name}.weight"], weight.detach() - recipe.learning_rate * step, rtol=1e-3, atol=2e-6)
    for name, value in model.named_buffers():
        assert torch.equal(final[name], value)  # the second reading leaves batch norm's statistics alone


def test_every_step_of_random_bit_error_training_reads_a_fresh_pattern(few, monkeypatch):
    drawn = []
    real = training.training_pattern
    monkeypatch.setattr(training, "training_pattern", lambda *given: drawn.append(real(*given)) or drawn[-1])
    train_new_base(few, RANDOM)
    assert len(drawn) == RANDOM.epochs * BASE_STEPS
    cells = {tuple(faults.index.tolist() for faults in pattern.values()).__repr__() for pattern in drawn}
    assert len(cells) == len(drawn)
    base = frozen()
    shares = [int(changed_bits(base, pattern)) / (8 * sum(base.sizes.values())) for pattern in drawn]
    assert np.mean(shares) == pytest.approx(RANDOM.bit_errors, rel=0.05)


@pytest.mark.parametrize("name", ["vgg11", "resnet18"])
def test_codes_are_read_back_within_and_as_stored_afterwards_whatever_happens(name, few, monkeypatch):
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    model, base, stored = (models.build(name, width=0.0625) for _ in range(3))
    model, base, stored = quantization_aware(model.to(memory_format=torch.channels_last)).train(), Quantized(base), Quantized(stored)
    pattern = BitFlips(0.05).draw(base.sizes, 3)
    images, before = data.to_float(few.images[:16]), state(model)
    base.model.train()
    with torch.no_grad(), pytest.raises(KeyboardInterrupt), training.read_back(model, pattern):
        stored.model.train()
        with perturbed(base, pattern):
            torch.testing.assert_close(model(images), base(images), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(model(images), stored(images), rtol=0.01)
        raise KeyboardInterrupt
    assert same(before, state(model))
    assert all(layer.parametrizations.weight[0].faults is None for layer in weighted_layers(model).values())
    assert all(layer.track_running_stats for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


def test_training_on_bit_errors_leaves_more_under_them(digits):
    """Of accuracy under fresh patterns, on images that training never saw."""
    left, batches = {}, evaluation.prepared(digits.test, None)
    for rate in (0.0, 0.01):
        model = models.build("vgg11", width=0.0625)
        train_base(model, digits.train, digits.augmentation, replace(BASE, epochs=8, bit_errors=rate))
        left[rate] = np.mean(evaluation.perturbed_accuracies(Quantized(model), BitFlips(0.02), range(50000, 50020), batches)[0])
    assert left[0.01] > left[0.0] + 10


@pytest.mark.parametrize("rate", [-0.01, 1.0, 2, True, float("nan")])
def test_a_rate_of_training_that_is_no_rate_is_refused(rate, refused):
    with refused(f"bit-error rate is {rate}; allowed are fractions in"):
        replace(BASE, bit_errors=rate)


def test_a_recipe_moves_weights_or_flips_bits(refused):
    with refused("a base recipe has bit_errors or weight_perturbation, not both"):
        replace(RANDOM, weight_perturbation=0.01)


def test_a_varied_recipe_says_its_values_and_a_named_one_its_name():
    assert BASE.words == "modern"
    assert replace(BASE, name="varied").words == "decay 0.0005, 3 epochs"
    other = replace(BASE, name="varied", weight_decay=0.0, clipping=0.1, schedule="constant")
    assert other.words == "decay 0, clipped at 0.1, constant rate, 3 epochs"
    assert replace(RANDOM, name="varied").words == "decay 0.0005, bit errors 1 %, 3 epochs"


# ------------------------------------------------------------------------------------------------ adversarial patterns


@pytest.mark.parametrize("bits", range(2, 9))
def test_ascent_bits_are_the_most_significant_that_move_the_code_the_right_way(bits):
    """All codes, both directions; only the largest code has nowhere to go, and loses its lowest bit."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = torch.arange(low, high + 1, dtype=torch.int8)
    for up in (True, False):
        found = ascent_bits(codes, torch.full((len(codes),), up), bits)
        for code, mask in zip(codes.tolist(), found.tolist()):
            moves = {1 << bit: flip(code, bit, bits) - code for bit in range(bits)}
            right = [mask for mask, move in moves.items() if (move > 0) == up]
            assert mask == (max(right) if right else 1) and (right or code == (high if up else low))


def flip(code: int, bit: int, bits: int) -> int:
    raw = (code % 2**bits) ^ (1 << bit)
    return raw - 2**bits if raw >= 2 ** (bits - 1) else raw


def tiny(bits: int) -> tuple[Quantized, torch.Tensor, torch.Tensor]:
    """A smooth base model of 156 weights in double precision, and images and labels for it."""
    torch.manual_seed(0)
    convolution = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.AdaptiveAvgPool2d(2)]
    model = nn.Sequential(*convolution, nn.Flatten(), nn.Linear(16, 3)).double()
    return Quantized(model, bits), torch.rand(6, 3, 8, 8).double(), torch.randint(0, 3, (6,))


@pytest.mark.parametrize("flips", [0, 1, 12, 156])
@pytest.mark.parametrize("bits", [4, 8])
def test_adversarial_patterns_flip_the_weights_that_brute_force_chooses(flips, bits, monkeypatch):
    """Gradients by moving one weight at a time; bits by trying them all."""
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    base, images, labels = tiny(bits)
    slopes = {}
    with torch.no_grad():
        for name, layer in base.layers.items():
            flat = layer.weight.view(-1)
            for i in range(len(flat)):
                value, losses = flat[i].item(), []
                for moved in (value + 1e-5, value - 1e-5):
                    flat[i] = moved
                    losses.append(F.cross_entropy(base(images), labels).item())
                flat[i] = value
                slopes[name, i] = losses[0] - losses[1]
    wanted = {name: {} for name in base.layers}
    for name, i in sorted(slopes, key=lambda place: -abs(slopes[place]))[:flips]:
        code = int(base.codes[name][i])
        right = [bit for bit in range(bits) if (flip(code, bit, bits) > code) == (slopes[name, i] > 0)]
        wanted[name][i] = 1 << max(right, default=0)
    pattern = adversarial_pattern(base, images, labels, flips)
    assert list(pattern) == list(base.layers)
    for name, faults in pattern.items():
        assert (faults.index.dtype, faults.keep.dtype, faults.toggle.dtype) == (torch.int64, torch.uint8, torch.uint8)
        assert faults.index.tolist() == sorted(wanted[name]) and (faults.keep == 255).all()
        assert dict(zip(faults.index.tolist(), faults.toggle.tolist())) == wanted[name]
    assert changed_bits(base, pattern) == flips


def random_flips(base: Quantized, flips: int, seed: int) -> dict[str, LayerFaults]:
    """One bit in each of as many weights, all drawn."""
    chance, pattern, start = np.random.default_rng(seed), {}, 0
    chosen = np.sort(chance.choice(sum(base.sizes.values()), flips, replace=False))
    for name, size in base.sizes.items():
        index = torch.from_numpy(chosen[(start <= chosen) & (chosen < start + size)] - start)
        toggle = torch.from_numpy((1 << chance.integers(8, size=len(index))).astype(np.uint8))
        pattern[name], start = LayerFaults(index, torch.full_like(toggle, 255), toggle), start + size
    return pattern


@pytest.mark.parametrize("flips", [5, 50, 500])
def test_adversarial_flips_raise_the_loss_more_than_as_many_random_ones(flips, trained, digits):
    images, labels = data.to_float(digits.test.images[:128]), digits.test.labels[:128]

    @torch.no_grad()
    def loss(pattern) -> float:
        with perturbed(trained, pattern):
            return F.cross_entropy(trained(images), labels).item()

    worst = adversarial_pattern(trained, images, labels, flips)
    drawn = [random_flips(trained, flips, seed) for seed in range(5)]
    assert {int(changed_bits(trained, pattern)) for pattern in (worst, *drawn)} == {flips}
    clean = loss({})
    assert loss(worst) - clean > 5 * max(0, np.mean([loss(pattern) - clean for pattern in drawn]))


def test_making_an_adversarial_pattern_leaves_the_base_model_and_the_images_as_they_were(few):
    base = frozen()
    images, labels = data.to_float(few.images[:8]).requires_grad_(), few.labels[:8]
    before, codes = state(base.model), copy.deepcopy(base.codes)
    first = adversarial_pattern(base, images, labels, 100)
    second = adversarial_pattern(base, images, labels, 100)
    assert all(torch.equal(first[name].index, second[name].index) for name in first)
    with pytest.raises(ValueError):
        adversarial_pattern(base, images, labels[:3], 100)
    assert same(before, state(base.model)) and same(codes, base.codes) and images.grad is None
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_an_adversarial_pattern_takes_part_in_the_gradient_as_any_other(few, monkeypatch):
    """The same gradient whether it is made on the way, from the transformed images, or known before."""
    monkeypatch.setattr(training, "precision", lambda device: "fp32")
    generator, base = generators.build("conv_s", width=0.125), frozen()
    images, labels = data.to_float(few.images[:8]), few.labels[:8]
    with torch.no_grad():
        known = adversarial_pattern(base, transform(copy.deepcopy(generator), images), labels, 50)
    other = copy.deepcopy(generator)
    eopm_gradient(generator, [base], images, labels, lambda base, _, x: adversarial_pattern(base, x, labels, 50), 1, 5.0)
    eopm_gradient(other, [base], images, labels, lambda base, k, x: known, 1, 5.0)
    assert all(torch.equal(one.grad, two.grad) for one, two in zip(generator.parameters(), other.parameters()))


def test_numbers_of_adversarial_flips_that_cannot_be_are_refused(few, refused):
    base, images, labels = tiny(8)
    for flips in (-1, 157):
        with refused(f"adversarial flips are {flips}; allowed are 0 to 156, the number of weights"):
            adversarial_pattern(base, images, labels, flips)
    with refused("adversarial_flips is -1; allowed are whole numbers from 0"):
        replace(ADVERSARIAL, adversarial_flips=-1)
    with refused("models_per_step is 2; with adversarial_flips it must be 1"):
        replace(GENERATOR, adversarial_flips=5)
    with refused("adversarial flips are 10000000; allowed are 0 to"):
        train_new_generator(few, replace(ADVERSARIAL, adversarial_flips=10_000_000))


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
    """Out of time after every step; each call takes up where the last one stopped."""
    whole, resume, stops = train(), tmp_path / "training.resume.pt", 0
    while True:
        try:
            final = train(resume=resume, deadline=0.0)
            break
        except OutOfTime:
            stops += 1
            assert [path.name for path in tmp_path.iterdir()] == [resume.name]
    assert stops in (BASE.epochs * BASE_STEPS, GENERATOR.steps, DISTILLATION.distillation_steps)
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


def flipped(content: bytes) -> bytes:
    return content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]


@pytest.mark.parametrize("damage", [garbage, cut, empty, flipped])
def test_a_damaged_state_is_refused_and_left_where_it_is(damage, few, tmp_path, refused):
    resume = tmp_path / "training.resume.pt"
    train = functools.partial(train_new_base, few)
    stop_once(train, resume)
    content = damage(resume.read_bytes())
    resume.write_bytes(content)
    with refused("move it away"):
        train(resume=resume)
    assert resume.read_bytes() == content


def test_a_training_whose_loss_is_not_finite_ends_early_and_leaves_no_state(few, tmp_path, monkeypatch):
    with pytest.raises(Diverged, match="step"):
        train_new_base(few, replace(BASE, weight_decay=1e4, epochs=40), tmp_path / "state.pt")
    nothing = torch.full((), float("nan"))
    monkeypatch.setattr(eopm, "eopm_gradient", lambda *given, **more: (nothing, nothing))
    with pytest.raises(Diverged, match="nan"):
        train_new_generator(few, GENERATOR, tmp_path / "state.pt")
    assert not list(tmp_path.iterdir())


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


def test_what_passes_through_a_model_before_training_leaves_its_batch_norm_as_it_was():
    model, images = nn.BatchNorm2d(3).train(), 5 + torch.randn(8, 3, 4, 4)
    statistics = [buffer.clone() for buffer in model.buffers()]
    with training.buffers_kept(model):
        model(images)
        assert not torch.equal(model.running_mean, statistics[0])
    assert all(torch.equal(now, before) for now, before in zip(model.buffers(), statistics, strict=True))
    model(images)
    assert not torch.equal(model.running_mean, statistics[0]) and model.num_batches_tracked == 1
