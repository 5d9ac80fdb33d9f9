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
        figure.suptitle(f"{title}\nperturbation: grey 0, full colour ± {50 * scale:.1f} % of the image range", fontsize=9, **figures.TITLE)
        metrics = record["metrics"]
        said = f"Mean size of the perturbation {metrics['mean_perturbation']:.1f} % of the image range"
        return figures.Picture(figure, f"Images of {len(classes)} classes, perturbations and transformed images: {title}. {said}.")


def galleries(records: Iterable[dict], profile: str) -> HTML:
    """`gallery` of the first generator of each of `_groups`; those of the others unfold."""
    known = {record["provenance"]["command"].rpartition("=")[2]: record for record in records}
    store, shown = Store(profile), []
    for _, some in _groups(frame(known.values())):
        first, *others = [gallery(known[name], store.arrays(known[name]))._repr_html_() for name in some["record"]]
        shown.append(first)
        if others:
            names = f"{show.count(len(others), 'other generator')}: {show.listed(some['generator'].iloc[1:])}"
            shown.append(f'<details class="nflib-more"><summary>{names}</summary>{"".join(others)}</details>')
    return HTML("\n".join(shown) or show.gallery([]).data)


# ------------------------------------------------------------------------------------------------------------ sentences


ALONE_WAY = "Eq. 3 alone, the paper's algorithm"
IMITATION_WAY = "imitation of class patterns"


def _groups(rows: pd.DataFrame) -> list[tuple[tuple, pd.DataFrame]]:
    """Generators of one base model, one setting of errors and one way of training; rows that decide most come first.  The key
    has the way last."""
    imitation, alone = rows["imitation_steps"].fillna(0) > 0, rows["steps"] > 0
    way = np.select([imitation & ~alone, imitation], [IMITATION_WAY, f"{IMITATION_WAY}, then Eq. 3"], ALONE_WAY)
    ranked = rows.assign(way=way).sort_values("swapped_perturbation", ascending=False, kind="stable", na_position="first")
    keys = [*show.GROUP, "images", "way"]
    order = rows.assign(way=way)[keys].drop_duplicates().itertuples(index=False)
    groups = dict(list(ranked.groupby(keys, sort=False)))
    return [(tuple(key), groups[tuple(key)]) for key in order]


def _reads(row: pd.Series) -> bool:
    """Whether the base model tells the class from the perturbation alone better than chance and guessing explain."""
    chance = row["chance"] / 100
    error = 100 * np.sqrt(chance * (1 - chance) / row["images"])
    return row["perturbation_alone"] > max(row["chance"], row["largest_class"]) + 2 * error


def _between(values: pd.Series) -> str:
    low, high = f"{values.min():.1f}", f"{values.max():.1f}"
    return low if low == high else f"{low} to {high}"


