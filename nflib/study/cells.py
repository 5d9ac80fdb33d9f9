"""Cells: everything that fixes one measured number, and its digest."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nflib import data, faults, generators, models
from nflib.eopm import GeneratorRecipe
from nflib.mitigations import MITIGATIONS
from nflib.names import UserError, check_numbers, choose
from nflib.quantize import check_bits, weighted_layers
from nflib.shifts import SHIFTS
from nflib.training import BaseRecipe

FIRST_SEED = 50000  # the official evaluation seeds are 50000 to 50009
VALIDATION_SEED = 40000  # training has seeds up to 30000
KINDS = (  # of what is measured; `measures.MEASURES` says how
    "accuracy", "validation", "mitigation", "shift", "sensitivity", "damage", "tsne", "transformed_images", "latency"
)  # fmt: skip


def as_json(value: object) -> object:
    """A dataclass as dictionaries and lists, without options that are off: fields whose default is empty (None, 0, "", ())
    and that have it.  So a new option leaves the digests of what was measured before it as they are."""
    if dataclasses.is_dataclass(value):
        pairs = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: as_json(v) for f, v in pairs if f.default or v != f.default}
    return [as_json(item) for item in value] if isinstance(value, tuple) else value


def canonical(value: object) -> str:
    """Canonical JSON of a dataclass or plain value: sorted keys, no spaces."""
    return json.dumps(as_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """A base model: data set, architecture, training, and width (a factor on its channels)."""

    dataset: str
    model: str
    recipe: BaseRecipe
    width: float = 1.0

    def __post_init__(self):
        choose("base model", self.model, models.ALL_LABELS)
        if not isinstance(self.width, (int, float)) or not 0 < self.width <= 4:
            raise UserError(f"width is {self.width!r}; allowed are numbers above 0 and up to 4")
        object.__setattr__(self, "width", float(self.width))  # equal cells have equal digests
        if self.recipe.tuned and self.recipe.tuned[-1] > (layers := _layers(self.model)):
            raise UserError(f"layer {self.recipe.tuned[-1]} is to be tuned, but there are {layers} layers, from layer 1")

    @property
    def stages(self) -> tuple["Base", ...]:
        """It and, before it, the base models that it is fine-tuned from."""
        start = self.recipe.start
        return (*dataclasses.replace(self, recipe=start).stages, self) if start else (self,)

    @property
    def words(self) -> str:
        seed = f", seed {self.recipe.seed}" if self.recipe.seed else ""
        name = data.LABELS.get(self.dataset, self.dataset)
        return f"{name} {models.label(self.model)} ({self.recipe.words}{seed})"


@functools.cache
def _layers(model: str) -> int:
    """How many layers of a base model have weights, whatever its width."""
    return len(weighted_layers(models.build(model, width=0.0625)))


@dataclass(frozen=True)
class Cell:
    """Everything that fixes one measured setting.  Raises UserError for a value that cannot be measured.

    base: the classifier.  generator: what stands before it; None for the base model alone.
    error_model, rate: a name of `faults.ERROR_MODELS` or "chip_map:PATH", and the bit-error rate of the evaluation.
    patterns: error patterns, with seeds first_seed, first_seed + 1, ...  images: how many test images (the first ones),
    validation images for kind "validation"; 0 means all.  surrogates: what the generator is trained on; empty means
    `base` itself (relaxed access).  kind: what is measured, one
    of KINDS; also the folder of its record.
    bits: code width of the base model in the evaluation; 0 means the one that it was trained with.
    selector: the classifier that selects class-wise perturbations, in place of the true label.
    mitigation: what the memory does about faults, a key of `mitigations.MITIGATIONS`; kind "mitigation" has one.
    hit: what errors are limited to, "bit 7" (bit 0 is the lowest) or "layer 1" (in the order of computing), or "generator
    too", where the generator's memory has them as well; kind "sensitivity" has one.
    shift: the corruption of the test images, a key of `shifts.SHIFTS`; kind "shift" has one.
    device: the kind of device that a latency belongs to, "cpu" or "cuda"; kind "latency" has one.
    """

    base: Base
    generator: GeneratorRecipe | None = None
    error_model: str = "release_map"
    rate: float = 0.01
    patterns: int = 10
    images: int = 0
    surrogates: tuple[Base, ...] = ()
    kind: str = "accuracy"
    bits: int = 0
    selector: Base | None = None
    mitigation: str = ""
    hit: str = ""
    shift: str = ""
    device: str = ""
    first_seed: int = FIRST_SEED

    def __post_init__(self):
        choose("kind", self.kind, KINDS)
        object.__setattr__(self, "rate", float(faults.check_rate(self.rate)))
        faults.named(self.error_model, self.rate)  # refuses a name that is none
        check_numbers(self, 1e4, patterns=int(self.kind != "transformed_images"))
        check_numbers(self, 1e7, images=int(self.kind == "latency"))  # of which images are the batch
        if self.mitigation:
            choose("mitigation", self.mitigation, MITIGATIONS)
        if self.shift:
            choose("shift", self.shift, SHIFTS)
        if self.device:
            choose("device of a latency", self.device, ("cpu", "cuda"))
        for field, kind in (("mitigation", "mitigation"), ("hit", "sensitivity"), ("shift", "shift"), ("device", "latency")):
            if bool(getattr(self, field)) != (self.kind == kind):
                raise UserError(f"kind {self.kind!r} with {field} {getattr(self, field)!r}: kind {kind!r} has a {field}, no other does")
        if self.hit and not re.fullmatch(r"bit \d|layer [1-9]\d{0,3}|generator too", self.hit):
            raise UserError(f"errors hit {self.hit!r}; allowed are 'bit 7' and the like, 'layer 1' and the like, 'generator too'")
        what, _, number = self.hit.partition(" ")
        if what == "bit" and int(number) >= (bits := self.bits or self.base.recipe.bits):
            raise UserError(f"errors hit {self.hit!r}, but codes have {bits} bits, from bit 0")
        if what == "layer" and int(number) > (layers := _layers(self.base.model)):
            raise UserError(f"errors hit {self.hit!r}, but there are {layers} layers, from layer 1")
        if self.hit == "generator too" and self.generator is None:
            raise UserError("errors hit 'generator too', but there is no generator")
        if self.selector and not (self.generator and self.generator.name == generators.CLASS_WISE):
            raise UserError("a selector goes with class-wise perturbations only; no other generator needs the class")
        if self.generator and self.generator.place and (self.surrogates or self.kind not in ("accuracy", "validation")):
            raise UserError("an adapter is trained on its own base model, and only its accuracy is measured")
        if self.surrogates == (self.base,):  # relaxed access, however it is said
            object.__setattr__(self, "surrogates", ())
        if self.bits:
            check_bits(self.bits)

    @property
    def on_validation(self) -> "Cell":
        """The same on validation images, under error patterns of their own: used for model selection."""
        return dataclasses.replace(self, kind="validation", first_seed=VALIDATION_SEED)

    @property
    def alone(self) -> "Cell":
        """The base model alone, under the same errors and on the same images."""
        plain = {"generator": None, "surrogates": (), "selector": None, "mitigation": ""}
        if self.mitigation or self.hit == "generator too":
            plain |= {"kind": "accuracy", "hit": ""}
        return dataclasses.replace(self, **plain)

    @property
    def digest(self) -> str:
        return digest_of(self)

    @property
    def trained_on(self) -> tuple[Base, ...]:
        return self.surrogates or (self.base,)

    @property
    def bases(self) -> tuple[Base, ...]:
        """The classifiers that must be trained for it: base model, surrogates, selector; each after what it is fine-tuned from."""
        others = (*(self.trained_on if self.generator else ()), *((self.selector,) if self.selector else ()))
        return tuple(dict.fromkeys(stage for base in (self.base, *others) for stage in base.stages))

    @property
    def stages(self) -> list["Cell"]:
        """The cell with each generator that is trained for its own: teacher, distillation alone, the whole."""
        recipe = self.generator
        alone = [dataclasses.replace(recipe, steps=0)] if recipe and recipe.teacher and recipe.steps else []
        stages = [recipe.teacher, *alone, recipe] if recipe else []
        return [dataclasses.replace(self, generator=generator) for generator in stages if generator]

    @property
    def words(self) -> str:
        """The cell in words, for progress bars and messages."""
        parts = [self.base.words]
        if self.generator:
            seed = f", seed {self.generator.seed}" if self.generator.seed else ""
            parts.append(f"+ {self.generator.label} ({self.generator.training}{seed})")
        if self.selector:
            parts.append(f"selected by {models.label(self.selector.model)}")
        if self.surrogates:
            parts.append(f"trained on {' and '.join(models.label(s.model) for s in self.surrogates)}")
        if self.bits:
            parts.append(f"at {self.bits} bits")
        if self.kind != "accuracy":
            parts.append(f"({self.mitigation or self.hit or self.shift or self.kind})")
        rate = "" if faults.is_chip_map(self.error_model) else f" {100 * self.rate:g} %"  # a chip has its own
        return f"{' '.join(parts)}, {faults.LABELS.get(self.error_model, self.error_model)}{rate}"


def cell_of(stored: dict) -> Cell:
    """The Cell behind a record's JSON form.  Raises KeyError, TypeError or UserError for what is none."""

    def recipe(kind: type, value: dict) -> BaseRecipe | GeneratorRecipe:  # a recipe in it is of the same kind
        return kind(**{name: recipe(kind, part) if name in ("start", "teacher") else part for name, part in {**value}.items()})

    def base(value: dict) -> Base:
        return Base(**{**value, "recipe": recipe(BaseRecipe, value["recipe"])})

    made = {"base": base, "selector": base, "surrogates": lambda some: tuple(map(base, some))}
    made["generator"] = functools.partial(recipe, GeneratorRecipe)
    return Cell(**{name: made[name](value) if name in made else value for name, value in stored.items()})


