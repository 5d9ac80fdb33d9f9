"""Measures: numbers that can be had by hand or from scikit-learn come out the same; records are whole."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from examples import noise
from nflib.data import to_float
from nflib.eopm import GeneratorRecipe
from nflib.evaluation import accuracy, prepared
from nflib.faults import BitFlips, perturbed
from nflib.generators import transform
from nflib.quantize import Quantized
from nflib.study import measures
from nflib.study.cells import KINDS, Base, Cell
from nflib.study.measures import _between_classes, _flattened, _how_much_is_class, measure, neighbour_accuracy
from nflib.study.records import Store
from nflib.study.runner import measure_and_store
from nflib.study.trained import base_model, dataset_on, generator_model
from nflib.training import BaseRecipe, OutOfTime

CPU = torch.device("cpu")
BASE = Base("digits", "vgg11", BaseRecipe(epochs=0), width=0.0625)
GENERATOR = GeneratorRecipe("conv_s", models_per_step=1, steps=2, batch=32, width=0.125)
TSNE = Cell(BASE, kind="tsne", patterns=2, images=60)
IMAGES = Cell(BASE, GENERATOR, kind="transformed_images", patterns=0)


def test_validation_is_measured_on_the_images_held_out_of_training_under_other_patterns(workshop):
    """By hand: the base model's answers to the validation split, clean and under the pattern of seed 40000."""
    cell = dataclasses.replace(TSNE, kind="accuracy", patterns=1, images=0, error_model="bit_flips").on_validation
    found, _, _ = measure(cell, CPU)
    base, held_out = base_model(BASE, CPU)[0], dataset_on("digits", CPU).validation
    with torch.inference_mode(), perturbed(base, BitFlips(0.01).draw(base.sizes, 40000)):
        right = base(to_float(held_out.images)).argmax(1) == held_out.labels
    assert found["images"] == len(held_out.labels) and found["perturbed"] == [100 * right.double().mean().item()]


def test_errors_in_the_generator_too_are_measured_as_by_hand_and_go_on_where_they_were_stopped(workshop, monkeypatch):
    """Both memories have the pattern of one seed; a deadline that is over stops after the first chip of each call."""
    monkeypatch.setattr(measures, "CHIPS_AT_A_TIME", 1)
    cell = Cell(BASE, GENERATOR, "bit_flips", 0.05, 2, kind="sensitivity", hit="generator too")
    with pytest.raises(OutOfTime):
        measure(cell, CPU, deadline=0.0)
    found, _, _ = measure(cell, CPU)
    base, front = base_model(BASE, CPU)[0], Quantized(generator_model(cell, CPU)[0])
    test, by_hand = dataset_on("digits", CPU).test, []
    for seed in (50000, 50001):
        patterns = [BitFlips(0.05).draw(each.sizes, seed) for each in (base, front)]
        with perturbed(base, patterns[0]), perturbed(front, patterns[1]):
            by_hand.append(accuracy(base, prepared(test, front.model)))
    assert found["perturbed"] == by_hand and len(found["changed_bits"]) == 2
    assert found["layers"] == list(base.sizes) and not list((workshop / "checkpoints").glob("*.json"))


@pytest.mark.parametrize("scale", [1, 1e4])
def test_neighbours_vote_as_in_scikit_learn(scale):
    labels = torch.arange(120) % 4
    points = scale * (noise(120, 3) + labels[:, None])
    others = [(one, [k for k in range(120) if k != one]) for one in range(120)]
    voted = [KNeighborsClassifier(5).fit(points[rest], labels[rest]).predict(points[[one]]) for one, rest in others]
    assert neighbour_accuracy(points, labels) == pytest.approx(100 * np.mean(np.hstack(voted) == labels.numpy()))
    # Far from the origin distances by matrix products in float32 would lose the difference between the two classes.
    labels = torch.arange(40) // 20
    points = 1000 + torch.stack([labels * 0.5, torch.arange(40) % 20 * 0.01], 1)
    assert neighbour_accuracy(points, labels) == 100