def _reading(some: pd.DataFrame) -> str:
    """What the numbers of some generators say about the class in their perturbations."""
    reads = int(some.apply(_reads, axis=1).sum())
    first, whole = some.iloc[0], len(some)
    above = "above chance" if reads == whole else "not above chance" if not reads else f"above chance for {reads} of {whole}"
    text = (
        f"from the perturbation alone, at its own size, the base model tells the class of {_between(some['perturbation_alone'])} % of the "
        f"images (chance {first['chance']:.1f} %, commonest class {first['largest_class']:.1f} %): {above}. "
    )
    swapped = some[some["swapped_image"].notna()]
    if len(swapped) < whole:
        text += "One perturbation is the same for every image. " if whole > 1 else "The perturbation is the same for every image. "
    if len(swapped):
        text += (
            f"With the perturbation made for an image of another class, an image is told as the perturbation's class in "
            f"{_between(swapped['swapped_perturbation'])} % and as its own in {_between(swapped['swapped_image'])} %. "
        )
    return text + f"Mean size of the perturbation: {_between(some['mean_perturbation'])} % of the image range."


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What came out: a line for the generators of one base model that were trained in one way."""
    lines = []
    for (dataset, model, recipe, epochs, law, rate, images, way), some in _groups(rows):
        printed = some.dropna(subset=["published_CA_NF"])
        line = (
            f"* **{dataset} {model}** (base recipe `{recipe}`, {epochs} epochs; {law} at {rate:g} %; {images:,} images), "
            f"{show.several(some['generator'], 'generator')}, trained by **{way}** ({show.trained(some)}): {_reading(some)} "
            f"Clean accuracy {some['CA'].iloc[0]:.1f} → {_between(some['CA_NF'])} %"
        )
        if len(printed):
            line += f"; in the paper {printed['published_CA'].iloc[0]:g} → {_between(printed['published_CA_NF'])} %"
        lines.append(f"{line}.")
    lines += ["", f"Figures 16 and 17 of the paper show such images without numbers. {show.progress(rows, profile, 'transformed_images')}"]
    return show.prose("\n".join(lines).lstrip())


def unaided(rows: pd.DataFrame) -> str:
    """Whether the longest training by the paper's algorithm alone led to a generator that decides the answer, in a sentence; ""
    where none is measured."""
    alone = rows[~(rows["imitation_steps"].fillna(0) > 0) & rows["swapped_image"].notna()]
    if alone.empty:
        return ""
    row = alone.loc[alone["steps"].idxmax()]
    return (
        f"Trained by Eq. 3 alone, the paper's algorithm ({row['steps']:,.0f} steps so far), {row['generator']} for {row['base_model']} "
        f"{'does' if row['swapped_perturbation'] > row['swapped_image'] else 'does not do'} so: given what it adds to an image of another class, an image is "
        f"told as its own class in {row['swapped_image']:.1f} % and as the other's in {row['swapped_perturbation']:.1f} %."
    )


def meaning(rows: pd.DataFrame) -> Markdown:
    """Does a generator paint the class's pattern over the image, and is that the paper's algorithm or the training by imitation?"""
    swapped = rows[rows["swapped_image"].notna() & rows["between_classes_perturbations"].notna()]
    if swapped.empty:
        return show.prose("Nothing is measured that could tell.")
    lines, ways = [], {}
    for (*_, way), some in _groups(swapped):
        ways.setdefault(way, []).append(some)
    for way, parts in ways.items():
        some = pd.concat(parts)
        painted = int((some["swapped_perturbation"] > some["swapped_image"]).sum())
        classy = int((some["between_classes_perturbations"] > some["between_classes_images"]).sum())
        does = "does" if 1 in (painted, len(some)) else "do"
        line = f"* Trained by {way}: {painted} of {show.count(len(some), 'generator')} {does} so; in {classy} the class explains more of the perturbations' variance than of the images'."
        if way == IMITATION_WAY and painted:
            line += " That is what they were trained for: class patterns, which they imitate, decide whatever the image. It shows that they learnt it."
        if way == ALONE_WAY:
            longest = f"after {some['steps'].max():,.0f} steps at most"
            if painted == 0:
                line += f" So the paper's algorithm, {longest}, does not lead there by itself: the answer still comes from the image."
            elif painted == len(some):
                line += f" So the paper's algorithm, {longest}, leads there by itself: these generators classify, and write their answer on the image."
        lines.append(line)
    text = (
        "A generator that paints the class over the image decides the answer, whatever the image: with the perturbation of an "
        "image of another class, an image is then told more often as the perturbation's class than as its own.\n\n"
        + "\n".join(lines) + "\n\n"
        f"The part that is the same for all images makes up {swapped['common'].min():.0f} to {swapped['common'].max():.0f} % of the "
        "perturbations' mean square. A generator that merely copies part of the image also varies with the class; swapping tells "
        "the two apart. All of this is without bit errors."
    )  # fmt: skip
    return show.prose(text)
