"""Profiles: which cells each table has at smoke scale and at paper scale, and the first looks that two CPU cores can afford."""

import dataclasses
from collections.abc import Iterable

from nflib import generators, models
from nflib.cells import Base, Cell
from nflib.grids import (
    RECIPES,
    ROBUST_RECIPES,
    SURROGATES,
    WIDTHS,
    ablations,
    accuracy,
    base_recipe,
    cost,
    error_models,
    is_official,
    mechanism,
    overhead,
    quantization,
    robust_training,
    seeds,
    sensitivity,
    shift,
    tradeoff,
    transfer,
    transformed_images,
    tsne,
)
from nflib.mitigations import MITIGATIONS
from nflib.names import PROFILES, TABLES, choose
from nflib.shifts import SHIFTS

MAIN_LAWS = ("release_map", "bit_flips")
LAWS = (*MAIN_LAWS, "stuck_at")
PAPER_RATES = {  # the bit-error rates of Tables 12 to 15
    "cifar10": (0.01, 0.005),
    "gtsrb": (0.01, 0.005),
    "imagenette224": (0.005,),
    "imagenet10": (0.005,),
    "cifar100": (0.01, 0.005, 0.0035),
}
RATES = (0.0001, 0.0003, 0.001, 0.002, 0.0035, 0.005, 0.01, 0.015)  # along the voltage
WEIGHT_DECAYS, CLIPPINGS = (0.0, 1e-4, 5e-4, 2e-3), (0.1, 0.05, 0.025)
BIT_ERROR_RATES = (0.01,)  # of random bit error training
FIRST_LOOK_EPOCHS, FIRST_LOOK_STEPS, FIRST_LOOK_IMITATION, FIRST_LOOK_IMAGES = 12, 300, 3700, 2000
LONGER_STEPS = 2000
DAMAGE_IMAGES = 500

# -------------------------------------------------------------------------------------------------------- first looks


def shortened(cells: Iterable[Cell], patterns: int = 20, steps: int = 0) -> list[Cell]:
    """Paper-scale cells as short as two CPU cores can afford: few epochs, imitation and `steps` of Eq. 3 after it, the first
    test images.  The official recipe keeps its batch."""

    def short(whole: Base) -> Base:
        return dataclasses.replace(whole, recipe=dataclasses.replace(whole.recipe, epochs=FIRST_LOOK_EPOCHS))

    changed = []
    for cell in cells:
        recipe = cell.generator
        if recipe and recipe.name not in generators.CONTROLS:
            imitation_steps, most = min(recipe.imitation_steps, FIRST_LOOK_IMITATION), min(recipe.steps, steps)
            batch = recipe.batch if is_official(recipe) else 128
            recipe = dataclasses.replace(recipe, steps=most, batch=batch, imitation_steps=imitation_steps)
        surrogates, teller = tuple(short(whole) for whole in cell.surrogates), cell.teller and short(cell.teller)
        images = cell.images or FIRST_LOOK_IMAGES
        fewer = {"patterns": min(patterns, cell.patterns), "images": images}
        whole = {"base": short(cell.base), "surrogates": surrogates, "teller": teller}
        changed.append(dataclasses.replace(cell, generator=recipe, **whole, **fewer))
    return changed


