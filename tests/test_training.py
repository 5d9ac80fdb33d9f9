"""Training computes the textbook gradient, touches only what it trains, and ends the same however it is stopped."""

import copy
import functools
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples import same, seeded, state
from nflib import data, eopm, evaluation, generators, models, training
from nflib.data import Split
from nflib.eopm import GeneratorRecipe, distill, eopm_gradient, train_generator
from nflib.faults import BitFlips, StuckAt, changed_bits, perturbed
from nflib.generators import transform
from nflib.quantize import Quantized, encode, plain, quantization_aware, weighted_layers
from nflib.training import BaseRecipe, Diverged, OutOfTime, Resumable, adversarial_weights, train_base

BASE = BaseRecipe("modern", epochs=3, batch=32, learning_rate=0.05, weight_decay=5e-4, schedule="one_cycle")
RANDOM = replace(BASE, bit_errors=0.01)
TUNED = replace(RANDOM, learning_rate=0.5, start=BASE, tuned=(2, 3))
BASE_STEPS = 2  # of an epoch: full batches in `few`
GENERATOR = GeneratorRecipe(
    "conv_s", "bit_flips", 0.02, models_per_step=2, steps=5, batch=32, learning_rate=0.01,
    schedule="one_cycle", momentum=0.1, initial_gain=0.1, width=0.125,
)  # fmt: skip
ADVERSARIAL = replace(GENERATOR, models_per_step=1, adversarial_flips=50)
TEACHER = replace(GENERATOR, name="class_wise", width=1.0)
DISTILLATION = replace(GENERATOR, distillation_steps=4, teacher=TEACHER)
ERRORS = BitFlips(0.02)


@pytest.fixture(scope="module")
def few(digits) -> Split:
    return digits.train.first(70)  # two batches and a rest


def batch_of(split: Split, count: int) -> tuple[Tensor, Tensor]:
    return data.to_float(split.images[:count]), split.labels[:count]


def random_images(count: int) -> Tensor:
    return 2 * torch.rand(count, 3, 32, 32, generator=seeded()) - 1


def new_base(seed: int = 0) -> nn.Module:
    return models.build("vgg11", width=0.0625, seed=seed).to(memory_format=torch.channels_last)


def frozen(seed: int = 0) -> Quantized:
    return Quantized(new_base(seed))


def new_generator() -> nn.Module:
    return generators.build("conv_s", width=0.125)


