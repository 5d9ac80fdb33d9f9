"""Grids: the cells that each notebook's parameters ask for.

Equal settings give equal cells, so what two tables share is measured once.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from nflib import data, generators, models
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.names import PROFILES, UserError, choose
from nflib.quantize import weighted_layers
from nflib.training import VARIED, BaseRecipe

BASE_RECIPES = {
    "smoke": {
        "release": BaseRecipe("release", epochs=8, batch=64, learning_rate=0.03),
        "modern": BaseRecipe("modern", 8, 64, 0.1, weight_decay=5e-4, schedule="one_cycle"),
        "awp": BaseRecipe("awp", 8, 64, 0.03, weight_perturbation=0.005),
        "clipped": BaseRecipe("clipped", 8, 64, 0.1, schedule="one_cycle", clipping=0.1),
        "randbet": BaseRecipe("randbet", 8, 64, 0.1, schedule="one_cycle", clipping=0.1, bit_errors=0.01),
    },
    "paper": {
        "release": BaseRecipe("release", epochs=30, batch=128, learning_rate=0.05, schedule="one_cycle"),
        "modern": BaseRecipe("modern", 20, 128, 0.1, weight_decay=5e-4, schedule="one_cycle"),
        "awp": BaseRecipe("awp", 30, 128, 0.02, weight_perturbation=0.005),
        "clipped": BaseRecipe("clipped", 20, 128, 0.1, schedule="one_cycle", clipping=0.05),
        "randbet": BaseRecipe("randbet", 20, 128, 0.1, schedule="one_cycle", clipping=0.05, bit_errors=0.01),
    },
}
GENERATOR_RECIPES = {
    "smoke": GeneratorRecipe(
        models_per_step=1, steps=30, batch=64, learning_rate=0.02, schedule="one_cycle",
        momentum=0.1, initial_gain=0.1, width=0.25,
    ),
    "paper": GeneratorRecipe(
        models_per_step=2, steps=4000, batch=256, learning_rate=0.005, schedule="one_cycle",
        momentum=0.1, initial_gain=0.1,
    ),
}  # fmt: skip
OFFICIAL_GENERATOR = {  # how the official code trains generators; "paper" is its own 300 epochs of CIFAR-10
    "smoke": GeneratorRecipe(batch=64, width=0.25),
    "paper": GeneratorRecipe(),
}
IMITATION_STEPS = {"smoke": 150, "paper": 6000}
TEACHERS = {  # how the class patterns are trained that a generator imitates first: cheap, for a tenth of the images will do
    "smoke": {"steps": 60, "batch": 64, "learning_rate": 0.03, "models_per_step": 1},
    "paper": {"steps": 600, "batch": 64, "learning_rate": 0.03, "models_per_step": 1},
}
SMOKE_WIDTHS = {
    "resnet18": 0.0625, "resnet50": 0.0625, "vgg11": 0.125, "vgg16": 0.125, "vgg19": 0.125, "preact_resnet18": 0.0625,
    **dict.fromkeys(models.ENCODERS, GENERATOR_RECIPES["smoke"].width),
}  # fmt: skip
RECIPES = ("release", "modern")
ROBUST_RECIPES = ("clipped", "randbet")  # after Stutz et al. (MLSys 2021): clipped weights; these and random bit errors
SURROGATES = ("resnet18", "vgg19")
WIDTHS = (8, 7, 6, 5, 4, 3, 2)
DAMAGE_PATTERNS = 5  # error patterns of a damage cell: a layer's statistics vary less than accuracy
ATTRIBUTION = ("release_map", "release_map_tiling_corrected", "release_map_per_layer", "stuck_at", "bit_flips")


def base(profile: str, dataset: str, base_model: str, base_recipe: str) -> Base:
    """The profile's base model of a name and recipe.  Raises UserError for an unknown name."""
    choose("profile", profile, PROFILES)
    choose("base model", base_model, models.ALL_NAMES)
    recipe = BASE_RECIPES[profile][choose("base recipe", base_recipe, BASE_RECIPES[profile])]
    return Base(dataset, base_model, recipe, SMOKE_WIDTHS[base_model] if profile == "smoke" else 1.0)


