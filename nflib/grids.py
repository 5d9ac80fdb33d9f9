"""Profiles: which cells each table needs, at smoke scale and at paper scale."""

import dataclasses
from collections.abc import Callable, Sequence

from nflib import generators, models
from nflib.names import choose
from nflib.study import PROFILES, Base, Cell
from nflib.training import BaseRecipe, GeneratorRecipe

TABLES = ("accuracy",)
MAIN_LAWS = ("release_map", "bit_flips")
LAWS = (*MAIN_LAWS, "stuck_at")
PAPER_RATES = {  # the bit-error rates of Tables 12 to 15
    "cifar10": (0.01, 0.005),
    "gtsrb": (0.01, 0.005),
    "imagenette224": (0.005,),
    "imagenet10": (0.005,),
    "cifar100": (0.01, 0.005, 0.0035),
}
BASE_RECIPES = {
    "smoke": {
        "release": BaseRecipe("release", epochs=8, batch=64, learning_rate=0.03),
        "modern": BaseRecipe("modern", 8, 64, 0.1, weight_decay=5e-4, schedule="one_cycle"),
    },
    "paper": {
        "release": BaseRecipe("release", epochs=30, batch=128, learning_rate=0.02),
        "modern": BaseRecipe("modern", 20, 128, 0.1, weight_decay=5e-4, schedule="one_cycle"),
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
SMOKE_WIDTHS = {"resnet18": 0.0625, "resnet50": 0.0625, "vgg11": 0.125, "vgg16": 0.125, "vgg19": 0.125}
FIRST_LOOK_EPOCHS, FIRST_LOOK_STEPS = 2, 120


def generator_recipe(profile: str, name: str, law: str, rate: float) -> GeneratorRecipe:
    """The profile's recipe for a generator trained under `law` at bit-error rate `rate`."""
    return dataclasses.replace(GENERATOR_RECIPES[profile], name=name, law=law, rate=rate)


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
    choose("profile", profile, PROFILES)
    choose("base model", base_model, models.NAMES)
    recipe = BASE_RECIPES[profile][choose("base recipe", base_recipe, BASE_RECIPES[profile])]
    width = SMOKE_WIDTHS[base_model] if profile == "smoke" else 1.0
    return _grid(
        Base(dataset, base_model, recipe, width),
        [(name, law, rate) for law in error_models for rate in rates for name in generator_names],
        [(law, rate) for law in error_models for rate in rates],
        lambda *key: generator_recipe(profile, *key),
        patterns=patterns,
    )


def _grid(base: Base, with_generator: list[tuple], alone: list[tuple], recipe: Callable, **evaluation) -> list[Cell]:
    cells = [Cell("accuracy", base, law=law, rate=rate, **evaluation) for law, rate in alone]
    for name, law, rate in with_generator:
        cells.append(Cell("accuracy", base, recipe(name, law, rate), law=law, rate=rate, **evaluation))
    return cells


def _smoke() -> list[Cell]:
    cells = []
    for model in models.NAMES:
        cells += accuracy("smoke", "digits", model, "release", generators.NAMES, ("release_map",), (0.01,), 10)
        cells += accuracy("smoke", "digits", model, "release", ("conv_l", "unet_s"), ("bit_flips",), (0.01,), 10)
        cells += accuracy("smoke", "digits", model, "release", (), ("stuck_at",), (0.01,), 10)
        cells += accuracy("smoke", "digits", model, "modern", (), LAWS, (0.01,), 10)
    return cells


def first_look() -> list[Cell]:
    """VGG11 on CIFAR-10, full size, trained for as long as two CPU cores can afford; the first 1,000 test images."""
    cells = []
    for recipe in BASE_RECIPES["paper"].values():
        base = Base("cifar10", "vgg11", dataclasses.replace(recipe, epochs=FIRST_LOOK_EPOCHS))

        def short(name: str, law: str, rate: float) -> GeneratorRecipe:
            whole = generator_recipe("paper", name, law, rate)
            return dataclasses.replace(whole, steps=FIRST_LOOK_STEPS, batch=128, models_per_step=1)

        alone = [(law, rate) for law in LAWS for rate in (0.01, 0.005)]
        with_generator = [(name, law, 0.01) for law in MAIN_LAWS for name in ("conv_l", "unet_s")]
        cells += _grid(base, with_generator, alone, short, patterns=20, images=1000)
    return cells


def _paper() -> list[Cell]:
    cells = first_look()
    for dataset, rates in PAPER_RATES.items():
        for model in models.NAMES:
            for recipe in BASE_RECIPES["paper"]:
                cells += accuracy("paper", dataset, model, recipe, generators.NAMES, MAIN_LAWS, rates, 50)
                cells += accuracy("paper", dataset, model, recipe, (), ("stuck_at",), rates, 50)
    return cells


def cells(profile: str, table: str) -> list[Cell]:
    """The cells of a table.  Raises UserError for an unknown profile or table."""
    choose("profile", profile, PROFILES)
    choose("table", table, TABLES)
    return _smoke() if profile == "smoke" else _paper()