def original(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


def own_statistics(model: nn.Module) -> bool:
    return all(layer.track_running_stats for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


def textbook_loss(generator, bases, images, labels, patterns, models_per_step, loss_weight) -> Tensor:
    """Eq. 3 as printed: copies of the base model with their own faulty weights, a generator pass for each."""
    total = 0
    for base in bases:
        loss = F.cross_entropy(base.model(transform(generator, images)), labels)
        for k in range(models_per_step):
            faulty = copy.deepcopy(base.model)
            for name, faults in patterns(base, k, None).items():
                codes = base.codes[name].clone()
                codes[faults.index] = faults.read(codes[faults.index], base.bits)
                weight = faulty.get_submodule(name).weight
                weight.data = (codes.double() * base.scales[name]).view_as(weight)
            loss = loss + loss_weight / models_per_step * F.cross_entropy(faulty(transform(generator, images)), labels)
        total = total + loss / len(bases)
    return total


def assert_same_gradient(mine: nn.Module, textbook: nn.Module, factor: float = 1.0, relative: float = 1e-5) -> None:
    """Biases before a batch norm have no gradient but rounding, which is measured against the whole gradient."""
    size = torch.cat([parameter.grad.flatten() for parameter in textbook.parameters()]).norm()
    assert size > 0
    for one, other in zip(mine.parameters(), textbook.parameters(), strict=True):
        assert (factor * one.grad - other.grad).norm() <= relative * other.grad.norm() + 1e-12 * size


@pytest.mark.parametrize("name, surrogates", [("conv_s", 2), ("unet_s", 1)])
def test_one_generator_pass_gives_the_textbook_gradient(name, surrogates, few, fp32):
    images, labels = random_images(6).double(), few.labels[:6]
    bases = [Quantized(models.build("vgg11", width=0.125, seed=seed).double()) for seed in range(surrogates)]
    drawn = {id(base): [StuckAt(0.02).draw(base.sizes, 10 * i + k) for k in range(3)] for i, base in enumerate(bases)}
    given = []  # what patterns may depend on: the transformed images
    one = quantization_aware(generators.build(name, width=0.25).double())
    assert one.training
    other, patterns = copy.deepcopy(one), lambda base, k, x: given.append(x) or drawn[id(base)][k]
    terms = (bases, images, labels, patterns, 3, 5.0)
    clean, perturbed = eopm_gradient(one, *terms)
    assert all(torch.equal(x, transform(copy.deepcopy(other), images)) for x in given) and len(given) == 3 * surrogates
    loss = textbook_loss(other, *terms)
    loss.backward()
    assert (clean + 5 * perturbed).item() == pytest.approx(loss.item(), rel=1e-6)
    assert_same_gradient(one, other)


def test_over_the_rotations_of_its_parts_a_split_batch_gives_the_textbook_gradient(few, fp32):
    """Seven images in three parts: also where the number of models does not divide the batch.  Gradients accumulate."""
    base, images, labels = Quantized(new_base().double()), data.to_float(few.images[:7]).double(), few.labels[:7]
    drawn, losses = [ERRORS.draw(base.sizes, k) for k in range(3)], []
    split = generators.build("conv_s", width=0.25).double()
    whole = copy.deepcopy(split)
    clean, perturbed = eopm_gradient(whole, [base], images, labels, lambda base, k, _: drawn[k], 3, 5.0)
    for r in range(3):
        terms = eopm_gradient(split, [base], images, labels, lambda base, k, _: drawn[(k + r) % 3], 3, 5.0, True)
        losses.append(torch.stack(terms))
    assert torch.allclose(sum(losses) / 3, torch.stack([clean, perturbed]), rtol=1e-5)
    assert len({loss[1].item() for loss in losses}) == 3
    assert_same_gradient(split, whole, 1 / 3)


def test_while_images_fade_in_the_loss_is_of_darker_images_and_ends_as_the_papers(few, fp32):
    recipe = replace(GENERATOR, steps=90, fade_in=0.5)
    assert [recipe.brightness(step) for step in (0, 30, 45, 89)] == [0, 0, 1, 1]
    assert recipe.brightness(36) == pytest.approx(0.4) and replace(recipe, fade_in=0.0).brightness(0) == 1
    base, images, labels = Quantized(new_base().double()), data.to_float(few.images[:6]).double(), few.labels[:6]
    one = generators.build("conv_s", width=0.25).double()
    other = copy.deepcopy(one)
    eopm_gradient(one, [base], images, labels, lambda base, k, _: {}, 1, 5.0, brightness=0.4)
    loss = F.cross_entropy(base.model((0.4 * images + other(images)).clamp(-1, 1)), labels) * 6
    loss.backward()
    assert_same_gradient(one, other)


def test_skips_of_a_unet_fade_in_with_the_images(few, fp32, monkeypatch):
    unet, gains = generators.build("unet_s", width=0.5).double(), []
    scaled = copy.deepcopy(unet)
    with torch.no_grad():  # a factor on the skips is one on the weights that they meet
        for block in scaled.up:
            block[0].weight[:, : block[0].in_channels // 2] *= 0.4
        eopm.set_skip_gain(unet, 0.4)
        assert torch.allclose(unet(few.images[:4].double()), scaled(few.images[:4].double()))
    monkeypatch.setattr(eopm, "set_skip_gain", lambda generator, gain: gains.append(gain))
    recipe = replace(GENERATOR, steps=6, fade_in=1.0, fade_skips=True)
    eopm.train_generator(unet.float(), [Quantized(new_base())], few, "crop", recipe, BitFlips(0.01))
    assert gains == [recipe.brightness(step) for step in range(6)] + [1.0]


def test_mixed_rates_take_turns_with_the_seeds_of_patterns(few, fp32, monkeypatch):
    drawn, draw = [], BitFlips._pattern
    monkeypatch.setattr(BitFlips, "_pattern", lambda self, sizes, seed, bits: drawn.append((seed, self.rate)) or draw(self, sizes, seed, bits))
    for rates in ((), (0.001, 0.02, 0.05)):
        eopm.train_generator(new_generator(), [frozen()], few, "crop", replace(GENERATOR, mixed_rates=rates), BitFlips(0.01))
    usual, mixed = drawn[:10], drawn[10:]
    assert {rate for _, rate in usual} == {0.01} and [seed for seed, _ in usual] == [seed for seed, _ in mixed]
    assert mixed == [(seed, (0.001, 0.02, 0.05)[seed % 3]) for seed, _ in mixed] and len(set(mixed)) > 3


def test_distillation_follows_the_textbook_gradient_and_rests_where_the_teacher_is(few, fp32):
    teacher, one, (images, labels) = class_wise(), new_generator().eval(), batch_of(few, 8)
    other = copy.deepcopy(one)
    distance = eopm.distillation_gradient(one, teacher, images, labels)
    loss = ((images + torch.tanh(teacher.raw[labels])).clamp(-1, 1) - transform(other, images)).square().mean()
    loss.backward()
    assert distance.item() == pytest.approx(loss.item(), rel=1e-5) and loss > 0.1
    assert_same_gradient(one, other, relative=1e-4)
    assert eopm.distillation_gradient(copy.deepcopy(teacher).requires_grad_(), teacher, images, labels) == 0


def train_new_base(few: Split, recipe: BaseRecipe = BASE, resume=None, deadline=None) -> tuple[dict, dict]:
    model = new_base()
    facts = train_base(model, few, "crop", recipe, resume=resume, deadline=deadline)
    return state(model), facts


def train_new_generator(few, recipe=GENERATOR, resume=None, deadline=None, bases=(), errors=ERRORS):
    generator = generators.build(recipe.name, recipe.width, recipe.seed)
    facts = train_generator(generator, bases or [frozen()], few, "crop", recipe, errors, resume=resume, deadline=deadline)
    return state(generator), facts


def class_wise() -> nn.Module:
    """Class-wise perturbations as if trained: each class has its own."""
    teacher = generators.build("class_wise")
    nn.init.normal_(teacher.raw, 0, 2.0, generator=seeded())
    return teacher.eval().requires_grad_(False)


def train_by_distillation(few: Split, recipe=DISTILLATION, resume=None, deadline=None) -> tuple[dict, dict]:
    generator = generators.build(recipe.name, recipe.width, recipe.seed)
    facts = distill(generator, class_wise(), few, "crop", recipe, resume=resume, deadline=deadline)
    return state(generator), facts


def test_generator_training_leaves_the_base_models_as_they_were(few):
    """Weights and batch-norm statistics bit by bit, codes and scales, gradients, modes."""
    bases = [frozen(0), frozen(1)]
    before = [(state(base.model), copy.deepcopy(base.codes), copy.deepcopy(base.scales)) for base in bases]
    final, _ = train_new_generator(few, bases=bases)
    assert not same(final, state(new_generator()))
    for base, (weights, codes, scales) in zip(bases, before):
        assert same(weights, state(base.model)) and same(codes, base.codes) and same(scales, base.scales)
        assert not any(module.training for module in base.model.modules())
        assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_distillation_needs_no_base_model_and_brings_the_generator_nearer(few):
    """The recorded distance falls; nothing of Eq. 3 is recorded."""
    _, facts = train_by_distillation(few, replace(DISTILLATION, distillation_steps=20))
    steps, distances = zip(*facts["distillation_losses"])
    assert list(steps) == list(range(1, 21)) and distances[-1] < 0.9 * distances[0]
    assert facts["losses"] == [] and facts["model_images"] == facts["steps"] == 0


def test_eq_3_after_distillation_starts_from_it_and_goes_on_with_the_batches_that_follow(few, monkeypatch):
    generator, used = new_generator(), []
    distilled = distill(generator, class_wise(), few, "crop", DISTILLATION)
    kept = state(generator)

    def note(generator, bases, images, labels, *rest):
        used.append(labels)
        now = {name.replace("parametrizations.weight.original", "weight"): v for name, v in state(generator).items()}
        assert same(kept, now)  # nothing has a gradient here, so it stays
        return torch.tensor(0.0), torch.tensor(0.0)

    monkeypatch.setattr(eopm, "eopm_gradient", note)
    facts = train_generator(generator, [frozen()], few, "crop", DISTILLATION, ERRORS, distilled=distilled)
    epochs = [training.batches_of(few, 32, "crop", DISTILLATION.seed, epoch) for epoch in range(5)]
    order = [labels for epoch in epochs for _, labels in epoch]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(used, order[4:9], strict=True))
    assert facts["distillation_losses"] == distilled["distillation_losses"]
    assert facts["seconds"] >= distilled["seconds"]


def test_class_wise_perturbations_learn_to_bring_the_models_to_the_given_label(digits, trained):
    """Here to that of the next class, with and without errors."""
    recipe, some = replace(TEACHER, steps=40, learning_rate=0.05, models_per_step=1), digits.train.first(320)
    terms = ([trained], Split(some.images, (some.labels + 1) % 10), "crop", recipe, BitFlips(0.002))
    losses = train_generator(generators.build("class_wise"), *terms)["losses"]
    clean, perturbed = np.mean(losses[-5:], 0)[1:]
    assert clean < 0.6 * losses[0][1] and perturbed < 0.8 * losses[0][2]


def test_models_end_plain_in_eval_mode_with_the_float_weights_behind_the_codes(few):
    """And a generator's batch norm with the recipe's momentum, having seen each step once."""
    model, generator = new_base(), new_generator()
    train_base(model, few, "crop", BASE)
    train_generator(generator, [frozen()], few, "crop", GENERATOR, ERRORS)
    for trained, untrained in ((model, new_base()), (generator, new_generator())):
        assert trained.state_dict().keys() == untrained.state_dict().keys()
        assert not any(module.training for module in trained.modules())
        weight = next(trained.parameters()).detach()
        codes = 127 * weight / weight.abs().max()
        assert not torch.allclose(codes, codes.round(), atol=1e-3)
    norms = [layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.momentum, int(norm.num_batches_tracked)) for norm in norms} == {(0.1, 5)}


def test_every_perturbed_model_is_drawn_afresh_from_the_training_seeds(few):
    """steps x N x surrogates patterns, seeds 0 to 30000 (evaluation starts at 50000), the same in every run.
    Adversarial training draws none, and trains another generator than harmless patterns do."""
    seeds, bases = [], [frozen(0), frozen(1)]
    noted = SimpleNamespace(draw=lambda sizes, seed, bits, device: seeds.append(seed) or {})  # harms nothing
    _, facts = train_new_generator(few, bases=bases, errors=noted)
    assert len(seeds) == 5 * 2 * 2 and len(set(seeds)) > 15
    assert all(0 <= seed <= 30000 and isinstance(seed, int) for seed in seeds)
    assert facts["steps"] == 5 and facts["model_images"] == 5 * 32 * 2 * 2
    train_new_generator(few, bases=bases, errors=noted)
    assert seeds[:20] == seeds[20:]
    adversarial, facts = train_new_generator(few, ADVERSARIAL, errors=noted)
    assert len(seeds) == 40 and facts["model_images"] == 5 * 32
    assert not same(adversarial, train_new_generator(few, replace(ADVERSARIAL, adversarial_flips=0), errors=noted)[0])


@pytest.mark.parametrize("epoch", [0, 1, 9])
def test_an_epoch_is_fixed_by_seed_and_number(epoch):
    """Whole batches of images that are met once each; another epoch or seed is another order; none when interrupted."""
    many = Split(torch.arange(70, dtype=torch.uint8).view(70, 1, 1, 1).expand(70, 3, 32, 32), torch.arange(70))
    torch.manual_seed(epoch)
    batches = list(training.batches_of(many, 32, "crop", 4, epoch))
    assert [len(images) for images, _ in batches] == [32, 32]
    assert len(torch.cat([labels for _, labels in batches]).unique()) == 64
    for images, labels in batches:  # augmentation never parts an image from its label
        assert torch.equal(((images[:, 0, 16, 16] + 1) * 127.5).round().long(), labels)
    keys = ((4, epoch), (5, epoch), (4, epoch + 1))
    first, *others = (next(training.batches_of(many, 32, "crop", *key)) for key in keys)
    assert all(torch.equal(mine, before) for mine, before in zip(first, batches[0]))
    assert not any(torch.equal(other[1], first[1]) for other in others)


def rates(schedule: str, peak: float, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], peak)
    scheduler, found = training.schedule_of(optimizer, schedule, peak, steps), []
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
    level = rates("warmup_stable_decay", 0.1, 100)
    assert level[0] < 0.04 and level[3:70] == pytest.approx([0.1] * 67) and 0 < level[-1] < 0.004
    assert level == sorted(level[:50]) + sorted(level[50:], reverse=True)
    assert rates("one_cycle", 0.1, 1)  # a run of fewer steps than the schedule can have


