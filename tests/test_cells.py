"""A cell fixes its number: its digest, what is refused, and what `--only` and the constructors make of it."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from examples import BASE, CELL, GENERATOR, TINY
from nflib.names import PROFILES
from nflib.study import notebooks, recipes
from nflib.study.cells import as_json, canonical, cell_of, digest_of, only

DIGEST = "4b23e8f8044f0daf"
NEEDED = {  # what a changed field cannot do without
    "mitigation": {"kind": "mitigation"},
    "hit": {"kind": "sensitivity"},
    "shift": {"kind": "shift"},
    "device": {"kind": "latency", "images": 1},
    "adversarial_flips": {"models_per_step": 1},
    "distillation_steps": {"teacher": dataclasses.replace(GENERATOR, steps=9)},
    "teacher": {"distillation_steps": 1},
    "tuned": {"start": BASE.recipe},
    "selector": {"generator": dataclasses.replace(GENERATOR, name="class_wise")},
}
EXAMPLES = {  # of values with rules
    "mitigation": ["secded", "spare_sign"],
    "hit": ["bit 7", "bit 0", "layer 1", "generator too"],
    "shift": ["noise", "dark"],
    "device": ["cpu", "cuda"],
    "bit_errors": [0.01, 0.02],
    "start": [BASE.recipe, dataclasses.replace(BASE.recipe, epochs=7)],
    "tuned": [(1,), (1, 2)],
    "kind": ["damage", "tsne"],
    "dataset": ["cifar10"],
    "model": ["vgg16"],
    "error_model": ["bit_flips", "stuck_at"],
    "rate": [0.02],
    "width": [0.5],
    "bits": [4],
    "schedule": ["one_cycle"],
    "place": [],
    "mixed_rates": [(0.01,), (0.01, 0.02), (0.02, 0.01)],
    "teacher": [GENERATOR, dataclasses.replace(GENERATOR, steps=7)],
    "selector": [BASE, dataclasses.replace(BASE, width=0.5)],
}


def variants(value: object) -> list:
    """The same dataclass with each of its fields, and each field within them, changed."""
    found = []
    for field in dataclasses.fields(value):
        old = getattr(value, field.name)
        if field.name in EXAMPLES:
            news = [new for new in EXAMPLES[field.name] if new != old]
        elif dataclasses.is_dataclass(old):
            news = variants(old)
        elif isinstance(old, bool):
            news = [not old]
        elif isinstance(old, str):
            news = [{"name": "conv_s"}.get(field.name, old + "x")]
        elif isinstance(old, tuple):
            news = [(), old + old, *((new,) for new in variants(old[0]))]
        else:
            news = [old + 1]
        found += [dataclasses.replace(value, **{field.name: new}, **NEEDED.get(field.name, {})) for new in news]
    return found


def test_the_digest_is_pinned():
    """If it changes, no stored record and no checkpoint is found again."""
    assert CELL.digest == DIGEST


def test_the_digest_changes_with_every_field():
    adapted = [cell(generator=front(place=place), surrogates=()) for place in ("", "block 1", "block 2", "beside")]
    digests = [one.digest for one in (CELL, *variants(CELL), *adapted)]
    assert len(digests) > 40 and len(set(digests)) == len(digests)
    assert dataclasses.replace(CELL, generator=None).digest not in digests


def test_an_option_that_is_off_leaves_the_digest_alone():
    assert "mitigation" not in as_json(CELL) and not {"clipping", "start", "tuned"} & as_json(CELL)["base"]["recipe"].keys()
    assert as_json(dataclasses.replace(CELL, patterns=10))["patterns"] == 10  # a default that is not empty is said
    one, other = (dataclasses.replace(CELL, rate=rate) for rate in (0, 0.0))
    assert one == other and one.digest == other.digest


def test_canonical_json_is_sorted_tight_and_finite():
    assert canonical({"b": 1, "a": (1.5, None, True)}) == '{"a":[1.5,null,true],"b":1}'
    with pytest.raises(ValueError):
        canonical({"a": float("nan")})


def test_the_json_form_of_a_cell_gives_the_cell_back():
    stored = [cell for profile in PROFILES for name in notebooks.names() for cell in notebooks.cells_of(profile, name)[::40]]
    for cell in (CELL, *TINY, *variants(CELL), *stored):
        back = cell_of(json.loads(json.dumps(as_json(cell))))
        assert back == cell and hash(back) == hash(cell) and back.digest == cell.digest == digest_of(as_json(cell))


cell = functools.partial(dataclasses.replace, CELL)
vgg11 = functools.partial(recipes.base, "smoke", "digits", "vgg11")
front = functools.partial(recipes.generator, "smoke", "conv_l", "eopm", "bit_flips", 0.01)


@pytest.mark.parametrize(
    "made, word",
    [
        (lambda: cell(kind="acuracy"), "'accuracy'"),
        (lambda: cell(error_model="bitflips"), "'bit_flips'"),
        (lambda: cell(rate=2.0), "2.0"),
        (lambda: cell(rate=float("nan")), "nan"),
        (lambda: cell(patterns=0), "patterns"),
        (lambda: cell(patterns=-1), "patterns"),
        (lambda: cell(patterns=True), "patterns"),
        (lambda: cell(patterns=10**9), "10,000"),
        (lambda: cell(images=-5), "images"),
        (lambda: cell(bits=9), "9"),
        (lambda: cell(hit="bit seven", kind="sensitivity"), "bit seven"),
        (lambda: cell(hit="bit 4", kind="sensitivity", bits=4), "4 bits"),
        (lambda: cell(hit="layer 99", kind="sensitivity"), "layers"),
        (lambda: cell(images=0, kind="latency", device="cpu"), "images"),
        (lambda: cell(hit="generator too", kind="sensitivity", generator=None), "no generator"),
        (lambda: cell(shift="noise"), "shift"),
        (lambda: cell(kind="shift"), "shift"),
        (lambda: cell(kind="mitigation", mitigation="ecc"), "mitigation 'ecc'"),
        (lambda: cell(kind="mitigation"), "mitigation ''"),
        (lambda: cell(mitigation="secded"), "mitigation 'secded'"),
        (lambda: cell(selector=BASE), "class-wise"),
        (lambda: recipes.base("smok", "digits", "vgg11"), "smoke"),
        (lambda: recipes.base("smoke", "digit", "vgg11"), "digits"),
        (lambda: recipes.base("smoke", "digits", "vgg12"), "vgg1"),
        (lambda: vgg11("relaese"), "release"),
        (lambda: vgg11(epochs=-1), "epochs"),
        (lambda: vgg11(clipping=-1.0), "clipping"),
        (lambda: vgg11(width=0.0), "width"),
        (lambda: vgg11(start="relaese"), "release"),
        (lambda: vgg11(start="release", tuned=[1, 10]), "layer 10.*9 layers"),
        (lambda: recipes.generator("smoke", "conv_x", "eopm", "bit_flips", 0.01), "conv_"),
        (lambda: recipes.generator("smoke", "conv_l", "imitation", "bit_flips", 0.01), "eopm"),
        (lambda: recipes.generator("smoke", "conv_l", "eopm", "bit_flips", 7.0), "7"),
        (lambda: front(loss_weight=-1.0), "loss_weight"),
        (lambda: front(models_per_step=0), "models_per_step"),
        (lambda: recipes.selector("smoke", "digits", "deconv_l"), "conv_l"),
        (lambda: front(place="block 3"), "place"),
        (lambda: cell(generator=front(place="beside"), kind="tsne"), "adapter"),
        (lambda: cell(generator=front(place="beside"), surrogates=(vgg11(seed=1),)), "adapter"),
        (lambda: recipes.generator("smoke", "conv_l", "distilled", "bit_flips", 0.01, place="beside"), "adapter"),
    ],
)
def test_what_cannot_be_trained_or_measured_is_refused_where_cells_are_built(made, word, refused):
    with refused(word):
        made()


def test_trained_on_the_base_model_itself_is_relaxed_access():
    own = dataclasses.replace(TINY[1], surrogates=(BASE,))
    assert own == TINY[1] and own.trained_on == (BASE,)


def test_alone_is_the_same_setting_without_what_protects():
    for change in ({"mitigation": "secded", "kind": "mitigation"}, {"hit": "generator too", "kind": "sensitivity"}):
        alone = dataclasses.replace(TINY[1], **change).alone
        assert alone == dataclasses.replace(TINY[1], generator=None)
    hit = dataclasses.replace(TINY[1], hit="bit 7", kind="sensitivity")
    assert hit.alone == dataclasses.replace(hit, generator=None)


def test_only_keeps_the_cells_that_meet_every_condition():
    cells = [*TINY, dataclasses.replace(CELL, error_model="stuck_at")]
    assert only(cells, []) == cells
    assert only(iter(cells), ["model=vgg11", "error_model=bit_flips,stuck_at"]) == [cells[0], cells[2]]
    assert only(cells, ["generator=none"]) == [cells[0]] and only(cells, [f"digest={cells[1].digest}"]) == [cells[1]]
    assert only(cells, ["trained_on=vgg19"]) == [cells[2]] and only(cells, ["training=EOPM"]) == cells[1:]


@pytest.mark.parametrize(
    "condition, word",
    [("colour=red", "colour"), ("modle=vgg11", "model"), ("model=vgg13", "vgg11"), ("model=vgg11,vgg13", "vgg13"), ("model", "KEY=VALUE"), ("", "KEY=VALUE")],
)
def test_unknown_keys_and_values_are_refused(condition, word, refused):
    with refused(word):
        only(TINY, [condition])


def test_a_profiled_chip_is_measured_once_however_many_rates_are_asked(tmp_path, refused):
    chip, ones = f"chip_map:{tmp_path / 'a.npz'}", np.eye(4, 16, dtype=bool)
    np.savez(tmp_path / "a.npz", stuck_at_0=ones, stuck_at_1=np.roll(ones, 1, 1))
    wanted = [(chip, 0.02), ("stuck_at", 0.02), ("stuck_at", 0.01)]
    assert recipes.settings([chip, "stuck_at"], [0.02, 0.01]) == wanted
    for names, word in (([], "at least one"), (["chip_map:nowhere.npz"], "nowhere"), (["stuck"], "stuck_at")):
        with refused(word):
            recipes.settings(names, [0.01])


@pytest.mark.parametrize("profile", PROFILES)
def test_trainings_of_generators_are_what_their_names_say(profile):
    def lengths(training: str, **more) -> tuple:
        recipe = recipes.generator(profile, "conv_s", training, "bit_flips", 0.01, **more)
        return recipe.steps > 0, recipe.distillation_steps > 0, recipe.teacher is not None

    assert lengths("eopm") == lengths("official") == lengths("adversarial", adversarial_flips=3) == (True, False, False)
    assert lengths("distilled") == (False, True, True) and lengths("distilled_eopm") == (True, True, True)
    teacher = recipes.generator(profile, "conv_s", "distilled", "bit_flips", 0.01, seed=3).teacher
    assert (teacher.name, teacher.error_model, teacher.seed) == ("class_wise", "bit_flips", 3) and teacher.steps > 0
    official = recipes.generator(profile, "conv_s", "official", "release_map", 0.01)
    assert recipes.is_official(official) and official.steps == 58800


def test_a_recipe_that_is_changed_has_no_name_and_one_that_is_changed_back_has():
    assert recipes.base("paper12", "cifar10", "vgg11", "modern", weight_decay=0.0).recipe.name == "varied"
    assert recipes.base("paper12", "cifar10", "vgg11", "modern", weight_decay=0.0, clipping=0.05).recipe.name == "clipped"
    assert recipes.base("paper12", "cifar10", "vgg11", "release", seed=2).recipe.name == "release"


def test_fine_tuning_has_the_start_of_its_own_seed_and_says_its_layers():
    words = {(): "all layers", (3,): "layer 3", (1, 2): "layers 1, 2", (2, 3, 4): "layers 2 to 4", (1, 2, 4): "layers 1, 2, 4"}
    for layers, said in words.items():
        tuned = vgg11(start="release", tuned=layers, seed=2, width=0.5)
        assert tuned.stages == (vgg11("release", seed=2, width=0.5), tuned)
        assert tuned.recipe.tuned_words == said and f"release, {said} fine-tuned" in tuned.words
    assert BASE.stages == (BASE,) and BASE.recipe.tuned_words == "none"
