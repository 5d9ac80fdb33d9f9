"""What each profile trains, and how: the constructors with which notebooks build their cells.

A profile is a scale of the study: "smoke" (digits, narrow networks, seconds a training), "desk" (real images, narrow
networks, two CPU cores), "paper12" (full size, base models of 12 epochs) and "paper" (full size, 30 epochs).
"""

import dataclasses
from dataclasses import dataclass, field

from nflib import data, faults, generators, models
from nflib.eopm import GeneratorRecipe
from nflib.names import PROFILES, UserError, choose
from nflib.study.cells import Base
from nflib.training import VARIED, BaseRecipe

TRAININGS = ("eopm", "faded_eopm", "distilled", "distilled_eopm", "official", "adversarial")
FADE_IN = 0.75  # of the steps
OFFICIAL = GeneratorRecipe()  # the official code's own: 300 epochs of CIFAR-10, N = 10
NARROW = {"resnet18": 0.0625, "resnet50": 0.0625, "preact_resnet18": 0.0625, "cct": 0.0625}  # smoke scale; others below
DESK = {  # about 10 million multiply-accumulates an image
    "resnet18": 0.125, "resnet50": 0.09375, "preact_resnet18": 0.125, "vgg11": 0.25, "vgg16": 0.1875, "vgg19": 0.15625,
    "cct": 0.21875, "separable": 0.375,  # this one: half a million
}  # fmt: skip
TEACHER = {"name": generators.CLASS_WISE, "width": 1.0, "initial_gain": 1.0, "learning_rate": 0.03, "models_per_step": 1}


@dataclass(frozen=True)
class Profile:
    """base_recipes: by name.  eopm: how generators are trained on Eq. 3.  distillation: changes to it for a generator that
    learns to reproduce class-wise perturbations.  teacher: changes for these.  widths: of networks by name; else 1."""

    base_recipes: dict[str, BaseRecipe]
    eopm: GeneratorRecipe
    distillation: dict
    teacher: dict
    widths: dict[str, float] = field(default_factory=dict)


def _base_recipes(usual: dict, awp: dict, fast: dict, clipping: float) -> dict[str, BaseRecipe]:
    """By name: without weight decay, with adversarial weights, and three trained fast: weight decay, clipping, bit errors."""
    recipes = [
        BaseRecipe("release", **usual),
        BaseRecipe("awp", **awp, weight_perturbation=0.005),
        BaseRecipe("modern", **fast, weight_decay=5e-4),
        BaseRecipe("clipped", **fast, clipping=clipping),
        BaseRecipe("randbet", **fast, clipping=clipping, bit_errors=0.01),
    ]
    return {recipe.name: recipe for recipe in recipes}


def _full_size(epochs: int, fast_epochs: int, eopm: dict, distillation: dict) -> Profile:
    """Networks of the paper's size, whose base models are trained for `epochs`, or `fast_epochs` (see `_base_recipes`)."""
    whole, cycle = {"epochs": epochs, "batch": 128}, {"schedule": "one_cycle"}
    usual, awp = whole | cycle | {"learning_rate": 0.05}, whole | {"learning_rate": 0.02}
    fast = whole | cycle | {"epochs": fast_epochs, "learning_rate": 0.1}
    ours = {"models_per_step": 2, "learning_rate": 0.005, "schedule": "one_cycle", "momentum": 0.1, "initial_gain": 0.1}
    teacher = {"steps": 600, "batch": 64}
    return Profile(_base_recipes(usual, awp, fast, 0.05), GeneratorRecipe(**ours, **eopm), distillation, teacher)


_SMOKE = {"epochs": 8, "batch": 64, "learning_rate": 0.03}
_DESK = {"epochs": 12, "batch": 128, "learning_rate": 0.05, "schedule": "one_cycle"}
_BY_PROFILE = {
    "smoke": Profile(
        _base_recipes(_SMOKE, _SMOKE, _SMOKE | {"learning_rate": 0.1, "schedule": "one_cycle"}, 0.1),
        GeneratorRecipe(
            models_per_step=1, steps=30, batch=64, learning_rate=0.02, schedule="one_cycle",
            momentum=0.1, initial_gain=0.1, width=0.25,
        ),
        {"distillation_steps": 150},
        {"steps": 60, "batch": 64},
        {**dict.fromkeys(models.VGGS, 0.125), **dict.fromkeys([*models.ENCODERS, *models.SEPARABLE], 0.25), **NARROW},
    ),
    "desk": Profile(
        _base_recipes(_DESK, _DESK, _DESK | {"learning_rate": 0.1}, 0.1),
        GeneratorRecipe(  # chosen on validation images, for ConvL in front of VGG11: see notebook cost
            models_per_step=4, split_batch=True, steps=7000, batch=128, learning_rate=0.005,
            schedule="warmup_stable_decay", momentum=0.1, width=0.25,
        ),
        {"distillation_steps": 4000},
        {"steps": 600, "batch": 64, "schedule": "one_cycle", "split_batch": False},
        {**dict.fromkeys(models.ENCODERS, 0.25), **DESK},
    ),
    "paper12": _full_size(12, 12, {"steps": 300, "batch": 128}, {"distillation_steps": 3700}),
    "paper": _full_size(30, 20, {"steps": 4000}, {"distillation_steps": 6000}),
}  # fmt: skip