NAN, INF = float("nan"), float("inf")
REFUSED = [
    *((BASE, {name: x}, f"{name} is {x}") for name in ("weight_perturbation", "clipping") for x in (-0.1, NAN, INF)),
    *((BASE, {"bit_errors": rate}, f"rate is {rate}") for rate in (-0.01, 1.0, 2, True, NAN)),
    (RANDOM, {"weight_perturbation": 0.01}, "bit_errors or weight_perturbation"),
    (TUNED, {"start": None}, "no start"),
    *((TUNED, {"tuned": layers}, "numbers of layers from 1") for layers in ((0,), (3, 2), (1, 1), (True,), (1.0,), ("1",))),
    (DISTILLATION, {"teacher": None}, "distillation_steps is 4"),
    *((DISTILLATION, {"distillation_steps": k}, f"distillation_steps is {k}") for k in (0, -1)),
    (ADVERSARIAL, {"adversarial_flips": -1}, "adversarial_flips is -1"),
    (GENERATOR, {"adversarial_flips": 5}, "models_per_step is 2.*adversarial_flips"),
    (GENERATOR, {"fade_in": 1.5}, "fade_in is 1.5"),
    (GENERATOR, {"mixed_rates": (0.01, 1.5)}, "bit-error rate is 1.5"),
    (GENERATOR, {"batch": 8, "models_per_step": 9, "split_batch": True}, "models_per_step is 9.*8"),
]