def _values(cell: Cell) -> dict[str, object]:
    """What `--only NAME=VALUE` can ask of a cell."""
    recipe, generator = cell.base.recipe, cell.generator
    values = {f.name: getattr(cell, f.name) for f in dataclasses.fields(cell) if f.type in (str, int, float)}
    values |= {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.name not in ("name", "seed", "bits")}
    values |= {"dataset": cell.base.dataset, "model": cell.base.model, "width": cell.base.width}
    values |= {"recipe": recipe.name, "base_seed": recipe.seed, "digest": cell.digest}
    values |= {"start": recipe.start.name if recipe.start else "none", "tuned": "+".join(map(str, recipe.tuned)) or "none"}
    names = ("name", "training", "steps", "distillation_steps", "seed", "loss_weight", "models_per_step")
    parts = {name: getattr(generator, name) if generator else "none" for name in names}
    values |= {"generator": parts.pop("name"), "generator_seed": parts.pop("seed"), **parts}
    values |= {"selector": cell.selector.model if cell.selector else "none"}
    values |= {"trained_on": "+".join(base.model for base in cell.trained_on) if generator else "none"}
    return values


def only(cells: Iterable[Cell], conditions: Iterable[str]) -> list[Cell]:
    """Cells that meet every KEY=VALUE; values for one key given several times, or separated by commas, are alternatives."""
    wanted: dict[str, set[str]] = {}
    for condition in conditions:
        key, sign, value = condition.partition("=")
        if not sign or not value:
            raise UserError(f"{condition!r} is not KEY=VALUE")
        wanted.setdefault(key, set()).update(value.split(","))
    cells = [(cell, _values(cell)) for cell in cells]
    for key, values in wanted.items():
        for _, known in cells[:1]:
            choose("key", key, known)
        there = {str(known[key]) for _, known in cells}
        for value in values - there:
            raise UserError(f"no cell has {key}={value}; there are: {', '.join(sorted(there)[:40]) or 'none'}")
        cells = [(cell, known) for cell, known in cells if str(known[key]) in values]
    return [cell for cell, _ in cells]