def generator_recipe(
    profile: str, name: str, law: str, rate: float, imitation: bool | None = None, **changes: object
) -> GeneratorRecipe:
    """The profile's recipe for a generator trained under `law` at bit-error rate `rate`, with other fields changed.

    imitation: True first imitates class patterns that were trained, as TEACHERS says, under the same law and rate; False trains
    on Eq. 3 alone, from the start; None is the profile's habit: at smoke scale Eq. 3 alone, for imitation would double the
    time; at paper scale imitation alone, as the notebook `cost` found best on validation images.  Class patterns themselves
    are trained as teachers are.
    """
    alone = profile == "paper" and imitation is None
    imitation = alone or bool(imitation)
    whole = dataclasses.replace(GENERATOR_RECIPES[profile], name=name, law=law, rate=rate, **changes)
    if name == generators.UNIVERSAL or not (imitation or name == generators.CLASS_PATTERNS):
        return whole
    as_teacher = {"name": generators.CLASS_PATTERNS, "width": 1.0, "initial_gain": 1.0, **TEACHERS[profile]}
    teacher = dataclasses.replace(whole, **as_teacher)
    if name == generators.CLASS_PATTERNS:
        return teacher
    steps = 0 if alone else whole.steps
    return dataclasses.replace(whole, steps=steps, imitation_steps=IMITATION_STEPS[profile], teacher=teacher)


def is_official(recipe: GeneratorRecipe) -> bool:
    """Whether a generator is trained as the official code does it, whatever its setting, its batch and its length."""
    names = ("models_per_step", "learning_rate", "schedule", "momentum", "initial_gain", "teacher", "adversarial_flips")
    return all(getattr(recipe, name) == getattr(OFFICIAL_GENERATOR["paper"], name) for name in names)


def _settings(laws: Iterable[str], rates: Iterable[float]) -> list[tuple[str, float]]:
    """Each error model at each bit-error rate; a chip that was profiled once, at the first: its map decides, not the rate."""
    rates = list(rates)
    return [(law, rate) for law in laws for rate in (rates[:1] if law.startswith("chip_map:") else rates)]


def _encoders(profile: str, dataset: str, tellers: Iterable[str]) -> list[Base]:
    """The encoders of generators, as classifiers that tell the class.  Raises UserError for an unknown generator."""
    encoder_of = {of: name for name, of in models.ENCODERS.items()}
    return [base(profile, dataset, encoder_of[choose("teller", name, encoder_of)], "modern") for name in tellers]


def accuracy(
    profile: str,
    dataset: str,
    base_model: str,
    base_recipe: str,
    generator_names: Sequence[str],
    error_models: Sequence[str],
    rates: Sequence[float],
    patterns: int,
) -> list[Cell]:
    """Cells of one base model: alone under each error model and rate, then with each generator, trained under the same.

    Raises UserError for an unknown name.
    """
    whole, settings = base(profile, dataset, base_model, base_recipe), _settings(error_models, rates)
    cells = [Cell("accuracy", whole, law=law, rate=rate, patterns=patterns) for law, rate in settings]
    for law, rate in settings:
        for name in generator_names:
            recipe = generator_recipe(profile, name, law, rate)
            cells.append(Cell("accuracy", whole, recipe, law=law, rate=rate, patterns=patterns))
    return cells


def transfer(
    profile: str,
    dataset: str,
    surrogates: Sequence[str],
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_models: Sequence[str],
    train_rates: Sequence[float],
    rates: Sequence[float],
    patterns: int,
    ensemble: bool = True,
) -> list[Cell]:
    """Each target in `base_models` alone, and behind generators trained on each surrogate, and on all of them together.

    A generator that was trained on its target itself has no surrogates: the cell is that of relaxed access.
    """
    teachers = [(name,) for name in surrogates] + ([tuple(surrogates)] if ensemble and len(surrogates) > 1 else [])
    bases = {name: base(profile, dataset, name, base_recipe) for name in (*base_models, *surrogates)}
    cells = []
    for target in base_models:
        for law, rate in _settings(error_models, rates):
            cells.append(Cell("accuracy", bases[target], law=law, rate=rate, patterns=patterns))
            for names in teachers:
                on = () if names == (target,) else tuple(bases[name] for name in names)
                for name in generator_names:
                    recipes = [generator_recipe(profile, name, law, train_rate) for train_rate in train_rates]
                    cells += [Cell("accuracy", bases[target], r, on, law, rate, patterns) for r in recipes]
    return cells