@pytest.mark.parametrize("recipe, change, words", REFUSED)
def test_recipes_that_cannot_be_followed_are_refused(recipe, change, words, refused):
    with refused(words):
        replace(recipe, **change)


def test_a_varied_recipe_says_its_values_and_a_named_one_its_name():
    varied, other = (replace(BASE, name="varied", **more) for more in ({}, {"clipping": 0.1, "schedule": "constant"}))
    assert BASE.words == "modern" and all(word in varied.words for word in ("0.0005", "3 epochs"))
    assert all(word in other.words and word not in varied.words for word in ("0.1", "constant"))


def textbook_base(few: Split, recipe: BaseRecipe) -> dict[str, Tensor]:
    """Base training step by step: gradient and batch-norm statistics of a copy whose weights are moved, if any."""
    model = quantization_aware(new_base()).train()
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay)
    scheduler = training.schedule_of(optimizer, recipe.schedule, recipe.learning_rate, recipe.epochs * BASE_STEPS)
    for epoch in range(recipe.epochs):
        for images, labels in training.batches_of(few, recipe.batch, "crop", recipe.seed, epoch):
            probe, moved = copy.deepcopy(model), copy.deepcopy(model)
            with training.autocast(images.device):
                F.cross_entropy(probe(images), labels).backward()
            for name, layer in weighted_layers(probe).items() if recipe.weight_perturbation else ():
                weight = original(layer)
                step = weight.grad / weight.grad.norm() * (recipe.weight_perturbation * weight.detach().norm())
                original(moved.get_submodule(name)).data += step
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
    """Bit by bit, batch-norm statistics included; gamma 0 is plain SGD, and so is a clipping that nothing reaches."""
    recipe = replace(BASE, weight_perturbation=gamma, clipping=0.0 if gamma else 1e6, seed=3)
    (final, facts), (usual, usual_facts) = (train_new_base(few, r) for r in (recipe, replace(BASE, seed=3)))
    assert same(final, textbook_base(few, recipe))
    assert all(int(count) == 6 for name, count in final.items() if name.endswith("num_batches_tracked"))
    assert same(final, usual) == (facts["losses"] == usual_facts["losses"]) == (gamma == 0)


