"""Cells: everything that fixes one measured number, and its digest."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from nflib import data, faults, generators, models
from nflib.eopm import GeneratorRecipe
from nflib.mitigations import MITIGATIONS
from nflib.names import UserError, choose
from nflib.quantize import check_bits
from nflib.shifts import SHIFTS
from nflib.training import BaseRecipe

FIRST_SEED = 50000  # the official evaluation seeds are 50000 to 50009
VALIDATION_SEED = 40000  # training has seeds up to 30000


def plain(value: object) -> object:
    """A dataclass as dictionaries and lists.

    A field that came after the first records (metadata "since") is left out while it has its default: digests hold.
    """
    if dataclasses.is_dataclass(value):
        kept = [f for f in dataclasses.fields(value) if "since" not in f.metadata or getattr(value, f.name) != f.default]
        return {f.name: plain(getattr(value, f.name)) for f in kept}
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def canonical(value: object) -> str:
    """Canonical JSON of a dataclass or plain value: sorted keys, no spaces."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Base:
    """A base model: data set, architecture and training."""

    dataset: str
    model: str
    recipe: BaseRecipe
    width: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "width", float(self.width))  # equal cells have equal digests

    @property
    def words(self) -> str:
        return f"{data.LABELS.get(self.dataset, self.dataset)} {models.label(self.model)} ({self.recipe.words}{f', seed {self.recipe.seed}' if self.recipe.seed else ''})"


@dataclass(frozen=True)
class Cell:
    """Everything that fixes one measured setting.

    kind: what is measured, a key of `measures.MEASURES`; also the folder of its record.  generator: None for the base
    model alone.  surrogates: what the generator is trained on; empty means `base` itself (relaxed access).  law, rate:
    error model and bit-error rate of the evaluation.  patterns: error patterns, with seeds first_seed, first_seed + 1, ...
    images: how many test images (the first ones), validation images for kind "validation"; 0 means all.  bits: code width
    of the base model in the evaluation; 0 means the one that it was trained with.  on: the kind of device that a latency belongs to, "cpu" or "cuda".
    teller: the classifier that tells class patterns the class, in place of the true label.
    mitigation: what the memory does about faults, a key of `mitigations.MITIGATIONS`; kind "mitigation" has one.
    hit: what errors are limited to, "bit 7" (bit 0 is the lowest) or "layer 1" (in the order of computing), or "generator
    too", where the generator's memory has them as well; kind "sensitivity" has one.
    shift: what is done to the test images, a key of `shifts.SHIFTS`; kind "shift" has one.
    """

    table: str  # the kind; named so since the first records
    base: Base
    generator: GeneratorRecipe | None = None
    surrogates: tuple[Base, ...] = ()
    law: str = "release_map"
    rate: float = 0.01
    patterns: int = 10
    first_seed: int = FIRST_SEED
    images: int = 0
    bits: int = field(default=0, metadata={"since": 2})
    on: str = field(default="", metadata={"since": 2})
    teller: Base | None = field(default=None, metadata={"since": 3})
    mitigation: str = field(default="", metadata={"since": 4})
    hit: str = field(default="", metadata={"since": 4})
    shift: str = field(default="", metadata={"since": 5})

    def __post_init__(self):
        object.__setattr__(self, "rate", float(self.rate))
        if self.mitigation:
            choose("mitigation", self.mitigation, MITIGATIONS)
        if self.shift:
            choose("shift", self.shift, SHIFTS)
        for kind, value in (("mitigation", self.mitigation), ("sensitivity", self.hit), ("shift", self.shift)):
            if bool(value) != (self.table == kind):
                raise UserError(f"kind {self.table!r} with {value or 'none'!r}; kind {kind!r} says what, no other does")
        if self.hit and not re.fullmatch(r"bit \d+|layer [1-9]\d*|generator too", self.hit):
            raise UserError(f"errors hit {self.hit!r}; allowed are 'bit 7' and the like, 'layer 1' and the like, 'generator too'")
        if self.hit == "generator too" and self.generator is None:
            raise UserError("errors hit 'generator too', but there is no generator")
        if self.teller and not (self.generator and self.generator.name == generators.CLASS_PATTERNS):
            raise UserError("a teller goes with class patterns only; no other generator is told the class")
        if self.bits:
            check_bits(self.bits)

    @property
    def on_validation(self) -> "Cell":
        """The same on validation images, under error patterns of their own: what choices are made on."""
        return dataclasses.replace(self, table="validation", first_seed=VALIDATION_SEED)

    @property
    def digest(self) -> str:
        return digest_of(self)

    @property
    def trained_on(self) -> tuple[Base, ...]:
        return self.surrogates or (self.base,)

    @property
    def words(self) -> str:
        """The cell in words, for progress bars and messages."""
        parts = [self.base.words]
        if self.generator:
            seed = f", seed {self.generator.seed}" if self.generator.seed else ""
            parts.append(f"+ {generators.label(self.generator.name)}{' after imitation' if self.generator.teacher else ''}{seed}")
        if self.teller:
            parts.append(f"told by {models.label(self.teller.model)}")
        if self.surrogates:
            parts.append(f"trained on {' and '.join(models.label(s.model) for s in self.surrogates)}")
        if self.bits:
            parts.append(f"at {self.bits} bits")
        if self.table != "accuracy":
            parts.append(f"({self.mitigation or self.hit or self.shift or self.table})")
        return f"{' '.join(parts)}, {faults.LABELS.get(self.law, self.law)} {100 * self.rate:g} %"

    def key(self, name: str) -> object:
        """A value that `--only NAME=VALUE` can ask for; UserError for an unknown name."""
        values = {
            "digest": self.digest,
            "kind": self.table,
            "dataset": self.base.dataset,
            "model": self.base.model,
            "recipe": self.base.recipe.name,
            "epochs": self.base.recipe.epochs,
            "weight_decay": self.base.recipe.weight_decay,
            "clipping": self.base.recipe.clipping,
            "bit_errors": self.base.recipe.bit_errors,
            "schedule": self.base.recipe.schedule,
            "width": self.base.width,
            "base_seed": self.base.recipe.seed,
            "generator_seed": self.generator.seed if self.generator else "none",
            "generator": self.generator.name if self.generator else "none",
            "steps": self.generator.steps if self.generator else 0,
            "imitation_steps": self.generator.imitation_steps if self.generator else 0,
            "teller": self.teller.model if self.teller else "none",
            "mitigation": self.mitigation or "none",
            "hit": self.hit or "all",
            "shift": self.shift or "none",
            "surrogates": "+".join(s.model for s in self.surrogates) or "none",
            "law": self.law,
            "rate": self.rate,
            "bits": self.bits or self.base.recipe.bits,
            "patterns": self.patterns,
        }
        if name not in values:
            raise UserError(f"unknown key {name!r}; allowed: {', '.join(values)}")
        return values[name]