def quantization(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_models: Sequence[str],
    train_rate: float,
    rate: float,
    widths: Sequence[int],
    patterns: int,
) -> list[Cell]:
    """Base models quantised to each code width without further training, alone and behind generators trained at 8 bits.

    Generators are trained at `train_rate` and measured at `rate`.  "release_map_sign_slip" is ReleaseMap read back with the
    official code's slip; its generators are those of ReleaseMap, and 8 bits know no slip.
    """
    cells = []
    for name in base_models:
        whole = base(profile, dataset, name, base_recipe)
        for law in error_models:
            trained_under = law.removesuffix("_sign_slip")
            chosen = [None, *(generator_recipe(profile, g, trained_under, train_rate) for g in generator_names)]
            for bits in widths:
                if bits == 8 and law != trained_under:
                    continue
                bits = 0 if bits == whole.recipe.bits else bits
                cells += [Cell("accuracy", whole, g, law=law, rate=rate, patterns=patterns, bits=bits) for g in chosen]
    return cells


def tsne(
    profile: str,
    dataset: str,
    base_model: str,
    base_recipe: str,
    generator_names: Sequence[str],
    error_model: str,
    rate: float,
    patterns: int,
    images: int,
) -> list[Cell]:
    """t-SNE of one base model's outputs: alone, and behind each generator trained under the same error model and rate."""
    whole, setting = base(profile, dataset, base_model, base_recipe), {"law": error_model, "rate": rate}
    chosen = [None, *(generator_recipe(profile, name, **setting) for name in generator_names)]
    return [Cell("tsne", whole, g, patterns=patterns, images=images, **setting) for g in chosen]


def overhead(
    profile: str, datasets: Sequence[str], base_models: Sequence[str], generator_names: Sequence[str], batches: Sequence[int], on: str
) -> list[Cell]:
    """Latency of each base model with each generator, full size in both profiles.  on: "cpu" or "cuda"."""
    choose("profile", profile, PROFILES)
    cells = []
    for dataset in datasets:
        for model in base_models:
            whole = Base(dataset, choose("base model", model, models.NAMES), BaseRecipe(epochs=0))
            for name in generator_names:
                recipe = GeneratorRecipe(choose("generator", name, generators.NAMES), steps=0)
                cells += [Cell("overhead", whole, recipe, patterns=1, images=batch, on=on) for batch in batches]
    return cells


def ablations(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_model: str,
    rate: float,
    models_per_step: Sequence[int],
    loss_weights: Sequence[float],
    universal: bool,
    patterns: int,
) -> list[Cell]:
    """Generators trained on Eq. 3 with other numbers of perturbed models, other lambdas; and the universal input perturbation."""
    cells = []
    changes = [{"models_per_step": n} for n in models_per_step] + [{"loss_weight": float(w)} for w in loss_weights]
    for model in base_models:
        whole, setting = base(profile, dataset, model, base_recipe), {"law": error_model, "rate": rate}
        chosen = [generator_recipe(profile, name, **setting, imitation=False, **change) for name in generator_names for change in changes]
        if universal:
            chosen.append(generator_recipe(profile, generators.UNIVERSAL, **setting))
        cells += [Cell("accuracy", whole, g, patterns=patterns, **setting) for g in [None, *chosen]]
    return list(dict.fromkeys(cells))


