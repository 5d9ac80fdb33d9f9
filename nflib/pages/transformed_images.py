"""Page "transformed_images": what a generator adds to images, and how much of it is the class (Figures 16 and 17, which
have no numbers)."""

from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from nflib import figures, show, tables
from nflib.store import Store

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
KINDS = ("images", "perturbations", "transformed")
SHADE = 99  # percentile of |G(x)| that is drawn in full colour
PIXELS = 32  # height of an image in a gallery; larger ones are thinned out
SETTING = [name for name in tables.SETTING if name != "patterns"]
PLAIN = ["perturbation_alone", "swapped_image", "swapped_perturbation", "common", "mean_perturbation", "mean_change", "saturated"]
SPLIT = [f"{name}_{kind}" for name in ("nearest_mean", "between_classes") for kind in KINDS]
ALONE = ["chance", "largest_class", *PLAIN[:3]]
COLUMNS = [*SETTING, "classes", "generator", "imitation_steps", "steps", "CA", "CA_NF", "published_CA", "published_CA_NF"]
COLUMNS += [*ALONE, *SPLIT, *PLAIN[3:], "record"]
SHOWN = {
    "base_model": "base model", "base_recipe": "recipe", "error_model": "error model", "ber_percent": "BER %",
    "generator": "generator", "imitation_steps": "imitation steps", "steps": "steps of Eq. 3", "CA": "CA", "CA_NF": "CA(NF)", "published_CA": "paper CA",
    "published_CA_NF": "paper CA(NF)", "chance": "chance", "perturbation_alone": "perturbation alone",
    "swapped_image": "swapped: told as the image's class", "swapped_perturbation": "swapped: as the perturbation's class",
    "nearest_mean_images": "nearest class mean, images", "nearest_mean_perturbations": "nearest class mean, perturbations",
    "nearest_mean_transformed": "nearest class mean, transformed", "between_classes_images": "between classes, images",
    "between_classes_perturbations": "between classes, perturbations", "between_classes_transformed": "between classes, transformed",
    "common": "common to all images", "mean_perturbation": "mean |G(x)|", "mean_change": "mean change", "saturated": "saturated", "record": "record",
}  # fmt: skip