def test_a_layer_without_gradient_stays(few):
    model = quantization_aware(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 10)))
    nn.init.zeros_(original(model[2]))
    before = state(model)
    with adversarial_weights(model, *batch_of(few, 8), 0.1):
        assert same(before, state(model))  # nothing reaches the convolution, and the other layer has no norm to move by


@pytest.mark.parametrize("limit", [0.01, 0.05])
def test_clipping_bounds_the_weights_that_errors_hit_and_nothing_else(limit, few):
    clipped, free = (train_new_base(few, replace(BASE, clipping=value))[0] for value in (limit, 0.0))
    weighted = {f"{name}.weight" for name in weighted_layers(new_base())}
    assert all(clipped[name].abs().max() <= limit < free[name].abs().max() for name in weighted)
    assert any(clipped[name].abs().max() > limit for name in clipped.keys() - weighted if "running" not in name)


@pytest.mark.parametrize("change", [{}, {"tuned": ()}, {"clipping": 0.01}, {"bit_errors": 0.0, "weight_perturbation": 0.05}])
def test_fine_tuning_changes_what_is_tuned_and_nothing_else(change, few):
    """Weights and biases, and scales and shifts of the batch norm behind: statistics stay, and so do the other layers' codes."""
    start, tuned, recipe = frozen(), new_base(), replace(TUNED, **change)
    tuned.load_state_dict(start.model.state_dict())
    names = [name for name, _ in tuned.named_parameters()]
    wanted = {name for name in names if not recipe.tuned or name.partition(".")[0] in ("4", "5", "8", "9")}  # conv, norm, twice
    train_base(tuned, few, "crop", recipe)
    before, codes = start.model.state_dict(), Quantized(copy.deepcopy(tuned)).codes
    assert {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])} == wanted
    changed = {name for name in codes if not torch.equal(codes[name], start.codes[name])}
    assert changed == {name for name in codes if f"{name}.weight" in wanted}