def robust_training(
    profile: str,
    dataset: str,
    base_model: str,
    base_recipe: str,
    flips: Sequence[int],
    generator_names: Sequence[str],
    error_model: str,
    rates: Sequence[float],
    patterns: int,
) -> list[Cell]:
    """ConvL trained on K adversarially flipped bits of `base_model` (Table 25, at the first rate), and generators for
    PreActResNet18 trained with adversarial weight perturbation (Table 26)."""
    whole = base(profile, dataset, base_model, base_recipe)
    attacked = [None, generator_recipe(profile, "conv_l", error_model, rates[0], imitation=False)]
    for count in flips:
        changes = {"models_per_step": 1, "adversarial_flips": count, "imitation": False}
        attacked.append(generator_recipe(profile, "conv_l", error_model, rates[0], **changes))
    cells = [Cell("accuracy", whole, g, law=error_model, rate=rates[0], patterns=patterns) for g in attacked]
    for recipe, names in ((base_recipe, ()), ("awp", generator_names)) if generator_names else ():
        cells += accuracy(profile, dataset, "preact_resnet18", recipe, names, (error_model,), rates, patterns)
    return list(dict.fromkeys(cells))


def transformed_images(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_model: str,
    rate: float,
    imitation: bool | None = None,
) -> list[Cell]:
    """Images, perturbations and transformed images of each base model and generator; no error pattern is needed.

    imitation: how generators are trained, see `generator_recipe`.
    """
    cells = []
    for model in base_models:
        whole, setting = base(profile, dataset, model, base_recipe), {"law": error_model, "rate": rate}
        chosen = [generator_recipe(profile, name, **setting, imitation=imitation) for name in generator_names]
        cells += [Cell("transformed_images", whole, g, patterns=0, **setting) for g in chosen]
    return cells


def error_models(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipes: Sequence[str],
    generator_names: Sequence[str],
    rate: float,
    patterns: int,
) -> list[Cell]:
    """Each error model at `rate`, and bit flips at half of it, which change as many bits as stuck-at cells: base models
    alone, and behind generators trained under the same law."""
    cells = []
    for model in base_models:
        for recipe in base_recipes:
            cells += accuracy(profile, dataset, model, recipe, generator_names, ATTRIBUTION, (rate,), patterns)
            cells += accuracy(profile, dataset, model, recipe, generator_names, ("bit_flips",), (rate / 2,), patterns)
    return cells


def mechanism(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_model: str,
    rate: float,
    patterns: int,
) -> list[Cell]:
    """Each base model alone; behind one pattern for all images, behind class patterns that are told the label, and behind
    each generator trained on Eq. 3 alone, by imitation of the class patterns alone, and by the one after the other; each
    generator's encoder alone, as a classifier of its own, and telling the class patterns the class."""
    encoders = [base(profile, dataset, name, "modern") for name, of in models.ENCODERS.items() if of in generator_names]
    setting, cells = {"law": error_model, "rate": rate}, []
    told = generator_recipe(profile, generators.CLASS_PATTERNS, **setting)
    for model in base_models:
        whole = base(profile, dataset, model, base_recipe)
        recipes = [None, dataclasses.replace(told, name=generators.UNIVERSAL), told]
        for name in generator_names:
            both = generator_recipe(profile, name, **setting, imitation=True)
            plain = generator_recipe(profile, name, **setting, imitation=False)
            recipes += [plain, dataclasses.replace(both, steps=0), both]
        cells += [Cell("accuracy", whole, recipe, patterns=patterns, **setting) for recipe in recipes]
        cells += [Cell("accuracy", whole, told, patterns=patterns, **setting, teller=encoder) for encoder in encoders]
    return cells + [Cell("accuracy", encoder, patterns=patterns, **setting) for encoder in encoders]


