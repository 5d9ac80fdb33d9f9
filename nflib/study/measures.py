"""What can be measured of a cell, by kind: accuracy, damage, t-SNE embedding, transformed images, latency."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nflib import adapters, damage, data, energy, evaluation, faults, generators, models
from nflib.files import write_whole
from nflib.generators import transform
from nflib.mitigations import MITIGATIONS
from nflib.names import UserError
from nflib.quantize import Quantized
from nflib.shifts import shifted
from nflib.study.cells import Cell
from nflib.study.records import checksum, code_digest, provenance
from nflib.study.trained import base_model, checkpoints, dataset_on, generator_model
from nflib.training import OutOfTime, autocast, progress_bar

CHIPS_AT_A_TIME, KEPT_SECONDS = 5, 60.0  # between two looks at the clock; between two writes of what is measured
NEIGHBOURS = 5
CONSTANT = 1e-10  # share of the mean square below which a variance is rounding
SHOWN_CLASSES, SHOWN_EACH = 10, 2  # images kept beside a record of transformed images
DAMAGE_BATCH = 100  # images whose outputs of every layer are in memory at once
MODE_SECONDS, LATENCY_ROUNDS = 10.0, (10, 100)  # time aimed at for the networks of a mode; fewest and most rounds

Measured = tuple[dict, dict, dict[str, np.ndarray] | None]


def _models(cell: Cell, device: torch.device, deadline: float | None):
    """Base model (with its adapter, if the cell has one), generator (or None), and what every record says about how they
    came about: (facts, digests)."""
    error_model = faults.named(cell.error_model, cell.rate)
    is_chip = faults.is_chip_map(cell.error_model) and error_model.load()  # refuses a bad file before any training
    base, base_facts, base_digest = base_model(cell.base, device, deadline, cell.bits)
    generator, generator_facts, generator_digest = (
        generator_model(cell, device, deadline) if cell.generator else (None, None, None)
    )
    facts = {"base_training": base_facts, "generator_training": generator_facts}
    digests = {"data": dataset_on(cell.base.dataset, device).digest, "base": base_digest, "generator": generator_digest}
    digests |= {"chip": error_model.digest} if is_chip else {}
    if cell.generator and cell.generator.place:
        base.model, generator = adapters.Adapted(base.model, generator, cell.generator.place), None
    if cell.selector:
        selector, facts["selector_training"], digests["selector"] = base_model(cell.selector, device, deadline)
        generator = generators.Selected(generator, selector)
    return base, generator, facts, digests


def accuracies(cell: Cell, device: torch.device, deadline: float | None = None) -> Measured:
    """Accuracy without and with errors; of all kinds but those below.

    clean (CA, or CA(NF) with a generator) and perturbed (PA or PA(NF), one value a pattern), in per cent of the test
    images, shifted if the cell says so, for kind "validation" of the validation images; changed_bits, the share of stored
    bits that each pattern changed, after the cell's mitigation if it has one.  Errors are in what `cell.hit` says; with
    "generator too", also in the generator's weights, under the pattern of the same seed.  layers, layer_weights (where
    errors are limited): names and weights of the base model's layers, in order.
    """
    base, generator, facts, digests = _models(cell, device, deadline)
    began, dataset = time.perf_counter(), dataset_on(cell.base.dataset, device)
    mitigation = MITIGATIONS[cell.mitigation] if cell.mitigation else None
    base = mitigation.prepare(base) if mitigation else base
    error_model = _limited(faults.named(cell.error_model, cell.rate), cell.hit, base)
    split = (dataset.validation if cell.kind == "validation" else dataset.test).first(cell.images)
    split = shifted(split, cell.shift) if cell.shift else split
    batches = evaluation.prepared(split, generator)
    count = mitigation.calibration if mitigation else 0
    calibration = evaluation.prepared(dataset.train.first(count), generator) if count else []
    front = Quantized(generator, cell.generator.bits) if cell.hit == "generator too" else None

    def behind_errors(seed: int) -> list:
        with faults.perturbed(front, error_model.draw(front.sizes, seed, front.bits)):
            return evaluation.prepared(split, front.model)

    def of_chips(seeds: Sequence[int], tick: Callable[[], None]) -> tuple[list[float], list[float]]:
        if not front:
            mitigate = mitigation.apply if mitigation else None
            return evaluation.perturbed_accuracies(base, error_model, seeds, batches, tick, mitigate, calibration)
        each = [evaluation.perturbed_accuracies(base, error_model, [k], behind_errors(k), tick) for k in seeds]
        return tuple(sum(values, []) for values in zip(*each))

    clean = evaluation.accuracy(base, batches)
    perturbed, shares, before = _by_chip(cell, of_chips, digests, deadline)
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": shares, "images": len(split.labels)} | facts
    if cell.hit:
        metrics |= {"layers": list(base.sizes), "layer_weights": list(base.sizes.values())}
    return metrics | {"evaluation_seconds": time.perf_counter() - began + before}, provenance(device, **digests), None


def chips_path(cell: Cell) -> Path:
    """Where the accuracies of a cell's first patterns are kept until its record is stored."""
    return checkpoints() / f"{cell.digest}.chips.json"