def test_the_share_between_classes_is_as_by_hand_and_none_on_average_without_classes():
    values, labels = torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.tensor([0, 0, 1, 1])
    # total 9 + 1 + 1 + 9 = 20 over 3; within 1 + 1 + 1 + 1 = 4 over 2
    assert _between_classes(values, labels) == pytest.approx(100 * (1 - (4 / 2) / (20 / 3)), rel=1e-5)
    shares = [_between_classes(noise(60, 20, seed=seed), torch.arange(60) % 20) for seed in range(50)]
    error = np.std(shares) / np.sqrt(50)
    assert abs(np.mean(shares)) < 5 * error and error < 1  # eta squared would be 32 %
    labels = torch.arange(20) // 5
    assert _between_classes(1.0 * labels[:, None], labels) == pytest.approx(100)
    assert _between_classes(torch.full((20, 3), 0.1), torch.arange(20) % 4) is None
    assert _between_classes(torch.zeros(20, 3), torch.arange(20) % 4) is None


def test_equal_outputs_lie_at_the_origin():
    """A perturbed model may answer the same for every image; scikit-learn's t-SNE ends the whole process on that."""
    assert (_flattened(torch.full((40, 10), 3.7)) == 0).all()
    assert _flattened(torch.zeros(40, 10)).shape == (40, 2)


@pytest.fixture
def embedded(workshop) -> tuple[Store, dict]:
    store = Store("smoke")
    measure_and_store(TSNE, store, CPU)
    return store, store.read(store.path(TSNE))


def test_an_embedding_record_is_whole(embedded):
    store, record = embedded
    arrays, metrics = store.arrays(record), record["metrics"]
    shapes = {name: (values.shape, str(values.dtype)) for name, values in arrays.items()}
    points, outputs = ((3, 60, 2), "float32"), ((3, 60, 10), "float32")
    assert shapes == {"points": points, "labels": ((60,), "uint8"), "outputs": outputs}
    labels, classes = torch.from_numpy(arrays["labels"]).long(), len(np.unique(arrays["labels"]))
    assert (metrics["images"], metrics["classes"]) == (60, classes)
    for name in ("neighbours", "silhouette", "output_neighbours", "output_silhouette"):
        assert len(metrics[name]) == 3 and all(np.isfinite(metrics[name]))
    for key, name in (("points", "neighbours"), ("outputs", "output_neighbours")):
        assert metrics[name] == [neighbour_accuracy(torch.from_numpy(values), labels) for values in arrays[key]]
    right = 100 * (arrays["outputs"].argmax(2) == arrays["labels"]).mean(1)
    assert [metrics["clean"], *metrics["perturbed"]] == pytest.approx(list(right))
    assert not np.array_equal(arrays["outputs"][0], arrays["outputs"][1])


def test_a_damaged_attachment_is_refused_in_one_line(embedded, refused):
    store, record = embedded
    path = store.path(TSNE).with_suffix(".npz")
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:200] + b"x" + whole[201:], b""):
        path.write_bytes(damaged)
        with refused(r"damaged: .*\.npz"):
            store.read(store.path(TSNE))
    path.unlink()
    with refused("damaged"):
        store.read(store.path(TSNE))
    path.write_bytes(whole)
    assert store.read(store.path(TSNE)) == record


def test_images_of_one_class_or_one_each_are_refused_before_training(workshop, refused, monkeypatch):
    monkeypatch.setattr(measures, "_models", lambda *a: pytest.fail("work was begun"))
    whole = measures.dataset_on("digits", CPU)
    for labels, count in ((torch.zeros(360, dtype=torch.long), 1), (torch.arange(360), 60)):
        test = dataclasses.replace(whole.test, labels=labels)
        monkeypatch.setattr(measures, "dataset_on", lambda *a: dataclasses.replace(whole, test=test))
        with refused(f"60 images have {count}"):
            measure(TSNE, CPU)