def read_codes(model: nn.Module, pattern) -> nn.Module:
    """A plain copy of a quantisation-aware model whose weights are decoded from the codes that are read back."""
    faulty = plain(copy.deepcopy(model))
    for name, layer in weighted_layers(faulty).items():
        codes, scale = encode(layer.weight, 8)
        flat = codes.flatten()
        flat[pattern[name].index] = pattern[name].read(flat[pattern[name].index])
        layer.weight.data = flat.view(codes.shape) * scale
    return faulty


def test_a_step_takes_the_mean_gradient_of_both_readings_of_the_codes(few, fp32):
    """Against a copy for each reading, the second with decoded weights of its own."""
    recipe = replace(RANDOM, epochs=1, batch=70, schedule="constant", bit_errors=0.03)
    model = quantization_aware(new_base()).train()
    sizes = {name: layer.weight.numel() for name, layer in weighted_layers(model).items()}
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
        weight, other = original(layer), faulty.get_submodule(name).weight
        step = (weight.grad + other.grad) / 2 + recipe.weight_decay * weight.detach()
        wanted = weight.detach() - recipe.learning_rate * step
        torch.testing.assert_close(final[f"{name}.weight"], wanted, rtol=1e-3, atol=2e-6)
    assert all(torch.equal(final[name], value) for name, value in model.named_buffers())  # by the first reading alone


