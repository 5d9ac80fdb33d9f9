"""Profiles: which cells each table needs, at smoke scale and at paper scale."""

import dataclasses

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
        models_per_step=1, steps=40, batch=64, learning_rate=0.005, schedule="one_cycle",
        momentum=0.1, initial_gain=0.1, width=0.25,
    ),
    "paper": GeneratorRecipe(
        models_per_step=2, steps=4000, batch=256, learning_rate=0.005, schedule="one_cycle",
        momentum=0.1, initial_gain=0.1,
    ),
}  # fmt: skip
SMOKE_WIDTH = 0.125
FIRST_LOOK_EPOCHS, FIRST_LOOK_STEPS = {"release": 3, "modern": 2}, 120


def generator_recipe(profile: str, name: str, law: str, rate: float) -> GeneratorRecipe:
    """The profile's recipe for a generator trained under `law` at bit-error rate `rate`."""
    return dataclasses.replace(GENERATOR_RECIPES[profile], name=name, law=law, rate=rate)


def _grid(base: Base, names: tuple[str, ...], rates: tuple[float, ...], recipe, **evaluation) -> list[Cell]:
    """The base model under every error model and rate; then each generator under each main error model and rate."""
    alone = [Cell("accuracy", base, law=law, rate=rate, **evaluation) for law in LAWS for rate in rates]
    with_generator = [
        Cell("accuracy", base, recipe(name, law, rate), law=law, rate=rate, **evaluation)
        for law in MAIN_LAWS
        for rate in rates
        for name in names
    ]
    return alone + with_generator


def _smoke() -> list[Cell]:
    cells = []
    for model in models.NAMES:
        for recipe in BASE_RECIPES["smoke"].values():
            base = Base("digits", model, recipe, SMOKE_WIDTH)
            names = generators.NAMES if recipe.name == "release" else ()
            cells += _grid(base, names, (0.01,), lambda *key: generator_recipe("smoke", *key), patterns=10)
    return cells


def first_look() -> list[Cell]:
    """VGG11 on CIFAR-10, full size, trained for as long as two CPU cores can afford; the first 1,000 test images."""
    cells = []
    for recipe in BASE_RECIPES["paper"].values():
        base = Base("cifar10", "vgg11", dataclasses.replace(recipe, epochs=FIRST_LOOK_EPOCHS[recipe.name]))

        def short(name: str, law: str, rate: float) -> GeneratorRecipe:
            whole = generator_recipe("paper", name, law, rate)
            return dataclasses.replace(whole, steps=FIRST_LOOK_STEPS, batch=128, models_per_step=1)

        grid = _grid(base, ("conv_l", "unet_s"), (0.01, 0.005), short, patterns=20, images=1000)
        cells += [cell for cell in grid if cell.generator is None or cell.rate == 0.01]
    return cells


def _paper() -> list[Cell]:
    cells = first_look()
    for dataset, rates in PAPER_RATES.items():
        for model in models.NAMES:
            for recipe in BASE_RECIPES["paper"].values():
                base = Base(dataset, model, recipe)
                cells += _grid(base, generators.NAMES, rates, lambda *key: generator_recipe("paper", *key), patterns=50)
    return cells


def cells(profile: str, table: str) -> list[Cell]:
    """The cells of a table.  Raises UserError for an unknown profile or table."""
    choose("profile", profile, PROFILES)
    choose("table", table, TABLES)
    return _smoke() if profile == "smoke" else _paper()
