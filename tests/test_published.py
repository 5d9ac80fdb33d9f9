"""The published numbers are intact, and contradict themselves exactly where we say they do."""

import hashlib
import shutil

import pytest

from nflib.report.published import PUBLISHED, inconsistencies, load, select

# (origin, dataset, base model, generator, BER in per cent, metric): (printed, recomputed)
KNOWN = {
    ("table02_energy_saving", "CIFAR-10 input size", "VGG19", "ConvS", 1, "ES_percent"): (29.7, 29.26),
    ("table03_efficiency_ratio", "CIFAR-10", "VGG11", "UNetL", 1, "RP_per_million_params"): (92.0, 85.75),
    ("table12_cifar10", "CIFAR-10", "VGG16", "DeConvL", 0.5, "RP"): (21.4, 21.6),
    ("table15_cifar100", "CIFAR-100", "VGG16", "ConvL", 1, "RP"): (12.6, 12.2),
    ("table15_cifar100", "CIFAR-100", "VGG16", "ConvS", 1, "RP"): (0.1, -0.3),
    ("table15_cifar100", "CIFAR-100", "VGG16", "DeConvL", 1, "RP"): (14.2, 13.8),
    ("table15_cifar100", "CIFAR-100", "VGG16", "DeConvS", 1, "RP"): (-1.8, -2.2),
    ("table15_cifar100", "CIFAR-100", "VGG16", "UNetL", 1, "RP"): (18.7, 18.3),
    ("table15_cifar100", "CIFAR-100", "VGG16", "UNetS", 1, "RP"): (3.3, 2.9),
    ("fig04_12_13_quant_bars", "CIFAR-10", "ResNet18", "UNetL", 0.5, "PA_NF"): (88.1, 86.3),
    # Not in the list of experiments.md:
    ("table16_transfer_cifar10_train1", "CIFAR-10", "VGG19", "UNetL", 0, "CA_NF"): (87.4, 86.3),
    ("table22_quant_cifar10", "CIFAR-10", "VGG19", "UNetL", 0, "CA_NF"): (87.4, 86.3),
    ("table25_adversarial_training", "CIFAR-10", "ResNet18", "ConvL (adversarial bit training)", 1, "RP"): (-16, -15.3),
}


def test_all_numbers_are_there():
    rows = load()
    assert (len(rows), rows["origin"].nunique()) == (2738, 32)
    assert rows["mean"].notna().all() and rows["mean"].dtype == float
    assert list(rows["origin"]) == sorted(rows["origin"])


@pytest.mark.parametrize(
    "change, signed",
    [
        (lambda content: content.replace(b"7", b"8", 1), False),
        (lambda content: b"".join(content.splitlines(keepends=True)[:-1]), True),
        (None, False),
        (None, True),
    ],
)
def test_a_changed_or_missing_file_is_refused(change, signed, tmp_path, refused):
    """Also with a digest that was made to match; without the numbers, or without their digest."""
    copy = shutil.copytree(PUBLISHED, tmp_path / "published")
    path, digest = copy / "published.csv", copy / "published.sha256"
    if change:
        path.write_bytes(change(path.read_bytes()))
    else:
        (digest if signed else path).unlink()
    if change and signed:
        digest.write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  published.csv\n")
    with refused("altered" if change else "cannot be read"):
        load(copy)


def test_select_finds_one_number():
    rows = select("table12_cifar10", "CIFAR-10", "ResNet18", "ConvL", 1, "PA_NF")
    assert rows[["mean", "std"]].values.tolist() == [[87.8, 1.7]]
    assert len(select()) == len(load())


@pytest.mark.parametrize(
    "wrong, right",
    [({"metric": "PA_Nf"}, "PA_NF"), ({"base_model": "resnet18"}, "ResNet18"), ({"ber_percent": 0.01}, "ber_percent")],
)
def test_an_unknown_name_and_a_rate_given_as_a_fraction_are_refused(wrong, right, refused):
    with refused(right):
        select(**wrong)


def test_inconsistencies_are_the_known_ones():
    found = inconsistencies()
    keys = found[["origin", "dataset", "base_model", "generator", "ber_percent", "metric"]].itertuples(index=False)
    pairs = zip(found["printed"], found["recomputed"])
    assert dict(zip(map(tuple, keys), pairs)) == KNOWN
    assert len(found) == len(KNOWN) and found["note"].str.len().gt(0).all()