def test_every_step_of_random_bit_error_training_reads_a_fresh_pattern(few, monkeypatch):
    drawn, real, base = [], training.training_pattern, frozen()
    monkeypatch.setattr(training, "training_pattern", lambda *given: drawn.append(real(*given)) or drawn[-1])
    train_new_base(few, RANDOM)
    cells = {str([faults.index.tolist() for faults in pattern.values()]) for pattern in drawn}
    assert len(cells) == len(drawn) == RANDOM.epochs * BASE_STEPS
    shares = [int(changed_bits(base, pattern)) / (8 * sum(base.sizes.values())) for pattern in drawn]
    assert np.mean(shares) == pytest.approx(RANDOM.bit_errors, rel=0.05)


TRAININGS = {"generator": train_new_generator, "distillation": train_by_distillation}
TRAININGS |= {name: functools.partial(train_new_base, recipe=recipe) for name, recipe in (("bit errors", RANDOM), ("tuning", TUNED))}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_ends_bit_by_bit_the_same(name, few, tmp_path):
    """Whatever the state of the global generator; with a deadline in the future; and out of time after every step, when
    each call takes up where the last one stopped."""
    resume, stops = tmp_path / "training.resume.pt", 0

    def train(seed: int, **options):
        torch.manual_seed(seed)
        final, facts = TRAININGS[name](few, **options)
        return final, facts["losses"] or facts["distillation_losses"]

    whole, again, stopped = train(1), train(2, resume=resume, deadline=time.monotonic() + 3600), None
    assert not list(tmp_path.iterdir())
    while not stopped:
        try:
            stopped = train(3, resume=resume, deadline=0.0)
        except OutOfTime:
            stops += 1
            assert [path.name for path in tmp_path.iterdir()] == [resume.name]
    assert stops in (BASE.epochs * BASE_STEPS, GENERATOR.steps, DISTILLATION.distillation_steps)
    finished = train(4, resume=resume)  # whoever trains keeps the state until the model is stored
    assert all(same(whole[0], final) and whole[1] == losses for final, losses in (again, stopped, finished))


def test_a_training_whose_loss_is_not_finite_ends_early_and_leaves_no_state(few, tmp_path, monkeypatch):
    with pytest.raises(Diverged, match="step"):
        train_new_base(few, replace(BASE, weight_decay=1e4, epochs=40), tmp_path / "state.pt")
    monkeypatch.setattr(eopm, "eopm_gradient", lambda *given, **more: 2 * (torch.tensor(NAN),))
    with pytest.raises(Diverged, match="nan"):
        train_new_generator(few, GENERATOR, tmp_path / "state.pt")
    assert not list(tmp_path.iterdir())


def test_state_is_kept_now_and_then_and_when_time_is_over(tmp_path):
    path, model = tmp_path / "deep" / "state.pt", nn.Linear(2, 2)
    state = Resumable(path, seconds=3600, model=model)
    state.save(lambda: {"step": 1})
    assert state.load() == {} and not path.exists()
    Resumable(path, seconds=-1, model=model).save(lambda: {"step": 2})
    weight = model.weight.detach().clone()
    nn.init.zeros_(model.weight)
    assert state.load() == {"step": 2} and torch.equal(model.weight, weight)
    with pytest.raises(OutOfTime):
        Resumable(path, deadline=0.0, model=model).save(lambda: {"step": 3})
    assert state.load() == {"step": 3}
    state.done(), state.done()
    assert not path.exists() and Resumable(None).load() == {}
    with pytest.raises(OutOfTime):
        Resumable(None, deadline=0.0).save(dict)


@pytest.mark.parametrize("name", [*generators.LABELS, "universal"])
def test_a_small_initial_gain_starts_near_the_image_itself(name):
    images, whole = random_images(4), generators.build(name, width=0.25)
    small, none, one = (copy.deepcopy(whole) for _ in range(3))
    for generator, gain in ((small, 0.01), (none, 0.0), (one, 1.0)):
        eopm.set_initial_gain(generator, gain)
    with torch.no_grad():
        assert torch.equal(transform(none, images), images) and torch.equal(one(images), whole(images))
        moved, much = (transform(generator, images) - images for generator in (small, whole))
        assert moved.abs().max() < 0.1
        assert moved.norm() < 0.03 * much.norm() or name == "universal"