def tradeoff(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    tellers: Sequence[str],
    mitigations: Sequence[str],
    robust_recipes: Sequence[str],
    error_models: Sequence[str],
    train_rate: float,
    rates: Sequence[float],
    patterns: int,
) -> list[Cell]:
    """Each base model over bit-error rates: alone, with each mitigation, behind each generator trained at `train_rate` under
    the same error model, and behind class patterns of that training, told the class by the encoder of each of `tellers`; the
    same network alone, trained for as long by each of `robust_recipes`; and these encoders alone, at `train_rate`."""
    if chips := [law for law in error_models if law.startswith("chip_map:")]:
        raise UserError(f"error model {chips[0]!r}: a profiled chip has one map, at one voltage; a trade-off over the voltage needs another one")
    cells, encoders = [], _encoders(profile, dataset, tellers)
    for model in base_models:
        whole = base(profile, dataset, model, base_recipe)
        robust = [base(profile, dataset, model, name) for name in robust_recipes]
        robust = [dataclasses.replace(one, recipe=dataclasses.replace(one.recipe, epochs=whole.recipe.epochs)) for one in robust]
        for law, rate in _settings(error_models, rates):
            setting = {"law": law, "rate": rate, "patterns": patterns}
            chosen = [None, *(generator_recipe(profile, name, law, train_rate) for name in generator_names)]
            cells += [Cell("accuracy", whole, recipe, **setting) for recipe in chosen]
            told = generator_recipe(profile, generators.CLASS_PATTERNS, law, train_rate)
            cells += [Cell("accuracy", whole, told, **setting, teller=encoder) for encoder in encoders]
            cells += [Cell("mitigation", whole, **setting, mitigation=name) for name in mitigations]
            cells += [Cell("accuracy", one, **setting) for one in robust]
    for law in error_models:
        cells += [Cell("accuracy", encoder, law=law, rate=train_rate, patterns=patterns) for encoder in encoders]
    return cells


def sensitivity(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_models: Sequence[str],
    rate: float,
    patterns: int,
    images: int,
) -> list[Cell]:
    """Each base model, alone and behind each generator trained under the same errors, with errors in one bit of the codes, in
    one layer, and everywhere; and with errors in the generator's memory too.  images: test images (the first), 0 for all."""
    cells = []
    for model in base_models:
        whole = base(profile, dataset, model, base_recipe)
        layers = weighted_layers(models.build(model, 10, data.image_size(dataset), whole.width))
        places = [f"bit {k}" for k in range(whole.recipe.bits)] + [f"layer {k + 1}" for k in range(len(layers))]
        for law in error_models:
            setting = {"law": law, "rate": rate, "patterns": patterns, "images": images}
            for recipe in [None, *(generator_recipe(profile, name, law, rate) for name in generator_names)]:
                cells.append(Cell("accuracy", whole, recipe, **setting))
                cells += [Cell("sensitivity", whole, recipe, **setting, hit=hit) for hit in places]
                cells += [Cell("sensitivity", whole, recipe, **setting, hit="generator too")] if recipe else []
    return cells


def shift(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    tellers: Sequence[str],
    shifts: Sequence[str],
    error_model: str,
    rate: float,
    patterns: int,
) -> list[Cell]:
    """Each base model alone, behind each generator, and behind class patterns told the class by the encoder of each of
    `tellers`, all trained on images as they are: on test images as they are, and shifted."""
    cells, setting = [], {"law": error_model, "rate": rate, "patterns": patterns}
    for model in base_models:
        whole = base(profile, dataset, model, base_recipe)
        chosen = [None, *(generator_recipe(profile, name, error_model, rate) for name in generator_names)]
        systems = [Cell("accuracy", whole, recipe, **setting) for recipe in chosen]
        told = generator_recipe(profile, generators.CLASS_PATTERNS, error_model, rate)
        systems += [Cell("accuracy", whole, told, **setting, teller=encoder) for encoder in _encoders(profile, dataset, tellers)]
        cells += [each for cell in systems for each in (cell, *(dataclasses.replace(cell, table="shift", shift=s) for s in shifts))]
    return cells


def seeds(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_models: Sequence[str],
    rate: float,
    trainings: int,
    patterns: int,
) -> list[Cell]:
    """Each base model trained with seeds 0, 1, ..., alone and behind generators of seed 0; on that of seed 0 each generator
    with the other seeds too.  Class patterns that a generator imitates are trained anew with its seed."""
    cells, setting = [], {"rate": rate, "patterns": patterns}
    for model in base_models:
        whole = base(profile, dataset, model, base_recipe)
        again = [dataclasses.replace(whole, recipe=dataclasses.replace(whole.recipe, seed=seed)) for seed in range(trainings)]
        for law in error_models:
            cells += [Cell("accuracy", each, law=law, **setting) for each in again]
            for name in generator_names:
                kinds = [generator_recipe(profile, name, law, rate, seed=seed) for seed in range(trainings)]
                cells += [Cell("accuracy", each, kinds[0], law=law, **setting) for each in again]
                cells += [Cell("accuracy", whole, recipe, law=law, **setting) for recipe in kinds[1:]]
    return cells