def cell_of(stored: dict) -> Cell:
    """The Cell behind a record's plain form."""

    def base(value: dict) -> Base:
        return Base(**{**value, "recipe": BaseRecipe(**value["recipe"])})

    def generator(value: dict) -> GeneratorRecipe:
        return GeneratorRecipe(**value | ({"teacher": generator(value["teacher"])} if value.get("teacher") else {}))

    surrogates = tuple(base(value) for value in stored["surrogates"])
    recipe = generator(stored["generator"]) if stored["generator"] else None
    teller = {"teller": base(stored["teller"])} if stored.get("teller") else {}
    return Cell(**{**stored, "base": base(stored["base"]), "generator": recipe, "surrogates": surrogates, **teller})


def only(cells: Iterable[Cell], conditions: Iterable[str]) -> list[Cell]:
    """Cells that meet every KEY=VALUE; values for one key given several times, or separated by commas, are alternatives."""
    wanted: dict[str, set[str]] = {}
    for condition in conditions:
        key, sign, value = condition.partition("=")
        if not sign or not value:
            raise UserError(f"{condition!r} is not KEY=VALUE")
        wanted.setdefault(key, set()).update(value.split(","))
    cells = list(cells)
    for key, values in wanted.items():
        known = {str(cell.key(key)) for cell in cells}
        for value in values - known:
            raise UserError(f"no cell has {key}={value}; there are: {', '.join(sorted(known)[:40]) or 'none'}")
        cells = [cell for cell in cells if str(cell.key(key)) in values]
    return cells
