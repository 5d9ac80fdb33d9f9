"""The page to play with computes what nflib computes: its script, run by Node, against models, chips and tables."""

import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from examples import METRICS, PROVENANCE
from nflib import energy, faults, generators, models
from nflib.names import ROOT
from nflib.study import Cell, base, generator, notebooks, trained, weights
from nflib.study.cells import digest_of
from nflib.study.records import Store

SETTINGS = [(1, 0.0), (1, 0.01), (7, 0.003)]  # chip, bit-error rate
RATES = (0.0001, 0.001, 0.01)
SCRIPT = """
const page = JSON.parse(require("fs").readFileSync(process.argv[1])), explainer = require(process.argv[2]);
const [settings, rates] = JSON.parse(process.argv[3]);
const [base, front] = [page.base, page.generator].map(explainer.unpack);
const answers = settings.map(([number, ber]) => {
  const counts = explainer.readBack(base, explainer.chip(number, base.weights, 0.02), ber);
  const codes = Buffer.concat(base.layers.map((layer) => Buffer.from(layer.read.buffer))).toString("base64");
  const seen = page.images.map((_, k) => explainer.image(page, k));
  const moved = seen.map((image) => explainer.transformed(image, explainer.forward(front, image, false)));
  const logits = [seen, moved].map((inputs) => inputs.map((input) => Array.from(explainer.forward(base, input, true))));
  return { ...counts, codes, logits };
});
const curve = rates.map((ber) => [explainer.voltage(page.curve, ber), explainer.readEnergy(page.curve, ber)]);
const nearest = rates.map((ber) => [1.2 * ber, ber]).map(([near, ber]) => // between rates, and at one
  ["BitFlips", "ReleaseMap"].map((name, k) => explainer.nearest(page.records, name, k ? near : ber)));
console.log(JSON.stringify({ answers, curve, nearest }));
"""


def random_weights(model: nn.Module) -> nn.Module:
    """The model with batch norms that do something, drawn from seed 0."""
    draw = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                values.data = 0.5 + torch.rand(values.shape, generator=draw)
            for values in (layer.bias, layer.running_mean):
                values.data = torch.rand(values.shape, generator=draw) - 0.5
    return model


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The notebook's names, on published models of random weights and drawn accuracies; what Node says; the folder."""
    folder, whole = tmp_path_factory.mktemp("explainer"), base("desk", "cifar10", "vgg11")
    front = generator("desk", "conv_l", "faded_eopm", "release_map", 0.01)
    pictures = "records/paper12/transformed_images"
    shutil.copytree(ROOT / "results" / pictures, folder / pictures)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NFLIB_RESULTS", str(folder))
        patch.setenv("NFLIB_CHECKPOINTS", str(folder / "checkpoints"))
        store, draw = Store("desk"), np.random.default_rng(0)
        facts = {"provenance": {"device": "none"}, "seconds": 1.0, "model_images": 1, "losses": [1.0]}
        for error_model in ("bit_flips", "release_map"):
            for rate in RATES:
                for system in (None, front):
                    measured = {"perturbed": (draw.integers(200, 1800, 4) / 20).tolist(), "changed_bits": [rate] * 4}
                    measured |= {"images": 2000, "generator_training": system and facts}
                    store.write(Cell(whole, system, error_model, rate, 4, 2000), METRICS | measured, PROVENANCE)
        network = random_weights(models.build("vgg11", 10, 32, whole.width))
        weights.write(f"base-{digest_of(whole)}", network, 8, facts, whole.words, 10, 32)
        key = trained.generator_key(Cell(whole, front))
        weights.write(key, random_weights(generators.build("conv_l", front.width)), 8, facts, front.name, 10, 32)
        names = notebooks.inline("explainer", {"chips": 2, "patterns": 4, "rates": list(RATES), "measure": False}, folder / "shown")
    if not (node := shutil.which("node")):
        pytest.skip("no Node here")
    (folder / "page.json").write_text(names["data"], "utf-8")
    script = ROOT / "book" / "_static" / "explainer.js"
    given = [folder / "page.json", script, json.dumps([SETTINGS, RATES])]
    done = subprocess.run([node, "-e", SCRIPT, *map(str, given)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return names, json.loads(done.stdout), folder


def test_the_page_reads_the_codes_and_gives_the_logits_that_nflib_does(shown):
    names, found, _ = shown
    for (chip, rate), page in zip(SETTINGS, found["answers"]):
        codes, logits = names["read"](chip, rate), names["logits"](chip, rate)
        assert names["text"](codes) == page["codes"]
        assert page["bits"] == faults.changed_bits(names["base_model"], names["pattern"](chip, rate))
        assert page["changed"] == (codes != names["codes"]).sum()
        np.testing.assert_allclose(page["logits"], logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
        assert not np.allclose(logits[0], logits[1])  # a transformed image is another


def test_chips_of_the_page_are_nested_independent_and_of_their_rate(shown):
    names, cells = shown[0], 8 * sum(shown[0]["base_model"].sizes.values())

    def flips(chip, rate):
        pattern, sizes = names["pattern"](chip, rate), names["base_model"].sizes
        whole = [np.zeros(size, np.uint8) for size in sizes.values()]
        for some, errors in zip(whole, pattern.values()):
            some[errors.index] = errors.toggle
        return np.unpackbits(np.concatenate(whole), bitorder="little").astype(bool)

    few, many, other = flips(1, 0.003), flips(1, 0.01), flips(2, 0.01)
    assert not (few & ~many).any() and few.any()
    for found, expected in ((many, 0.01), (few, 0.003), (other, 0.01), (many & other, 0.01**2)):
        assert abs(found.mean() - expected) < 5 * (expected / cells) ** 0.5
    bits = many.reshape(-1, 8).mean(0)
    assert np.abs(bits - 0.01).max() < 5 * (8 * 0.01 / cells) ** 0.5
    assert abs((many[1:] & many[:-1]).mean() - 0.01**2) < 5 * (0.01**2 / cells) ** 0.5  # neighbours


def test_voltage_energy_and_accuracies_are_those_of_nflib_and_of_the_table(shown):
    _, found, folder = shown
    expected = [[energy.voltage(rate), energy.read_energy(rate)] for rate in RATES]
    np.testing.assert_allclose(found["curve"], expected, rtol=1e-12)
    table = pd.read_csv(folder / "shown" / "explainer.csv").set_index(["error_model", "rate", "system"])
    stored = [(record["cell"], record["metrics"]["perturbed"]) for record in Store("desk", folder).records()]
    records = {(cell["error_model"], cell["rate"], "generator" in cell): accuracies for cell, accuracies in stored}
    assert len(records) == len(table) == 12
    for rate, pair in zip(RATES, found["nearest"]):
        for name, systems in zip(("bit_flips", "release_map"), pair):
            for system, row in systems.items():
                line = table.loc[(faults.LABELS[name], rate, system)]
                accuracies = records[name, rate, system != "alone"]
                assert (row["mean"], row["worst"], row["rate"]) == (line["perturbed"], line["worst"], rate)
                assert row["mean"] == pytest.approx(np.mean(accuracies), abs=1e-4) and row["worst"] == min(accuracies)
    assert [[len(systems) for systems in pair] for pair in found["nearest"]] == [[2, 2]] * 3


def test_the_page_is_small(shown):
    names = shown[0]
    assert sum(map(len, (names["data"], names["script"], names["style"], names["still"].svg))) < 1_500_000


def test_without_published_models_the_page_says_so(workshop, refused):
    with refused("not published"):
        notebooks.inline("explainer", {}, workshop / "shown")