def _kept(path: Path, identity: dict) -> dict | None:
    """What is kept at `path` of the same models, data and code; UserError for a file that is not whole."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        if stored.pop("sha256") != checksum(stored):
            raise ValueError
        same = stored["identity"] == identity
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"measured patterns {path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"measured patterns {path} are damaged; move the file away to measure them again") from None
    return stored if same else None


def _by_chip(
    cell: Cell, of_chips: Callable, digests: dict, deadline: float | None
) -> tuple[list[float], list[float], float]:
    """Accuracy and share of changed bits of each error pattern, and the seconds that earlier, stopped measurements took.

    of_chips(seeds, tick) measures some of the patterns.  What is measured is kept now and then, and taken up again where
    models, data and code are the same.  Raises OutOfTime.
    """
    path, began, saved = chips_path(cell), time.monotonic(), time.monotonic()
    identity = digests | {"cell": cell.digest, "code": code_digest()}
    whole = _kept(path, identity) or {"identity": identity, "perturbed": [], "shares": [], "seconds": 0.0}
    before, begun = whole["seconds"], len(whole["perturbed"])
    seeds = range(cell.first_seed, cell.first_seed + cell.patterns)
    with progress_bar(cell.patterns, f"{cell.words}: patterns", len(whole["perturbed"]), "pattern") as progress:
        while rest := seeds[len(whole["perturbed"]) :]:
            over = deadline is not None and time.monotonic() > deadline
            more_than_before = len(whole["perturbed"]) > begun  # a call goes on by a step, however short its time
            if more_than_before and (over or time.monotonic() - saved > KEPT_SECONDS):
                saved = time.monotonic()
                kept = whole | {"seconds": before + saved - began}
                write_whole(path, json.dumps(kept | {"sha256": checksum(kept)}))
            if over and more_than_before:
                raise OutOfTime
            for name, values in zip(("perturbed", "shares"), of_chips(rest[:CHIPS_AT_A_TIME], progress.update)):
                whole[name] += values
    return whole["perturbed"], whole["shares"], before


def _limited(error_model: faults.ErrorModel, hit: str, base: Quantized) -> faults.ErrorModel:
    """`error_model` with errors in one bit or one layer of `base` only; hit as in Cell."""
    what, _, number = hit.partition(" ")
    if what == "bit":
        return dataclasses.replace(error_model, hit_bits=(int(number),))
    if what == "layer":
        return dataclasses.replace(error_model, layers=(list(base.sizes)[int(number) - 1],))
    return error_model


def damages(cell: Cell, device: torch.device, deadline: float | None = None) -> Measured:
    """What errors do in each layer of the base model, behind the generator if there is one: the metrics of `damage.damage`;
    after_cuts: `damage.after_cuts`."""
    base, generator, facts, digests = _models(cell, device, deadline)
    began = time.perf_counter()
    batches = evaluation.prepared(dataset_on(cell.base.dataset, device).test.first(cell.images), generator, DAMAGE_BATCH)
    seeds = range(cell.first_seed, cell.first_seed + cell.patterns)
    with progress_bar(cell.patterns, f"{cell.words}: patterns", unit="pattern") as progress:
        error_model = faults.named(cell.error_model, cell.rate)
        metrics = damage.damage(base, error_model, seeds, batches, progress.update)
        metrics["after_cuts"] = damage.after_cuts(base, error_model, seeds, batches)
    metrics |= {"images": sum(len(labels) for _, labels in batches), "evaluation_seconds": time.perf_counter() - began}
    return metrics | facts, provenance(device, **digests), None


def neighbour_accuracy(points: Tensor, labels: Tensor, neighbours: int = NEIGHBOURS) -> float:
    """Share, in per cent, of points [N, D] whose `neighbours` nearest other points vote for their own label [N].

    Of labels with equally many votes the smallest wins.
    """
    exact = points.double()
    distances = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(float("inf"))
    nearest = labels[distances.topk(neighbours, largest=False).indices]
    return 100 * (nearest.mode(1).values == labels).double().mean().item()


def _flattened(outputs: Tensor) -> np.ndarray:
    """t-SNE of outputs [N, classes]: float32 [N, 2].  Equal outputs all lie at the origin: scikit-learn crashes on them."""
    from sklearn.manifold import TSNE

    centred = outputs.double() - outputs.double().mean(0)
    if centred.square().sum() <= CONSTANT * outputs.double().square().sum():
        return np.zeros((len(outputs), 2), np.float32)
    perplexity = min(30.0, (len(outputs) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1)
    return tsne.fit_transform((centred / centred.std()).float().numpy()).astype(np.float32)


def embedding(cell: Cell, device: torch.device, deadline: float | None = None) -> Measured:
    """t-SNE of the base model's outputs, without errors (first) and under each pattern; Figure 15.

    Metrics: clean and perturbed (accuracies); of the true classes, one value for the clean model and one a pattern:
    neighbours and silhouette (in the embedding), output_neighbours and output_silhouette (in the outputs themselves);
    classes (how many the images have).  Arrays: points [patterns + 1, images, 2], labels [images], outputs [patterns + 1,
    images, classes] (float32).  Needs scikit-learn.  Raises UserError where the images have one class only, or one each.
    """
    try:
        from sklearn.metrics import silhouette_score
    except ImportError:
        raise UserError("t-SNE needs scikit-learn, which is not installed; leave its cells out with --only kind=accuracy") from None
    labels = dataset_on(cell.base.dataset, device).test.first(cell.images).labels.cpu()
    classes = len(labels.unique())
    if not 1 < classes < len(labels):
        raise UserError(f"t-SNE needs images of several classes, several of a class; {len(labels)} images have {classes}")
    base, generator, facts, digests = _models(cell, device, deadline)
    began = time.perf_counter()
    batches = evaluation.prepared(dataset_on(cell.base.dataset, device).test.first(cell.images), generator)
    error_model, outputs = faults.named(cell.error_model, cell.rate), [evaluation.outputs(base, batches).cpu()]
    points, scores = [], {name: [] for name in ("neighbours", "silhouette", "output_neighbours", "output_silhouette")}
    with progress_bar(cell.patterns + 1, f"{cell.words}: embeddings", unit="embedding") as progress:
        for seed in range(cell.first_seed, cell.first_seed + cell.patterns):
            with faults.perturbed(base, error_model.draw(base.sizes, seed, base.bits)):
                outputs.append(evaluation.outputs(base, batches).cpu())
        for output in outputs:
            points.append(_flattened(output))
            for prefix, values in (("", torch.from_numpy(points[-1])), ("output_", output)):
                scores[f"{prefix}neighbours"].append(neighbour_accuracy(values, labels))
                scores[f"{prefix}silhouette"].append(float(silhouette_score(values.double().numpy(), labels.numpy())))
            progress.update()
    right = [100 * (output.argmax(1) == labels).double().mean().item() for output in outputs]
    metrics = {"clean": right[0], "perturbed": right[1:], "images": len(labels), "classes": classes} | scores | facts
    arrays = {"points": np.stack(points), "labels": labels.numpy().astype(np.uint8)}
    arrays["outputs"] = torch.stack(outputs).numpy()
    metrics["evaluation_seconds"] = time.perf_counter() - began
    return metrics, provenance(device, **digests), arrays


def _between_classes(values: Tensor, labels: Tensor) -> float | None:
    """Per cent of the variance of `values` [N, D] that lies between the classes; None where nothing varies.

    Epsilon squared, 1 - (within / (N - C)) / (total / (N - 1)) for C classes: zero on average where the class does not
    matter, whatever N and C (eta squared, the plain share, would be (C - 1) / (N - 1)).
    """
    centred = values - values.mean(0)
    total, classes = centred.square().sum(), labels.unique()
    if total <= CONSTANT * values.square().sum() or len(classes) == len(values):
        return None
    between = sum((labels == c).sum() * centred[labels == c].mean(0).square().sum() for c in classes)
    within_share = 1 - (between / total).item()
    return 100 * (1 - within_share * (len(values) - 1) / (len(values) - len(classes)))


def transformed_images(cell: Cell, device: torch.device, deadline: float | None = None) -> Measured:
    """What a generator adds to images, and how much of it is the class; Figures 16 and 17.

    Metrics, in per cent: clean (CA(NF)); clean_without (CA); perturbation_alone (accuracy of the base model that sees
    clip(G(x)) and no image); swapped_image and swapped_perturbation (of images with the perturbation of an image of
    another class: share classified as the image's class, and as the perturbation's; None where there is one class only);
    between_classes, of images, perturbations G(x) and transformed images: share of their variance that lies between the
    classes (None where nothing varies); saturated: share of pixel values that the clipping to [-1, 1] cuts.
    Arrays: images and transformed (uint8 [shown, 3, H, W]), perturbations (float16, same), labels.
    """
    base, generator, facts, digests = _models(cell, device, deadline)
    began = time.perf_counter()
    test = dataset_on(cell.base.dataset, device).test.first(cell.images)
    labels, batches = test.labels, evaluation.prepared(test, None)
    with torch.inference_mode(), autocast(device):
        change = torch.cat([generator(images).float() for images, _ in batches])
    with torch.inference_mode():
        images = torch.cat([images for images, _ in batches])
        kinds = {"images": images, "perturbations": change, "transformed": (images + change).clamp(-1, 1)}
        metrics, arrays = _how_much_is_class(base, kinds, labels), _examples(kinds, labels)
    metrics |= {"images": len(labels), "evaluation_seconds": time.perf_counter() - began}
    return metrics | facts, provenance(device, **digests), arrays


def _how_much_is_class(base: Callable[[Tensor], Tensor], kinds: dict[str, Tensor], labels: Tensor) -> dict:
    """The metrics of `transformed_images`; kinds: images, perturbations, transformed [N, 3, H, W]."""
    images, change, moved = kinds.values()

    def answers(shown: Tensor) -> Tensor:
        return evaluation.outputs(base, ((some, None) for some in shown.split(evaluation.BATCH))).argmax(1)

    def percent(hits: Tensor) -> float | None:
        return 100 * hits.double().mean().item() if len(hits) else None

    partner = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(labels.device)
    first = (labels != labels[partner]).nonzero()[:, 0]  # with perturbations of images of other classes
    swapped = answers((images[first] + change[partner[first]]).clamp(-1, 1))
    return {
        "clean": percent(answers(moved) == labels),
        "clean_without": percent(answers(images) == labels),
        "perturbation_alone": percent(answers(change.clamp(-1, 1)) == labels),
        "swapped_image": percent(swapped == labels[first]),
        "swapped_perturbation": percent(swapped == labels[partner[first]]),
        "between_classes": {name: _between_classes(values.flatten(1), labels) for name, values in kinds.items()},
        "saturated": percent((images + change).abs() > 1),
    }


def _examples(kinds: dict[str, Tensor], labels: Tensor) -> dict[str, np.ndarray]:
    """The arrays of `transformed_images`: the first images of the first classes."""
    classes = labels.unique()[:SHOWN_CLASSES]
    rows = torch.cat([(labels == c).nonzero()[:SHOWN_EACH, 0] for c in classes])
    arrays = {name: _uint8(kinds[name][rows]) for name in ("images", "transformed")}
    arrays["perturbations"] = kinds["perturbations"][rows].half().cpu().numpy()
    return arrays | {"labels": labels[rows].cpu().numpy().astype(np.uint8)}


def _uint8(images: Tensor) -> np.ndarray:
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


class _Both(nn.Module):
    """A base model behind a generator."""

    def __init__(self, generator: Callable[[Tensor], Tensor], base: Callable[[Tensor], Tensor]):
        super().__init__()
        self.generator, self.base = generator, base

    def forward(self, images: Tensor) -> Tensor:
        return self.base(transform(self.generator, images))


def _latency_rows(networks: dict[str, Callable[[Tensor], Tensor]], images: Tensor, mode: str) -> list[dict]:
    first = energy.latencies(networks, images, rounds=3, warmup=2)  # compiles, where they are compiled
    once = 2 * sum(found.median for found in first.values()) / 1000
    rounds = int(np.clip(MODE_SECONDS / max(once, 1e-6), *LATENCY_ROUNDS))
    rows = []
    for name, one in energy.latencies(networks, images, rounds).items():
        times = {"median_ms": one.median, "spread_ms": one.spread, "calls": rounds}
        rows.append({"network": name, "mode": mode} | times)
    return rows


def latencies(cell: Cell, device: torch.device, deadline: float | None = None) -> Measured:
    """Latency of a base model alone, of a generator alone, and of both, by turns, eager and compiled; Table 9.

    The batch has `cell.images` images.  Weights are untrained: they do not change the time.  Metrics: rows of {network
    ("base", "generator" or "both"), mode, median_ms, spread_ms (interquartile range), calls}; a mode that does not work on
    this machine has no rows and is named in `without`.
    """
    began = time.perf_counter()
    size = data.image_size(cell.base.dataset)
    images = torch.rand(cell.images, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    base = models.build(cell.base.model, 10, size, cell.base.width)
    generator = generators.build(cell.generator.name, cell.generator.width, image_size=size)
    for network in (base, generator):
        network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    rows, without = [], {}
    with progress_bar(2, f"{cell.words}: modes", unit="mode") as progress, autocast(device):
        for mode, prepare in (("eager", lambda network: network), ("compiled", lambda n: _compiled(n, device))):
            try:
                alone = {"base": prepare(base), "generator": prepare(generator)}
                rows += _latency_rows(alone | {"both": _Both(alone["generator"], alone["base"])}, images, mode)
                progress.update()
            except Exception as error:  # no compiler on this machine: eager remains
                if mode == "eager":
                    raise
                without[mode] = str(error).splitlines()[0][:200]
    metrics = {"rows": rows, "without": without, "batch": cell.images, "image_size": size}
    metrics |= {"base_training": None, "generator_training": None, "evaluation_seconds": time.perf_counter() - began}
    return metrics, provenance(device), None


def _compiled(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    return torch.compile(network, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else "default")


MEASURES: dict[str, Callable[..., Measured]] = {
    "accuracy": accuracies,
    "validation": accuracies,
    "mitigation": accuracies,
    "shift": accuracies,
    "sensitivity": accuracies,
    "damage": damages,
    "tsne": embedding,
    "transformed_images": transformed_images,
    "latency": latencies,
}


def _of_images(metrics: dict) -> dict:
    """Columns of a record of transformed images."""
    names = ("clean_without", "perturbation_alone", "swapped_image", "swapped_perturbation", "saturated")
    shares = {f"between_classes_{name}": value for name, value in metrics["between_classes"].items()}
    return {name: metrics[name] for name in names} | shares


def _of_tsne(metrics: dict) -> dict:
    """Columns of a record of embeddings: scores of the clean model, and means over the error patterns."""
    found = {}
    for name in ("neighbours", "silhouette", "output_neighbours", "output_silhouette"):
        found[f"{name}_clean"], found[name] = metrics[name][0], float(np.mean(metrics[name][1:]))
    return found


def _of_latency(metrics: dict) -> dict:
    """Columns of a record of latencies: the median, in ms, of each network and mode, "both_eager_ms"."""
    return {f"{row['network']}_{row['mode']}_ms": row["median_ms"] for row in metrics["rows"]}


def _of_damage(metrics: dict) -> dict:
    """Columns of a record of damage: geometric means over layers, NaN where nothing varies."""
    values = {name: [value for value in metrics[name] if value is not None] for name in ("own_noise", "weight_noise", "range_over_rms")}
    return {name: float(np.exp(np.log(np.clip(some, 1e-300, None)).mean())) if some else np.nan for name, some in values.items()}


DERIVED = {  # columns that a kind adds to the frame
    "damage": _of_damage, "transformed_images": _of_images, "tsne": _of_tsne, "latency": _of_latency
}  # fmt: skip


def measure(cell: Cell, device: torch.device, deadline: float | None = None) -> Measured:
    """Measure a cell; returns (metrics, provenance, arrays or None) for its record.

    Every kind's metrics also hold evaluation_seconds, base_training and generator_training (facts, or None).
    """
    return MEASURES[cell.kind](cell, device, deadline)