def test_bf16_accuracies_lie_within_0_3_points_of_fp32(trained, digits, monkeypatch):
    """All 1,797 digits, clean and under two error patterns (their mean), the base model alone; bf16 is really used."""
    splits, found, logits = (digits.train, digits.validation, digits.test), {}, {}
    whole = Split(torch.cat([s.images for s in splits]), torch.cat([s.labels for s in splits]))
    for arithmetic in ("fp32", "bf16"):
        monkeypatch.setattr(training, "precision", lambda device: arithmetic)
        batches = evaluation.prepared(whole, None)
        perturbed, _ = evaluation.perturbed_accuracies(trained, BitFlips(0.001), range(50000, 50002), batches)
        found[arithmetic] = np.array([evaluation.accuracy(trained, batches), np.mean(perturbed)])
        logits[arithmetic] = evaluation.outputs(trained, evaluation.prepared(digits.test.first(20), None))
        assert logits[arithmetic].dtype == torch.float32
    assert found["fp32"][0] > 90 and (np.abs(found["bf16"] - found["fp32"]) <= 0.3).all(), found
    assert torch.equal(logits["bf16"], logits["bf16"].bfloat16().float()) and not torch.equal(*logits.values())


def test_evaluation_counts_right_answers(trained, digits):
    """Against one image at a time, with and without a pattern; the shares of changed bits are near the rate."""
    batches, ticks = evaluation.prepared(digits.test.first(60), None, batch=25), []
    assert [len(labels) for _, labels in batches] == [25, 25, 10]
    with torch.inference_mode():
        answers = torch.cat([trained(image).argmax(1) for image in batch_of(digits.test, 60)[0].split(1)])
    right = (answers == digits.test.labels[:60]).double().mean().item()
    assert evaluation.accuracy(trained, batches) == pytest.approx(100 * right, abs=100 / 60 + 1e-9)
    accuracies, shares = evaluation.perturbed_accuracies(trained, ERRORS, (1, 2), batches, lambda: ticks.append(1))
    assert len(accuracies) == len(shares) == len(ticks) == 2
    assert all(abs(share - 0.02) < 5 * np.sqrt(0.02 / 8 / sum(trained.sizes.values())) for share in shares)


@pytest.mark.parametrize("name", ["vgg11", "preact_resnet18"])
def test_weighted_layers_alone_move_and_come_back_whatever_happens(name, few, fp32):
    model, (images, labels) = quantization_aware(models.build(name, width=0.0625)).train(), batch_of(few, 32)
    before, layers = state(model), weighted_layers(model)
    with pytest.raises(KeyboardInterrupt), adversarial_weights(model, images, labels, 0.01):
        moved = {key for key, value in state(model).items() if not torch.equal(value, before[key])}
        assert moved == {f"{name}.parametrizations.weight.original" for name in layers}
        assert all(original(layer).grad is None for layer in layers.values())
        raise KeyboardInterrupt
    with pytest.raises(ValueError), adversarial_weights(model, images, labels[:3], 0.1):
        pass
    assert same(before, state(model)) and own_statistics(model)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "cct"])
def test_codes_are_read_back_within_and_as_stored_afterwards_whatever_happens(name, few, fp32):
    model, base, stored = (models.build(name, width=0.0625).to(memory_format=torch.channels_last) for _ in range(3))
    model, base, stored = quantization_aware(model).train(), Quantized(base), Quantized(stored)
    pattern, images, before = BitFlips(0.05).draw(base.sizes, 3), data.to_float(few.images[:16]), state(model)
    base.model.train(), stored.model.train()
    with torch.no_grad(), pytest.raises(KeyboardInterrupt), training.read_back(model, pattern):
        with perturbed(base, pattern):
            torch.testing.assert_close(model(images), base(images), rtol=1e-3, atol=1e-3)
            assert not torch.allclose(model(images), stored(images), rtol=0.01)
        raise KeyboardInterrupt
    assert same(before, state(model)) and own_statistics(model)
    assert all(layer.parametrizations.weight[0].faults is None for layer in weighted_layers(model).values())
