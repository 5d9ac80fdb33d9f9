"""Page "tsne": how far the classes lie apart in the base model's outputs, with and without errors and generators
(Figure 15, which has no numbers)."""

from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown
from matplotlib import patheffects
from matplotlib.figure import Figure
from scipy import stats

from nflib import figures, generators, show, tables
from nflib.store import Store

SURE = 0.95  # confidence (Student's t over patterns) from which on a difference is called one
FAR = 10.0  # points by which the outputs' neighbours must beat the accuracy for classes to count as shifted, not mixed
AGREE = 5.0  # points by which neighbour accuracy in picture and outputs may differ
VECTOR_POINTS = 1500  # of a picture; more are drawn as pixels, which keeps the SVG small
NUMBERED = 20  # classes; the numbers of more would hide the dots
PLACES = {"outputs": "output_", "embedding": ""}  # where neighbours are looked for: prefix of the metric
SETTING = [*tables.SETTING, "classes"]
ACCURACIES = ["CA", "PA", "PA_std", "CA_NF", "PA_NF", "PA_NF_std", "RP", "RP_error", "published_PA", "published_PA_NF"]
PARTS = ("clean", "perturbed", "std", "gain", "gain_error")
MEASURES = [f"{name}_{part}" for name in ("neighbours", "silhouette") for part in PARTS]
WORST = ["accuracy_worst", "neighbours_worst"]
COLUMNS = [*SETTING, "generator", "imitation_steps", "steps", *ACCURACIES, "place", *MEASURES, *WORST, "record"]
SHOWN = {
    "base_model": "base model", "base_recipe": "recipe", "error_model": "error model", "ber_percent": "BER %",
    "generator": "generator", "imitation_steps": "imitation steps", "steps": "steps of Eq. 3", "CA": "CA", "PA": "PA", "CA_NF": "CA(NF)", "PA_NF": "PA(NF)",
    "RP": "RP", "RP_error": "± error RP", "published_PA": "paper PA", "published_PA_NF": "paper PA(NF)", "place": "where",
} | {
    f"{name}_{part}": f"{name}, {words}" if part in ("clean", "perturbed") else f"{words} {name}"
    for name in ("neighbours", "silhouette")
    for part, words in zip(PARTS, ("clean", "perturbed", "± std", "gain", "± error"))
} | {"record": "record"}  # fmt: skip
FIRST = ("generator", "place", *(f"neighbours_{part}" for part in PARTS))
SHOWN = {name: SHOWN[name] for name in (*FIRST, *SHOWN)}  # results before settings