def class_name(dataset: str, label: int) -> str:
    """What a class of a data set is called: CIFAR-10's names; otherwise the number."""
    return CIFAR10[label] if dataset == "CIFAR-10" else str(label)


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a generator (Figures 16 and 17), everything in per cent.

    chance: 100 / classes; largest_class: share of the commonest class.  The measures are those of
    `measures.transformed_images`, nearest_mean and between_classes for images, perturbations and transformed images;
    mean_perturbation and mean_change of the image range.  published_*: Tables 12 to 15.
    """
    rows = []
    for record in records:
        if record["cell"]["table"] == "transformed_images":
            metrics, row = record["metrics"], tables.described(record)
            row |= {"CA": metrics["clean_without"], "CA_NF": metrics["clean"], "chance": 100 / metrics["classes"]}
            row |= {name: metrics[name] for name in ("largest_class", *PLAIN)}
            rows.append(row | {f"{name}_{kind}": metrics[name][kind] for name in ("nearest_mean", "between_classes") for kind in KINDS})
    frame = tables.ordered(rows, COLUMNS)
    return frame.astype({name: float for name in (*ALONE, *SPLIT)})


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table, columns in words, those without content left out."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN)
    return show.table(shown.dropna(axis=1, how="all") if len(shown) else shown, "transformed_images")


# ------------------------------------------------------------------------------------------------------------- pictures


def _mosaic(rows: list[np.ndarray]) -> np.ndarray:
    """Rows of images, each [classes, 3, H, W] in [0, 1], as one image with white lines between; NaN is white."""
    thin = max(1, rows[0].shape[-1] // PIXELS)
    padded = [np.pad(row[..., ::thin, ::thin], ((0, 0), (0, 0), (2, 0), (2, 0)), constant_values=1) for row in rows]
    return np.nan_to_num(np.concatenate([np.concatenate(list(row), 2) for row in padded], 1), nan=1).transpose(1, 2, 0)


def gallery(record: dict, arrays: dict[str, np.ndarray]) -> figures.Picture:
    """Classes side by side: two images each, with their perturbation and transformed image, and the class's mean
    perturbation.

    Grey is no perturbation; full colour is the SHADE-th percentile of |G(x)| over the images shown.
    """
    classes, change = np.unique(arrays["labels"]), arrays["perturbations"].astype(np.float32)
    scale = max(float(np.percentile(np.abs(change), SHADE)), 1e-6)
    parts = {"image": arrays["images"] / 255, "perturbation": 0.5 + change / (2 * scale), "transformed": arrays["transformed"] / 255}
    rows, names = [], []
    for example in range(max(np.unique(arrays["labels"], return_counts=True)[1])):
        places = [np.flatnonzero(arrays["labels"] == c)[example : example + 1] for c in classes]
        for name, values in parts.items():
            blank = np.full(values.shape[1:], np.nan)
            rows.append(np.stack([values[place[0]] if len(place) else blank for place in places]).clip(0, 1))
            names.append(f"{name} {example + 1}")
    rows.append((0.5 + arrays["class_means"].astype(np.float32) / (2 * scale)).clip(0, 1))
    names.append("class mean\nperturbation")
    where = tables.described(record)
    title = f"{where['dataset']} {where['base_model']} + {where['generator']} ({show.trained(pd.DataFrame([where]))}), base recipe {where['base_recipe']}"
    whole = _mosaic(rows)
    high, wide = whole.shape[0] / len(rows), whole.shape[1] / len(classes)
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(7.0, 0.7 + 5.9 * whole.shape[0] / whole.shape[1]), layout="constrained")
        axis = figure.subplots()
        axis.imshow(whole, interpolation="none")
        axis.set_yticks((np.arange(len(rows)) + 0.5) * high, names, fontsize=8)
        labels = [class_name(where["dataset"], c) for c in classes]
        axis.set_xticks((np.arange(len(classes)) + 0.5) * wide, labels, fontsize=8 if max(map(len, labels)) < 5 else 7)
        axis.tick_params(length=0, labeltop=True, labelbottom=False)
        axis.spines[:].set_visible(False)
        axis.grid(False)
        figure.suptitle(f"{title}\nperturbation: grey 0, full colour ± {50 * scale:.1f} % of the image range", fontsize=9)
        metrics = record["metrics"]
        said = f"Mean size of the perturbation {metrics['mean_perturbation']:.1f} % of the image range"
        return figures.Picture(figure, f"Images of {len(classes)} classes, perturbations and transformed images: {title}. {said}.")


def galleries(records: Iterable[dict], profile: str) -> HTML:
    """`gallery` of each record, in the order of the table."""
    known = {record["provenance"]["command"].rpartition("=")[2]: record for record in records}
    store = Store(profile)
    shown = [known[name] for name in frame(known.values())["record"]]
    return show.gallery([gallery(record, store.arrays(record)) for record in shown])


# ------------------------------------------------------------------------------------------------------------ sentences


def _reading(row: dict) -> str:
    """What one generator's numbers say about the class in its perturbation."""
    n = row["images"]
    error = 100 * np.sqrt(row["chance"] / 100 * (1 - row["chance"] / 100) / n)
    above = row["perturbation_alone"] > max(row["chance"], row["largest_class"]) + 2 * error
    text = (
        f"the base model that sees the perturbation alone, at its own size, is right on {row['perturbation_alone']:.1f} % of the images (chance "
        f"{row['chance']:.1f} %, commonest class {row['largest_class']:.1f} %): it {'reads' if above else 'does not read'} the class "
        f"there. The nearest class mean finds the class of {row['nearest_mean_perturbations']:.1f} % from perturbations and of "
        f"{row['nearest_mean_images']:.1f} % from images. "
    )
    shares = [row[f"between_classes_{kind}"] for kind in ("perturbations", "images")]
    if np.isnan(shares[0]):
        text += "The perturbation is the same for every image. "
    else:
        more = "more" if shares[0] > shares[1] else "less"
        text += (
            f"{row['common']:.1f} % of its mean square is the same for all images; of what varies {shares[0]:.1f} % lies between "
            f"classes, {more} than of the images' variance ({shares[1]:.1f} %). "
        )
    text += (
        f"Mean size {row['mean_perturbation']:.1f} % of the image range, {row['mean_change']:.1f} % after clipping, which cuts "
        f"{row['saturated']:.1f} % of the pixel values."
    )
    if not np.isnan(row["swapped_image"]):
        text += (
            f" An image with the perturbation made for an image of another class is told as the image's class in "
            f"{row['swapped_image']:.1f} % and as the perturbation's in {row['swapped_perturbation']:.1f} %."
        )
    return text


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What came out: of each base model a line for the generators whose perturbations decide most and least often; the others
    stand in the table."""
    lines, ends = [], []
    for _, some in rows.groupby(["dataset", "base_model", "base_recipe", "base_epochs", "error_model", "ber_percent"], sort=False):
        some = some.sort_values("swapped_perturbation", ascending=False, kind="stable", na_position="first")
        ends.append(some if len(some) <= 2 else some.iloc[[0, -1]])
    for row in pd.concat([rows[:0], *ends]).sort_index().to_dict("records"):
        line = (
            f"* {row['dataset']} {row['base_model']} (base recipe `{row['base_recipe']}`, {row['base_epochs']} epochs) with "
            f"{row['generator']} ({show.trained(pd.DataFrame([row]))}; {row['error_model']} at {row['ber_percent']:g} %), {row['images']} images: "
            + _reading(row) + f" Clean accuracy {row['CA']:.1f} → {row['CA_NF']:.1f} %"
        )  # fmt: skip
        printed = row["published_CA"], row["published_CA_NF"]
        lines.append(line + (f"; the paper has {printed[0]:g} → {printed[1]:g} %." if not np.isnan(printed).any() else "."))
    if left := len(rows) - len(lines):
        lines.append(f"* {show.count(left, 'other generator').capitalize()} between those of the same base model: in the table.")
    lines += ["", f"Figures 16 and 17 of the paper show such images without numbers. {show.progress(rows, profile, 'transformed_images')}"]
    return show.prose("\n".join(lines).lstrip())


def meaning(rows: pd.DataFrame) -> Markdown:
    """Does a generator paint the class's pattern over the image?"""
    swapped = rows[rows["swapped_image"].notna() & rows["between_classes_perturbations"].notna()]
    if swapped.empty:
        return show.prose("Nothing is measured that could tell.")
    painted = swapped[swapped["swapped_perturbation"] > swapped["swapped_image"]]
    classy = swapped[swapped["between_classes_perturbations"] > swapped["between_classes_images"]]
    text = (
        "A generator that paints the class over the image decides the answer, whatever the image: with the perturbation of an "
        "image of another class, an image is then told more often as the perturbation's class than as its own. "
        f"{len(painted)} of {show.count(len(swapped), 'generator')} {'does' if len(painted) == 1 else 'do'} so. In {len(classy)} of "
        f"{len(swapped)} the class explains more of the perturbations' variance than of the images'. "
    )
    if len(painted) == len(swapped):
        text += "These generators classify, and write their answer on the image. "
    elif len(painted) == 0:
        text += "These generators do not replace the image: the answer still comes from the image itself. "
    text += (
        f"The part that is the same for all images makes up {swapped['common'].min():.0f} to {swapped['common'].max():.0f} % of the "
        "perturbations' mean square. A generator that merely copies part of the image also varies with the class; swapping tells "
        "the two apart. All of this is without bit errors."
    )
    return show.prose(text)