def cost(
    profile: str,
    dataset: str,
    base_models: Sequence[str],
    base_recipe: str,
    generator_names: Sequence[str],
    error_model: str,
    rate: float,
    official_steps: Sequence[int],
    steps: Sequence[int],
    imitation_steps: Sequence[int],
    patterns: int,
) -> list[Cell]:
    """Each base model alone, and behind generators that are each trained for a length of its own: by the official recipe;
    by ours on Eq. 3 from the start; by imitation alone; and by the longest imitation, then Eq. 3.  Each also on validation
    images, on which lengths are chosen."""
    setting, cells = {"law": error_model, "rate": rate}, []
    for model in base_models:
        whole, recipes = base(profile, dataset, model, base_recipe), [None]
        for name in generator_names:
            official = dataclasses.replace(OFFICIAL_GENERATOR[profile], name=choose("generator", name, generators.NAMES), **setting)
            plain = generator_recipe(profile, name, **setting, imitation=False)
            both = generator_recipe(profile, name, **setting, imitation=True)
            recipes += [dataclasses.replace(official, steps=count) for count in official_steps]
            recipes += [dataclasses.replace(plain, steps=count) for count in steps]
            recipes += [dataclasses.replace(both, steps=0, imitation_steps=count) for count in imitation_steps]
            if imitation_steps:
                recipes += [dataclasses.replace(both, steps=count, imitation_steps=max(imitation_steps)) for count in steps]
        cells += [Cell("accuracy", whole, recipe, patterns=patterns, **setting) for recipe in recipes]
    return [each for cell in dict.fromkeys(cells) for each in (cell, cell.on_validation)]


def varied(profile: str, **changes: object) -> BaseRecipe:
    """The profile's recipe "modern" with some fields changed; a recipe that has a name already keeps it."""
    recipe = dataclasses.replace(BASE_RECIPES[profile]["modern"], name=VARIED, **changes)
    same = [known for known in BASE_RECIPES[profile].values() if dataclasses.replace(known, name=VARIED) == recipe]
    return same[0] if same else recipe


def base_recipe(
    profile: str,
    dataset: str,
    base_model: str,
    base_recipes: Sequence[str],
    width: float,
    epochs: int,
    weight_decays: Sequence[float],
    clippings: Sequence[float],
    bit_error_rates: Sequence[float],
    schedules: Sequence[str],
    epoch_counts: Sequence[int],
    error_models: Sequence[str],
    rate: float,
    patterns: int,
    images: int,
) -> list[Cell]:
    """One base model trained by many recipes, alone: the named `base_recipes`, and variations, one at a time, of a middle
    one, which is "modern" with `epochs` epochs.

    clippings: without weight decay.  bit_error_rates: of random bit error training, with the middle recipe and with each
    clipping.  schedules: at a fifth of the one-cycle rate's peak.  Each is measured on `patterns`
    error patterns and all test images; what errors do in its layers, on the first DAMAGE_PATTERNS and `images`.
    Raises UserError for an unknown name.
    """
    low = BASE_RECIPES[profile]["modern"].learning_rate / 5
    changes = [{}, *({"weight_decay": value} for value in weight_decays), *({"epochs": count} for count in epoch_counts)]
    clipped = [{"weight_decay": 0.0, "clipping": value} for value in clippings]
    changes += [*clipped, *({**change, "bit_errors": value} for value in bit_error_rates for change in ({}, *clipped))]
    changes += [{"schedule": name, "learning_rate": low} for name in schedules]
    recipes = [base(profile, dataset, base_model, name).recipe for name in base_recipes]
    recipes += [varied(profile, **{"epochs": epochs, **change}) for change in changes]
    cells = []
    for recipe in dict.fromkeys(recipes):
        whole = Base(dataset, choose("base model", base_model, models.ALL_NAMES), recipe, width)
        for law in error_models:
            cells.append(Cell("accuracy", whole, law=law, rate=rate, patterns=patterns))
            cells.append(Cell("damage", whole, law=law, rate=rate, patterns=min(patterns, DAMAGE_PATTERNS), images=images))
    return cells