def varied_recipes(model: str, named: Iterable[str], width: float, epochs: int, patterns: int) -> list[Cell]:
    """Every variation, on CIFAR-10, of a base recipe of `epochs` epochs, and the `named` recipes."""
    varied = (width, epochs, WEIGHT_DECAYS, CLIPPINGS, BIT_ERROR_RATES, ("constant",), (epochs // 2, 2 * epochs))
    return base_recipe("paper", "cifar10", model, tuple(named), *varied, MAIN_LAWS, 0.01, patterns, DAMAGE_IMAGES)


def first_look(table: str) -> list[Cell]:
    """VGG11 on CIFAR-10, full size, shortened, for a table; [] for tables without.

    accuracy, transfer and quantization have ResNet18 too, accuracy the other data sets of 32 x 32 pixels.
    """
    at = ("paper", "cifar10")
    if table == "accuracy":
        whole = [
            cell
            for model in ("vgg11", "resnet18")
            for recipe in RECIPES
            for cell in (
                *accuracy(*at, model, recipe, (), LAWS, (0.01, 0.005), 20),
                *accuracy(*at, model, recipe, ("conv_s", "unet_l"), MAIN_LAWS, (0.01,), 20),
            )
        ]
        whole += accuracy(*at, "vgg11", "release", generators.NAMES, ("release_map",), (0.01,), 20)
        for other in ("gtsrb", "cifar100"):
            whole += accuracy("paper", other, "vgg11", "release", (), MAIN_LAWS, PAPER_RATES[other], 20)
            whole += accuracy("paper", other, "vgg11", "release", ("conv_s", "unet_l"), ("release_map",), (0.01,), 20)
    elif table == "error_models":
        return shortened(error_models(*at, ("vgg11",), RECIPES, ("conv_s",), 0.01, 50), 50)
    elif table == "quantization":
        laws = ("release_map", "release_map_sign_slip", "bit_flips")
        whole = shortened(quantization(*at, ("vgg11",), "release", ("conv_s", "unet_l"), laws, 0.01, 0.005, WIDTHS, 10))
        # Half of Table 22, on as many error patterns as the paper has: training is whole, as transfer needs it too.
        printed = quantization(*at, ("resnet18",), "release", ("conv_l", "unet_l"), (laws[1], laws[0]), 0.01, 0.005, WIDTHS, 10)
        return whole + [dataclasses.replace(cell, images=FIRST_LOOK_IMAGES) for cell in printed]
    elif table == "tsne":
        whole = tsne(*at, "vgg11", "release", ("conv_s", "unet_l"), "release_map", 0.01, 5, 500)
    elif table == "transformed_images":
        whole = transformed_images(*at, ("vgg11",), "release", ("conv_s", "unet_l"), "release_map", 0.01)
        alone = transformed_images(*at, ("vgg11",), "release", ("conv_s",), "release_map", 0.01, imitation=False)
        return shortened(whole) + shortened(alone, steps=LONGER_STEPS)
    elif table == "base_recipe":
        short = varied_recipes("vgg11", (), 0.5, 6, 20)
        short = [dataclasses.replace(cell, images=cell.images or FIRST_LOOK_IMAGES) for cell in short]
        whole = (*RECIPES, *ROBUST_RECIPES)
        named = base_recipe(*at, "vgg11", whole, 1.0, 20, (), (), (), (), (), MAIN_LAWS, 0.01, 20, DAMAGE_IMAGES)
        named = [cell for cell in named if cell.base.recipe.name in whole]
        return list(dict.fromkeys([*short, *shortened(named)]))
    elif table == "mechanism":
        whole = mechanism(*at, ("vgg11",), "release", generators.NAMES, "release_map", 0.01, 20)
        return shortened(whole, steps=FIRST_LOOK_STEPS)
    elif table == "cost":
        lengths = ((10, 30, 100), (30, 100, FIRST_LOOK_STEPS), (250, 1000, FIRST_LOOK_IMITATION))
        whole = shortened(cost(*at, ("vgg11",), "release", ("conv_s",), "release_map", 0.01, *lengths, 20), steps=FIRST_LOOK_STEPS)
        longer = cost(*at, ("vgg11",), "release", ("conv_s",), "release_map", 0.01, (), (LONGER_STEPS,), (), 20)  # Eq. 3 alone
        return list(dict.fromkeys([*whole, *shortened(longer, steps=LONGER_STEPS)]))
    elif table == "tradeoff":
        whole = tradeoff(*at, ("vgg11",), "release", ("conv_s", "unet_l", "conv_l"), ("conv_l",), MITIGATIONS, ROBUST_RECIPES, ("release_map",), 0.01, RATES, 20)
        whole += tradeoff(*at, ("vgg11",), "release", (), (), MITIGATIONS, ROBUST_RECIPES, ("bit_flips",), 0.01, RATES, 20)
        front = (("conv_s", "unet_l"), ("conv_l",), MITIGATIONS, ROBUST_RECIPES)
        whole += tradeoff(*at, ("vgg11",), "modern", *front, ("release_map",), 0.01, RATES, 20)
        whole += tradeoff(*at, ("vgg11",), "modern", (), (), MITIGATIONS, ROBUST_RECIPES, ("bit_flips",), 0.01, RATES, 20)
    elif table == "transfer":
        pair = ("vgg11", "resnet18")
        whole = transfer(*at, pair, pair, "release", ("conv_s", "unet_l"), ("release_map",), (0.01,), (0.01,), 20, ensemble=False)
    elif table == "shift":
        whole = shift(*at, ("vgg11",), "release", ("conv_s", "unet_l"), ("conv_l",), tuple(SHIFTS), "release_map", 0.01, 20)
    elif table == "seeds":
        whole = seeds(*at, ("vgg11",), "release", ("conv_s",), ("release_map",), 0.01, 3, 20)
    elif table == "sensitivity":
        whole = sensitivity(*at, ("vgg11",), "release", ("conv_s", "unet_l"), ("release_map",), 0.01, 10, 1000)
    else:
        return []
    return shortened(dict.fromkeys(whole))


# ----------------------------------------------------------------------------------------------------------- profiles


def _smoke(table: str) -> list[Cell]:
    at, law = ("smoke", "digits"), ("release_map",)
    if table == "accuracy":
        # A ResNet and a VGG meet every generator and recipe, the others those that `transfer` compares: CI has minutes.
        cells = accuracy(*at, "vgg11", "release", ("conv_l", "unet_s"), ("bit_flips",), (0.01,), 10)
        for model in models.NAMES:
            every = model in ("resnet18", "vgg11")
            cells += accuracy(*at, model, "release", generators.NAMES if every else ("conv_l", "unet_l"), law, (0.01,), 10)
            cells += accuracy(*at, model, "release", (), LAWS, (0.01,), 10)
            cells += accuracy(*at, model, "modern", (), LAWS, (0.01,), 10) if every else []
        return list(dict.fromkeys(cells))
    return {
        "transfer": lambda: transfer(
            *at, SURROGATES, models.NAMES, "release", ("conv_l", "unet_l"), law, (0.015,), (0.01,), 10
        ),
        "quantization": lambda: quantization(
            *at, ("vgg11",), "release", ("conv_l", "unet_l"), (*law, "release_map_sign_slip", "bit_flips"), 0.01, 0.005, WIDTHS, 10
        ),
        "tsne": lambda: tsne(*at, "vgg11", "release", ("conv_l", "conv_s"), *law, 0.01, 3, 360),
        "overhead": lambda: overhead("smoke", ("cifar10",), ("vgg11",), ("conv_s",), (1,), "cpu"),
        "ablations": lambda: [
            *ablations(*at, ("vgg11",), "release", ("conv_l",), *law, 0.01, (1, 2, 4), (10, 5, 1, 0.1, 0.01), True, 10),
            *ablations(*at, ("resnet18", "vgg16", "vgg19"), "release", (), *law, 0.01, (), (), True, 10),
        ],
        "robust_training": lambda: robust_training(
            *at, "vgg11", "release", (10, 100, 1000), ("conv_l", "unet_s"), *law, (0.01,), 10
        ),
        "transformed_images": lambda: transformed_images(*at, ("vgg11",), "release", ("conv_l", "unet_s"), *law, 0.01),
        "error_models": lambda: error_models(*at, ("vgg11",), RECIPES, ("conv_l",), 0.01, 50),
        "base_recipe": lambda: base_recipe(
            *at, "vgg11", (*RECIPES, *ROBUST_RECIPES), 0.125, 8, (0.0, 5e-4, 2e-3), (0.1,), (0.01,), ("constant",), (4, 16), MAIN_LAWS, 0.01, 10, 200
        ),
        "mechanism": lambda: mechanism(*at, ("vgg11",), "release", generators.NAMES, *law, 0.01, 10),
        "cost": lambda: cost(
            *at, ("vgg11",), "release", ("conv_s",), *law, 0.01, (3, 10, 30), (10, 30, 90), (40, 150), 10
        ),
        "sensitivity": lambda: sensitivity(*at, ("vgg11",), "release", ("conv_l",), law, 0.01, 10, 360),
        "seeds": lambda: seeds(*at, ("vgg11",), "release", ("conv_l",), law, 0.01, 3, 10),
        "shift": lambda: shift(*at, ("vgg11",), "release", ("conv_l",), ("conv_s",), tuple(SHIFTS), *law, 0.01, 10),
        "tradeoff": lambda: tradeoff(
            *at, ("vgg11",), "release", ("conv_s",), ("conv_s",), MITIGATIONS, ROBUST_RECIPES, law, 0.01, (0.001, 0.003, 0.01, 0.03), 10
        ),
    }[table]()


def _paper(table: str) -> list[Cell]:
    cells = first_look(table)
    cifar10, gtsrb, cifar100, imagenette = (("paper", name) for name in ("cifar10", "gtsrb", "cifar100", "imagenette224"))
    pair, release = ("conv_l", "unet_l"), "release"
    if table == "accuracy":
        for dataset, rates in PAPER_RATES.items():
            for model in models.NAMES:
                for recipe in RECIPES:
                    cells += accuracy("paper", dataset, model, recipe, generators.NAMES, MAIN_LAWS, rates, 50)
                    cells += accuracy("paper", dataset, model, recipe, (), ("stuck_at",), rates, 50)
    elif table == "transfer":
        wanted = [(cifar10, 0.015, (0.01, 0.005)), (cifar10, 0.01, (0.01, 0.005))]
        wanted += [(gtsrb, 0.015, (0.01, 0.005)), (gtsrb, 0.01, (0.01, 0.005))]
        wanted += [(cifar100, 0.01, (0.01, 0.005, 0.0035)), (cifar100, 0.005, (0.005, 0.0035))]
        for at, train_rate, rates in wanted:
            both = at == cifar10 and train_rate == 0.015
            for law in MAIN_LAWS:
                cells += transfer(*at, SURROGATES, models.NAMES, release, pair, (law,), (train_rate,), rates, 50, both)
                for target in models.NAMES:  # relaxed access, which transfer is held against
                    cells += accuracy(*at, target, release, pair, (law,), rates, 50)
    elif table == "quantization":
        laws = ("release_map", "release_map_sign_slip", "bit_flips")
        imagenet = ("paper", "imagenet10")
        for at, train_rate in ((cifar10, 0.01), (cifar10, 0.005), (gtsrb, 0.01), (gtsrb, 0.005), (imagenette, 0.005), (imagenet, 0.005)):
            cells += quantization(*at, SURROGATES, release, pair, laws, train_rate, 0.005, WIDTHS, 50)
    elif table == "tsne":
        for law in MAIN_LAWS:
            cells += tsne(*cifar10, "resnet18", release, ("conv_l", "conv_s"), law, 0.01, 5, 500)
    elif table == "overhead":
        for on in ("cpu", "cuda"):
            cells += overhead("paper", ("cifar10", "imagenette224"), SURROGATES, generators.NAMES, (1, 16), on)
    elif table == "ablations":
        for law in MAIN_LAWS:
            cells += ablations(
                *cifar10, ("resnet18",), release, ("conv_l", "conv_s"), law, 0.01, (1, 2, 5, 10, 20), (), False, 50
            )
            cells += ablations(*cifar10, SURROGATES, release, ("conv_l",), law, 0.01, (), (10, 5, 1, 0.1, 0.01), False, 50)
            for rate in (0.01, 0.005):
                cells += ablations(*cifar10, models.NAMES, release, (), law, rate, (), (), True, 50)
    elif table == "robust_training":
        flips = (100, 500, 5000, 20000, 100000)
        for law in MAIN_LAWS:
            cells += robust_training(*cifar10, "resnet18", release, flips, generators.NAMES, law, (0.01, 0.005), 50)
    elif table == "transformed_images":
        for at, rate in ((cifar10, 0.01), (gtsrb, 0.01), (cifar100, 0.01)):
            cells += transformed_images(*at, ("resnet18",), release, generators.NAMES, "release_map", rate)
        cells += transformed_images(*cifar10, ("resnet18",), release, pair, "release_map", 0.01, imitation=False)
    elif table == "error_models":
        cells += error_models(*cifar10, models.NAMES, RECIPES, ("conv_l",), 0.01, 50)
    elif table == "base_recipe":
        for model in ("vgg11", "resnet18"):
            cells += varied_recipes(model, (*RECIPES, *ROBUST_RECIPES), 1.0, 30, 50)
    elif table == "mechanism":
        for law in MAIN_LAWS:
            cells += mechanism(*cifar10, ("resnet18", "vgg11"), release, generators.NAMES, law, 0.01, 50)
    elif table == "cost":
        lengths = ((1000, 5000, 20000, 58800), (300, 1000, 4000), (1000, 4000))
        for law in MAIN_LAWS:
            cells += cost(*cifar10, ("resnet18", "vgg11"), release, ("conv_l", "conv_s"), law, 0.01, *lengths, 50)
    elif table == "sensitivity":
        for recipe in RECIPES:
            cells += sensitivity(*cifar10, ("resnet18", "vgg11"), recipe, ("conv_l", "conv_s"), MAIN_LAWS, 0.01, 50, 0)
    elif table == "seeds":
        cells += seeds(*cifar10, ("resnet18", "vgg11"), release, ("conv_l", "unet_l"), MAIN_LAWS, 0.01, 5, 50)
    elif table == "shift":
        for law in MAIN_LAWS:
            cells += shift(*cifar10, ("resnet18", "vgg11"), release, ("conv_l", "unet_l"), ("conv_l",), tuple(SHIFTS), law, 0.01, 50)
    elif table == "tradeoff":
        for recipe in RECIPES:
            front = (("conv_s", "unet_l"), ("conv_l", "unet_s"), MITIGATIONS, ROBUST_RECIPES)
            cells += tradeoff(*cifar10, ("resnet18", "vgg11"), recipe, *front, MAIN_LAWS, 0.01, RATES, 50)
    return list(dict.fromkeys(cells))


def cells(profile: str, table: str) -> list[Cell]:
    """The cells of a notebook's tables.  Raises UserError for an unknown profile or table."""
    choose("profile", profile, PROFILES)
    choose("table", table, TABLES)
    return _smoke(table) if profile == "smoke" else _paper(table)