def _gain(after: np.ndarray, before: np.ndarray | None) -> tuple[float, float]:
    """Mean of the differences of the same patterns, and its standard error."""
    if before is None:
        return np.nan, np.nan
    gain = after - before
    return gain.mean(), gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """Two rows a network, one for its outputs and one for their t-SNE embedding (Figure 15).

    neighbours: per cent of images whose five nearest others vote for their class; silhouette: from -1 to 1, 0 where
    classes are not told apart.  _clean without errors; _perturbed and _std over error patterns (ddof 0); _gain, with its
    standard error, the mean of the paired differences to the base model alone on the same patterns.  CA, PA and their
    counterparts with the generator in per cent of the same images, RP in points.  accuracy_worst, neighbours_worst: both
    of the pattern with the lowest accuracy.  published_PA, published_PA_NF: Tables 12 to 15 (all test images).
    """
    records = [record for record in records if record["cell"]["table"] == "tsne"]
    alone = {}
    for record in records:
        if record["cell"]["generator"] is None:
            here = tables.setting(record)
            alone[tuple(here[key] for key in tables.KEYS)] = record["metrics"]
    rows = []
    for record in records:
        here, metrics = tables.described(record), record["metrics"]
        base = alone.get(tuple(here[key] for key in tables.KEYS))
        perturbed = np.array(metrics["perturbed"])
        before = base and np.array(base["perturbed"])
        if base:
            here |= {"CA": base["clean"], "PA": before.mean(), "PA_std": before.std()}
        if here["generator"] != "none":
            here |= {"CA_NF": metrics["clean"], "PA_NF": perturbed.mean(), "PA_NF_std": perturbed.std()}
            here["RP"], here["RP_error"] = _gain(perturbed, before)
        for place, prefix in PLACES.items():
            row, worst = here | {"place": place}, int(perturbed.argmin())
            for name in ("neighbours", "silhouette"):
                clean, *over = metrics[prefix + name]
                gains = _gain(np.array(over), base and np.array(base[prefix + name][1:]))
                gains = gains if here["generator"] != "none" else (np.nan, np.nan)
                values = (clean, np.mean(over), np.std(over), *gains)
                row |= {f"{name}_{part}": value for part, value in zip(PARTS, values)}
            row |= {"accuracy_worst": perturbed[worst], "neighbours_worst": metrics[f"{prefix}neighbours"][1 + worst]}
            rows.append(row)
    return tables.ordered(rows, COLUMNS, "place")


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table, columns in words, those without content left out."""
    shown = rows[list(SHOWN)].rename(columns=SHOWN)
    return show.table(shown.dropna(axis=1, how="all") if len(shown) else shown, "tsne", 2)


# ------------------------------------------------------------------------------------------------------------- pictures


def _panel(axis, points: np.ndarray, labels: np.ndarray, raster: bool) -> None:
    """An embedding: a dot an image in its class's colour (of ten), the class's number just above its median."""
    colours = sns.color_palette("colorblind", 10)
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    for label in (classes := np.unique(labels)):
        here, colour = points[labels == label], colours[label % 10]
        axis.plot(*here.T, "o", color=colour, markersize=2.5, markeredgewidth=0, rasterized=raster)
        if len(classes) > NUMBERED:
            continue
        above = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "va": "center"}
        axis.annotate(str(label), np.median(here, 0), **above, fontsize=9, weight="bold", path_effects=halo)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_color("0.8")
    axis.margins(0.09, 0.14)
    axis.set_aspect("equal", adjustable="datalim")


def picture(networks: list[tuple[dict, dict[str, np.ndarray]]]) -> figures.Picture:
    """Embeddings of a few networks (records with their arrays) side by side: without errors above, the first pattern below."""
    first, arrays = networks[0]
    where, count = tables.setting(first), 2 * len(networks) * len(arrays["labels"])
    said = []
    with sns.axes_style("white"), matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(7.0, 5.3), dpi=200, layout="constrained")
        panels = figure.subplots(2, len(networks), squeeze=False)
        for column, (record, arrays) in zip(panels.T, networks):
            metrics, recipe = record["metrics"], record["cell"]["generator"]
            name = generators.label(recipe["name"]) if recipe else "no generator"
            accuracies = [metrics["clean"], metrics["perturbed"][0]]
            for k, (axis, word, accuracy) in enumerate(zip(column, ("clean", "perturbed"), accuracies)):
                _panel(axis, arrays["points"][k], arrays["labels"], count > VECTOR_POINTS)
                found = f"accuracy {accuracy:.0f} %, neighbours {metrics['neighbours'][k]:.0f} %"
                axis.set_title(f"{name}, {word}\n{found}", fontsize=9)
                said.append(f"{name}, {word}: {found}")
        title = f"{where['dataset']} {where['base_model']}, base recipe {where['base_recipe']}, {where['error_model']}"
        figure.suptitle(f"{title}, BER {where['ber_percent']:g} %, pattern {where['first_seed']}", fontsize=10, **figures.TITLE)
        return figures.Picture(figure, f"t-SNE of the outputs of {title}, coloured by class. {'; '.join(said)}.")


def pictures(records: Iterable[dict], profile: str) -> HTML:
    """`picture` of each setting: the base model alone beside its generators, two at a time."""
    store, groups = Store(profile), {}
    for record in records:
        groups.setdefault(tuple(map(str, (tables.setting(record)[key] for key in tables.KEYS))), []).append(record)
    drawn = []
    for _, group in sorted(groups.items()):
        group = sorted(group, key=lambda record: tuple(tables.described(record)[key] for key in ("generator", "steps", "record")))
        alone = [record for record in group if record["cell"]["generator"] is None]
        behind = [record for record in group if record["cell"]["generator"] is not None]
        for k in range(0, max(1, len(behind)), 2):
            drawn.append(picture([(record, store.arrays(record)) for record in (*alone, *behind[k : k + 2])]))
    return show.gallery(drawn)


# ------------------------------------------------------------------------------------------------------------ sentences


def _edge(error, patterns):
    """Half the width of a gain's confidence interval, from its standard error over a number of patterns."""
    return error * stats.t.ppf(0.5 + SURE / 2, patterns - 1)


def _moved(gain: float, error: float, patterns: int, digits: int = 1, unit: str = " points") -> str:
    """A gain in words, by its confidence interval."""
    if np.isnan(gain):
        return "not compared, the base model alone is missing"
    size = f"{gain:+.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}") + unit
    if np.isnan(error):
        return f"{size}, from one error pattern"
    sure = abs(gain) > _edge(error, patterns)
    return f"{size}, {'more' if gain > 0 else 'less'} than without" if sure else f"{size}, no sure difference"