def test_a_transformed_images_record_is_whole_and_is_trained_for_if_need_be(workshop):
    store = Store("smoke")
    metrics = measure_and_store(IMAGES, store, CPU)
    arrays = store.arrays(store.read(store.path(IMAGES)))
    shapes = {name: (values.shape, str(values.dtype)) for name, values in arrays.items()}
    assert shapes == {
        "images": ((20, 3, 32, 32), "uint8"),
        "transformed": ((20, 3, 32, 32), "uint8"),
        "perturbations": ((20, 3, 32, 32), "float16"),
        "labels": ((20,), "uint8"),
    }
    assert arrays["labels"].tolist() == [k // 2 for k in range(20)]
    images, change = arrays["images"] / 127.5 - 1, arrays["perturbations"].astype(float)
    moved = transform(lambda x: torch.from_numpy(change), torch.from_numpy(images)).numpy()
    assert np.abs(arrays["transformed"] / 127.5 - 1 - moved).max() < 0.01
    assert metrics["images"] == 360 and metrics["generator_training"]["losses"]
    again = measures.accuracies(dataclasses.replace(IMAGES, kind="accuracy", patterns=1), CPU)[0]
    assert metrics["clean"] == pytest.approx(again["clean"], abs=0.3)


LABELS = torch.arange(200) % 4
PATTERN = torch.eye(4)[LABELS].reshape(200, 1, 2, 2).expand(-1, 3, -1, -1)


def read(images: torch.Tensor) -> torch.Tensor:
    """A base model that answers with the brightest of four pixels."""
    return images[:, 0].flatten(1)


@pytest.mark.parametrize("painted", [True, False])
def test_swapping_shows_what_decides(painted):
    faint, strong = 0.1 * PATTERN, 0.9 * PATTERN
    images, change = (faint, strong) if painted else (strong, faint)
    kinds = {"images": images, "perturbations": change, "transformed": images + change}
    found = _how_much_is_class(read, kinds, LABELS)
    assert (found["swapped_perturbation"], found["swapped_image"]) == ((100, 0) if painted else (0, 100))
    assert found["clean"] == found["clean_without"] == found["perturbation_alone"] == 100
    assert found["between_classes"]["perturbations"] == pytest.approx(100, abs=1e-3) and found["saturated"] == 0


def test_one_perturbation_for_all_images_has_no_class():
    images, change = 0.9 * PATTERN, torch.full_like(PATTERN, 0.25)
    kinds = {"images": images, "perturbations": change, "transformed": (images + change).clamp(-1, 1)}
    found = _how_much_is_class(read, kinds, LABELS)
    assert found["between_classes"]["perturbations"] is None and found["saturated"] == 25
    assert found["swapped_image"] == 100 and found["perturbation_alone"] == 25


def test_latencies_have_a_row_a_network_and_name_the_mode_that_fails(without_compiler, monkeypatch):
    """A network that does not run at all is an error."""
    cell = Cell(BASE, dataclasses.replace(GENERATOR, steps=0), kind="latency", patterns=1, images=2, device="cpu")
    metrics, _, arrays = measure(cell, CPU)
    rows = [(row["network"], row["mode"]) for row in metrics["rows"]]
    assert rows == [(name, "eager") for name in ("base", "generator", "both")]
    assert all(row["median_ms"] > 0 and row["spread_ms"] >= 0 and row["calls"] == 10 for row in metrics["rows"])
    assert metrics["without"] == {"compiled": "no C++ compiler"} and arrays is None
    assert (metrics["batch"], metrics["image_size"]) == (2, 32)
    monkeypatch.setattr(measures.energy, "latencies", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(cell, CPU)


def test_every_kind_has_its_measure():
    assert set(measures.MEASURES) == set(KINDS)