def base(profile: str, dataset: str, model: str, recipe: str = "release", **changes: object) -> Base:
    """The profile's base model of a name and recipe; with `width` or fields of its recipe changed (start: a recipe's name).

    Raises UserError for an unknown name, or a value that cannot be trained.
    """
    chosen = _BY_PROFILE[choose("profile", profile, PROFILES)]
    choose("data set", dataset, data.names())
    choose("base model", model, models.ALL_LABELS)
    width = changes.pop("width", chosen.widths.get(model, 1.0))
    if changes.get("start"):
        changes["start"] = base(profile, dataset, model, changes["start"], seed=changes.get("seed", 0)).recipe
    plain = chosen.base_recipes[choose("base recipe", recipe, chosen.base_recipes)]
    whole = dataclasses.replace(plain, **changes)
    if any(getattr(whole, name) != getattr(plain, name) for name in changes if name not in ("seed", "epochs")):
        whole = dataclasses.replace(whole, name=VARIED)
        same = [known for known in chosen.base_recipes.values() if dataclasses.replace(known, name=VARIED) == whole]
        whole = same[0] if same else whole
    return Base(dataset, model, whole, width)


def selector(profile: str, dataset: str, name: str) -> Base:
    """A classifier that selects class-wise perturbations: "separable", or the encoder of a generator of that name."""
    known = models.ENCODER_OF | {name: name for name in models.SEPARABLE}
    return base(profile, dataset, known[choose("selector", name, known)], "modern")


def generator(
    profile: str, name: str, training: str, error_model: str, rate: float, **changes: object
) -> GeneratorRecipe:
    """The profile's recipe for a generator trained under `error_model` at bit-error rate `rate`, with other fields changed.

    training: "eopm" (Eq. 3 on the profile's schedule), "faded_eopm" (the same with images that fade in), "official" (the
    official code's schedule, N and rates; `steps` of its own), "distilled" (learns to reproduce class-wise perturbations
    that were trained under the same errors), "distilled_eopm" (that, then Eq. 3), or "adversarial" (give
    `adversarial_flips`).  Perturbations without a network, class-wise or universal, are always trained on Eq. 3.
    Raises UserError for an unknown name or a bad value.
    """
    chosen = _BY_PROFILE[choose("profile", profile, PROFILES)]
    choose("generator", name, generators.ALL_LABELS)
    choose("training", training, TRAININGS)
    faults.named(error_model, rate)
    where = {"name": name, "error_model": error_model, "rate": float(rate)}
    if name in generators.CONTROLS:
        return dataclasses.replace(chosen.eopm, **TEACHER | chosen.teacher | where | changes)
    if training == "official":
        same = {field: getattr(chosen.eopm, field) for field in ("batch", "width")} if profile in ("smoke", "desk") else {}
        return dataclasses.replace(OFFICIAL, **where | same | changes)
    if training == "adversarial":
        return dataclasses.replace(chosen.eopm, **where | {"models_per_step": 1, "split_batch": False} | changes)
    if training in ("eopm", "faded_eopm"):
        fade = {"fade_in": FADE_IN, "fade_skips": name.startswith("unet")} if training == "faded_eopm" else {}
        return dataclasses.replace(chosen.eopm, **where | fade | changes)
    whole = dataclasses.replace(chosen.eopm, **where)
    seed = {"seed": changes["seed"]} if "seed" in changes else {}
    teacher = dataclasses.replace(whole, **{**TEACHER, **chosen.teacher, **seed})
    steps = {"steps": 0} if training == "distilled" else {}
    return dataclasses.replace(whole, **{"teacher": teacher, **chosen.distillation, **steps, **changes})


def is_official(recipe: GeneratorRecipe) -> bool:
    """Whether a generator is trained as the official code does it, whatever its setting, its batch and its length."""
    names = ["models_per_step", "learning_rate", "schedule", "momentum", "initial_gain", "teacher", "adversarial_flips"]
    names += ["split_batch", "fade_in", "mixed_rates"]
    return all(getattr(recipe, name) == getattr(OFFICIAL, name) for name in names)


def settings(error_models: list[str], rates: list[float]) -> list[tuple[str, float]]:
    """Each error model at each bit-error rate; a profiled chip once, for its map decides, not the rate.

    Raises UserError without any, and for a chip's map that cannot be read.
    """
    if not error_models or not rates:
        raise UserError("at least one error model and one bit-error rate are needed")
    for name in error_models:
        error_model = faults.named(name, rates[0])
        if faults.is_chip_map(name):
            error_model.load()
    return [(name, rate) for name in error_models for rate in (rates[:1] if faults.is_chip_map(name) else rates)]