def _lines(some: pd.DataFrame) -> list[str]:
    """Sentences on one setting: what errors do, what each generator does, and whether the picture agrees."""
    lines, count = [], some["patterns"].iloc[0]
    wide = {name: part.set_index("place") for name, part in some.groupby(["generator", "steps", "record"], sort=False)}
    for (name, _, _), row in wide.items():
        out, flat = row.loc["outputs"], row.loc["embedding"]
        after = out["PA"] if name == "none" else out["PA_NF"]
        text = "Without a generator" if name == "none" else f"{name} ({show.trained(row)})"
        text += (
            f": neighbour accuracy in the outputs {out['neighbours_clean']:.1f} % clean, {out['neighbours_perturbed']:.1f} % "
            f"perturbed; in the embedding {flat['neighbours_clean']:.1f} and {flat['neighbours_perturbed']:.1f} %; "
            f"silhouette in the outputs {out['silhouette_clean']:.2f} and {out['silhouette_perturbed']:.2f}. "
            f"Accuracy {'PA' if name == 'none' else 'PA(NF)'} is {after:.1f} %."
        )
        if name != "none":
            gains = {"neighbour accuracy in the outputs": _moved(out["neighbours_gain"], out["neighbours_gain_error"], count)}
            gains["neighbour accuracy in the embedding"] = _moved(flat["neighbours_gain"], flat["neighbours_gain_error"], count)
            gains["silhouette in the outputs"] = _moved(out["silhouette_gain"], out["silhouette_gain_error"], count, 3, "")
            gains["accuracy (RP)"] = _moved(out["RP"], out["RP_error"], count)
            text += f" Gain of {'; of '.join(f'{name}: {words}' for name, words in gains.items())}."
        printed = out["published_PA"] if name == "none" else out["published_PA_NF"]
        if not np.isnan(printed):
            text += f" The paper's accuracy for this setting is {printed:g} %, over all test images."
        lines.append(text)
    gap = (some["neighbours_perturbed"][some["place"] == "embedding"].to_numpy()
           - some["neighbours_perturbed"][some["place"] == "outputs"].to_numpy())  # fmt: skip
    largest = gap[np.abs(gap).argmax()]
    agree = "agree" if abs(largest) <= AGREE else "do not agree"
    return [*lines, f"Picture and outputs {agree}: under errors neighbour accuracy in the embedding differs from that in "
                    f"the outputs by at most {abs(largest):.1f} points."]  # fmt: skip


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What came out, setting by setting."""
    lines = []
    for key, some in rows.groupby(SETTING, sort=False):
        at = dict(zip(SETTING, key))
        lines.append(
            f"* {at['dataset']} {at['base_model']}, base recipe `{at['base_recipe']}` ({at['base_epochs']} epochs), "
            f"{at['error_model']} at {at['ber_percent']:g} %; {show.count(at['patterns'], 'error pattern')}, {at['images']} "
            f"test images of {at['classes']} classes ({100 / at['classes']:.0f} % of neighbours agree by chance):"
        )
        lines += [f"  * {line}" for line in _lines(some)]
    lines += ["", f"Figure 15 of the paper shows such panels without numbers. {show.progress(rows, profile, 'tsne')}"]
    lines += ["", show.by_imitation(rows[rows["place"] == "outputs"])]
    return show.prose("\n".join(lines).lstrip())


def meaning(rows: pd.DataFrame) -> Markdown:
    """Whether generators restore separation, and whether separation is what errors take away."""
    outputs = rows[rows["place"] == "outputs"]
    tried = outputs[outputs["neighbours_gain_error"].notna()]
    lines = []
    if len(tried):
        edge = _edge(tried["neighbours_gain_error"], tried["patterns"])
        up, down = (tried["neighbours_gain"] > edge).sum(), (tried["neighbours_gain"] < -edge).sum()
        lines.append(
            f"Of {show.count(len(tried), 'generator')} measured beside the base model alone, {up} surely "
            f"{'brings' if up == 1 else 'bring'} separation back and {down} surely {'lowers' if down == 1 else 'lower'} it "
            f"(neighbour accuracy in the outputs, {100 * SURE:g} % confidence over error patterns)."
        )
    if len(outputs):
        after = outputs["PA_NF"].fillna(outputs["PA"])
        far = outputs["neighbours_perturbed"] - after > FAR
        shifted = int(far.sum())
        text = (
            f"In {shifted} of {show.count(len(outputs), 'network')} the neighbours in the outputs are right more than {FAR:g} "
            "points more often than the model's answer under the same errors."
        )
        if shifted:
            row = outputs.loc[(outputs["neighbours_worst"] - outputs["accuracy_worst"]).idxmax()]
            text += (
                f" The clearest pattern has an accuracy of {row['accuracy_worst']:.1f} % and a neighbour accuracy of "
                f"{row['neighbours_worst']:.1f} %. There errors shift the classes more than they mix them: clear "
                "clusters do not say that the model answers rightly."
            )
        lines.append(text)
    lines.append(
        "t-SNE keeps near neighbours and little else: distances between clusters, their sizes and their shapes mean nothing, "
        "and another seed gives another picture. Numbers in the outputs come first."
    )
    return show.prose("\n\n".join(lines))
