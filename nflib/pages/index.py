"""The first page: what NeuralFuse is, whether it works, why, what it costs, and how far our numbers agree with the paper's."""


import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nflib import energy, figures, generators, published, report, show, tables
from nflib.mitigations import MITIGATIONS
from nflib.pages import mechanism, tradeoff, transformed_images
from nflib.store import Store
from nflib.study import macs

AT = {"dataset": "CIFAR-10", "base_model": "VGG11", "base_recipe": "release", "ber_percent": 1.0}  # the example of the page
CLOSE = 0.06  # two numbers printed with one decimal agree when they are no farther apart
GREY = "0.45"


def _here(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the page's example, whatever the length of its base model's training."""
    return rows[np.logical_and.reduce([rows[name] == value for name, value in AT.items()])]


def example(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the page's example, of its longest-trained base model."""
    some = _here(rows)
    return some[some["base_epochs"] == some["base_epochs"].max()]


def _official(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `example` under the official code's error map."""
    return example(rows[rows["error_model"] == "ReleaseMap"])


def _length(rows: pd.DataFrame, others: pd.DataFrame) -> str:
    """Words that tell the base model of some rows from that of others, where it was trained for another time."""
    epochs = rows["base_epochs"].iloc[0]
    return "" if (others["base_epochs"] == epochs).all() else f" (here of {epochs} epochs)"


def idea() -> figures.Picture:
    """The path of an image: generator at nominal voltage, frozen classifier at low voltage with bit errors."""
    figure, (axis,) = figures._figure(height=1.9)
    axis.set(xlim=(0, 104), ylim=(0, 22))
    axis.axis("off")
    boxes = [
        (1, 11, "image x", "", GREY),
        (20, 17, "generator\nG", "nominal voltage,\nno errors", mechanism.BLUE),
        (46, 15, "x + G(x)", "clipped", GREY),
        (71, 18, "frozen\nclassifier", "low voltage: random bits\nof its 8-bit weights flip", mechanism.ORANGE),
        (95, 8, "class", "", GREY),
    ]
    for left, width, name, note, colour in boxes:
        axis.add_patch(FancyBboxPatch((left, 9), width, 9, boxstyle="round,pad=0.6", facecolor="none", edgecolor=colour, linewidth=2))
        axis.text(left + width / 2, 13.5, name, ha="center", va="center", fontsize=10)
        axis.text(left + width / 2, 6.5, note, ha="center", va="top", fontsize=8, color=colour)
    for (left, width, *_), (start, *_) in zip(boxes, boxes[1:]):
        axis.add_patch(FancyArrowPatch((left + width + 1, 13.5), (start - 1, 13.5), arrowstyle="-|>", mutation_scale=12, color="0.3"))
    alt = "An image passes through the generator, which runs at nominal voltage, and then through the frozen classifier, whose memory "
    return figures.Picture(figure, alt + "runs at low voltage and flips bits of its weights.")


def _damage(rows: pd.DataFrame) -> list[str]:
    alone = rows[rows["generator"] == "none"].sort_values("patterns", ascending=False, kind="stable")
    found = {row["error_model"]: row for row in alone.to_dict("records")}  # the last counts: the chips that generators met
    if "ReleaseMap" not in found:
        return []
    row = found["ReleaseMap"]
    text = (
        f"* **The damage.** {row['base_model']} is right on {row['CA']:.1f} % of {row['dataset']}'s test images; with 1 % of its weight "
        f"bits in faulty cells of the official code's error map, {row['PA']:.1f} % on average over {row['patterns']} chips (the paper: "
        f"{row['published_CA']:g} and {row['published_PA']:g} %), {row['PA_worst']:.1f} % on the worst."
    )
    if "BitFlips" in found:
        text += f" Had each bit flipped by itself with that probability, as the paper's text says: {found['BitFlips']['PA']:.1f} %."
    return [text]


def _works(rows: pd.DataFrame) -> list[str]:
    """The best generator of the page's example.  rows: of `mechanism.frame`."""
    some, lines = _official(rows), []
    best, flips = mechanism._best(some), example(rows)
    flips = mechanism._best(flips[(flips["error_model"] == "BitFlips") & (flips["base_epochs"] == some["base_epochs"].max())])
    if len(best):
        top = best.loc[best["PA_NF"].idxmax()]
        line = (
            f"* **It works.** Behind the generator {top.name} the same chips are right on **{top['PA_NF']:.1f} %** (recovery "
            f"{top['RP']:+.1f} ± {top['RP_error']:.1f} points; without errors {top['CA_NF']:.1f} %)."
        )
        if not np.isnan(top["published_PA_NF"]):
            line += f" The paper has {top['published_PA_NF']:g} % for this pair, from a PA of {top['published_PA']:g} %."
        if len(flips):
            other = flips.loc[flips["PA_NF"].idxmax()]
            line += f" Under independent flips, and trained under them, {other.name} brings {other['PA']:.1f} to {other['PA_NF']:.1f} %."
        lines.append(line)
    return lines


def _why(some: pd.DataFrame, works: pd.DataFrame, painted: pd.DataFrame) -> list[str]:
    """some: rows of `mechanism.frame` of one setting; works: those of the page's example; painted: of `transformed_images.frame`."""
    lines = []
    told, one = some[some["how"] == mechanism.TOLD], some[some["how"] == mechanism.ONE]
    if len(told) and len(one):
        text = (
            f"* **Why it works.** Ten fixed pictures, one for each class, added to the images of *their* class bring the damaged "
            f"model{_length(some, works)} from {some['PA'].iloc[0]:.1f} to **{told['PA_NF'].iloc[0]:.1f} %** (worst chip {told['PA_NF_worst'].iloc[0]:.1f} %)"
        )
        for row in works[(works["how"] == mechanism.TOLD) & (works["base_epochs"] != some["base_epochs"].iloc[0])].to_dict("records"):
            text += f", that of {row['base_epochs']} epochs from {row['PA']:.1f} to {row['PA_NF']:.1f} % (worst chip {row['PA_NF_worst']:.1f} %)"
        text += (
            f"; one picture for all classes to {one['PA_NF'].iloc[0]:.1f} %. So to tell the class is enough. A generator that learns to add these "
            "pictures is a classifier, which repeats its answer in a form that survives the errors; ours are trained so. [How we know](mechanism.ipynb)"
        )
        if said := transformed_images.unaided(_here(painted)):
            text += f" Whether the paper's generators come to the same by themselves is open. {said} [What generators add](transformed_images.ipynb)"
        lines.append(text)
    for row in some[some["how"] == mechanism.RELAYED].sort_values("PA_NF").tail(1).itertuples():
        printed = tables.printed(tuple(getattr(row, name) for name in mechanism.GROUP))
        lines.append(
            f"* **A simpler generator** follows: the {row.generator.rpartition(', ')[2]}, trained as a plain classifier, tells which of the "
            f"ten pictures to add. The damaged chips, right on {row.PA:.1f} % without it, are then right on **{row.PA_NF:.1f} %**, the worst on "
            f"{row.PA_NF_worst:.1f} %, after {show.count(round(row.training_minutes), 'minute')} of training on {row.trained_on}"
            + (f" (the paper's best of six: {max(printed.values()):g} %, from {row.published_PA:g} %)." if printed else ".")
        )
    return lines


def _best_of_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each base model measured as the page's example is, the row of its best generator.  rows: of `tables.accuracy`."""
    same = [rows[name] == AT[name] for name in ("base_recipe", "ber_percent")] + [rows["error_model"] == "ReleaseMap"]
    behind = rows[np.logical_and.reduce([*same, rows["generator"].isin(generators.LABELS.values()), rows["RP"].notna()])]
    return behind.sort_values("PA_NF", kind="stable").drop_duplicates(["dataset", "base_model"], keep="last").sort_values(["dataset", "base_model"])


def glance(rows: pd.DataFrame) -> HTML:
    """The whole in a table, a row a base model: accuracy without errors, with them, and behind its best generator, with the paper's in
    brackets; and what the pair saves.  rows: of `tables.accuracy`."""
    best, saving = _best_of_each(rows), tables.energy_saving().set_index(["base_model", "generator"])["true_ES"]
    if best.empty:
        return show.gallery([])

    def both(row: dict, name: str) -> str:
        printed = row[f"published_{name}"]
        return f"{row[name]:.1f}" + ("" if np.isnan(printed) else f" ({printed:.1f})")

    lines = [
        {
            "classifier": f"{row['base_model']}, {row['dataset']}",
            "without errors": both(row, "CA"),
            "with errors": both(row, "PA"),
            "behind a generator": f"{row['generator']} {both(row, 'PA_NF')}",
            "worst chip": f"{row['PA_worst']:.1f} → {row['PA_NF_worst']:.1f}",
            "energy saved %": saving.get((row["base_model"], row["generator"]), np.nan),
            "epochs": f"{row['base_epochs']}",
        }
        for row in best.to_dict("records")
    ]
    return show.table(pd.DataFrame(lines), "glance")


def _agrees(rows: pd.DataFrame) -> list[str]:
    """How far the accuracies under errors are from the printed ones.  rows: of `tables.accuracy`."""
    some = rows[tables.comparable(rows)].sort_values("patterns", ascending=False, kind="stable")
    behind = some[some["generator"].isin(generators.LABELS.values())]
    alone = some[some["generator"] == "none"].drop_duplicates(["dataset", "base_model", "ber_percent"])
    pairs = (("those behind a generator", behind["PA_NF"] - behind["published_PA_NF"]), ("those of base models alone", alone["PA"] - alone["published_PA"]))
    parts = [
        f"{whose} are {show.span(gap)} points from the print, half of them within {gap.abs().median():.1f} ({show.count(len(gap), 'number')})"
        for whose, gap in ((whose, gap.dropna()) for whose, gap in pairs)
        if len(gap)
    ]
    text = f"* **Does it agree with the paper?** Of the accuracies under errors that the paper prints too, {'; '.join(parts)}."
    behind = behind[behind["published_PA_NF"].notna()]
    other = show.imitated(behind)
    if other:
        text += f" {'None' if other == len(behind) else f'Of {len(behind)}, {len(behind) - other}'} of ours behind a generator rests on the paper's own training; "
        text += "these generators learnt by [imitation](../method.md) of pictures that were trained on damaged models."
    return [f"{text} [Number by number](scoreboard.ipynb)"] if parts else []


def _control(some: pd.DataFrame, alone: pd.DataFrame) -> list[str]:
    """What the first half of a generator does alone.  some: rows of `mechanism.frame` of one setting; alone: the encoders."""
    printed = tables.printed(tuple(some[name].iloc[0] for name in mechanism.GROUP)) if len(some) else {}
    pairs = {name: alone.loc[mechanism.encoder_of(name)] for name in printed if mechanism.encoder_of(name) in alone.index}
    if not pairs:
        return []
    name = max(pairs, key=lambda name: pairs[name]["CA"])
    better = sum(mechanism.clearly(here, printed[name]) for name, here in pairs.items())
    return [
        f"* **The catch.** The first half of {name} alone, with a linear layer, no classifier behind it and no errors, is right on "
        f"{pairs[name]['CA']:.1f} % with {pairs[name]['macs_million']:.0f} million multiply-accumulates; the paper's {name} in front of the "
        f"damaged classifier on {printed[name]:g} %, with {_macs(name) / 1e6:.0f} million. Of the {show.count(len(pairs), 'generator')} "
        f"whose first half is measured (DeConv generators have that of Conv ones), it clearly beats the paper's whole system for {better}. A chip that can run the generator "
        "without errors could do without the classifier."
    ]


def _macs(generator: str) -> int:
    """Multiply-accumulates of one image of a generator (its label) and the base model of the page's example."""
    names = {label: name for name, label in generators.LABELS.items()}
    return macs("generator", names[generator], 1.0, 32) + macs("base", "vgg11", 1.0, 32)


def _laws(rows: pd.DataFrame, works: pd.DataFrame) -> list[str]:
    """What the same generator recovers under other error models.  rows: of `error_models.frame`; works: as in `_why`."""
    laws = ["ReleaseMap", "ReleaseMap, tiling corrected"]
    rows = _here(rows[rows["PA"].notna()])
    some = rows[rows["generator"].isin(generators.LABELS.values()) & rows["RP"].notna()]
    both = [here for _, here in some.groupby(["base_epochs", "generator"]) if set(laws) <= set(here["error_model"])]
    if not both:
        return []
    some = both[-1]  # the longest-trained base model
    found = {row["error_model"]: row for row in some.to_dict("records")}
    map_, fixed = (found[law] for law in laws)
    text = (
        f"* **It hangs on the error map.** The official code lays each row of its map out 16 times. Laid out once, at the same rate, "
        f"{fixed['base_model']}{_length(some, works)} alone is right on {fixed['PA']:.1f} instead of {map_['PA']:.1f} % (over {map_['patterns']} chips), and "
        f"{fixed['generator']}, trained under that map, recovers **{show.points(fixed['RP'], fixed['RP_error'])}** instead of "
        f"{show.points(map_['RP'], map_['RP_error'])} points (at most {fixed['CA_NF'] - fixed['PA']:+.1f} were to be had: without errors it has {fixed['CA_NF']:.1f} %)"
    )
    if "BitFlips" in found:
        flips = found["BitFlips"]
        text += f"; under independent flips of 1 % of the bits, which change twice as many, {show.points(flips['RP'], flips['RP_error'])}"
    longest = example(rows).drop_duplicates("error_model").set_index("error_model")
    if set(laws) <= set(longest.index) and longest["base_epochs"].iloc[0] > some["base_epochs"].iloc[0]:
        before, after = longest.loc[laws, "PA"]
        text += f". Trained for {longest['base_epochs'].iloc[0]} epochs, {fixed['base_model']} alone has {after:.1f} instead of {before:.1f} %"
    return [text + ". [Part by part](error_models.ipynb)"]


def _cost() -> str:
    here, large, whole = tables.energy_saving()["true_ES"], tables.energy_saving(224)["true_ES"], tables.inference_energy()["saved"]
    return (
        f"* **What it costs.** Low voltage saves {100 * (1 - energy.ENERGY_RATIO):.1f} % of the energy of reading the weights. The "
        f"generator's own reads shrink that to between {here.min():.1f} and {here.max():.1f} % for images of 32×32, depending on the "
        f"pair; at 224×224, {show.count(int((large < 0).sum()), 'pair')} of {len(large)} would cost more than they save. Of all that an "
        f"inference takes on the chip at 32×32, feature maps and arithmetic too, a pair saves {whole.min():.0f} to {whole.max():.0f} %, by published "
        "energies of each. [Energy](energy.ipynb)"
    )


def _pays(rows: pd.DataFrame, works: pd.DataFrame) -> list[str]:
    """rows: of `tradeoff.frame`; works: as in `_why`.  The largest savings at a small loss, where the base model is measured over the voltage."""
    like = np.logical_and.reduce([rows[name] == AT[name] for name in ("dataset", "base_model")])
    found = {key[2]: some for key, some in tradeoff._groups(rows[like & (rows["error_model"] == "ReleaseMap")])}  # by base recipe
    some = found.get(AT["base_recipe"], rows[:0])
    if some.loc[some["kind"] == tradeoff.ALONE, "ber_percent"].nunique() < tradeoff.FEWEST_RATES:
        return []
    some = found.pop(AT["base_recipe"])
    whose = f"{AT['base_model']}{length}. " if (length := _length(some, works)) else ""
    text = f"* **Does it pay?** {whose}{tradeoff.bargains(some, tradeoff.TOLERANCES[0])}"
    for recipe, other in found.items():
        row = tradeoff.bargain(other, "mitigation", tradeoff.TOLERANCES[0])
        if row:
            text += f" Trained by the recipe `{recipe}` and with {row['system']}, no generator: **{row['saving']:.1f} %**."
    lines = [f"{' '.join([text, tradeoff.replaced(some)]).strip()} [Over the whole range of voltages](tradeoff.ipynb)"]
    at = some[some["ber_percent"] == AT["ber_percent"]].set_index("system")
    label = MITIGATIONS["cut_weights"].label
    if label in at.index and tradeoff.ALONE in at.index:
        cut, alone = at.loc[label], at.loc[tradeoff.ALONE]
        lines.append(
            f"* **What costs nothing.** The same classifier{length} with its {label}, layer by layer, before they are stored, without any "
            f"training and without a generator, is right on **{cut['accuracy']:.1f} %** of the images on the same chips where it had "
            f"{alone['accuracy']:.1f} % (worst chip {cut['worst']:.1f} %; without errors {alone['clean']:.1f} → {cut['clean']:.1f} %)."
        )
    robust = at[at["kind"] == tradeoff.ROBUST]
    if len(robust) and tradeoff.ALONE in at.index:
        said = [
            f"{row.Index.removeprefix('alone, ')}, **{row.accuracy:.1f} %** (worst chip {row.worst:.1f} %; without errors {row.clean:.1f} %)" for row in robust.itertuples()
        ]
        lines.append(
            f"* **What training can do.** NeuralFuse is for those who cannot train the classifier. The same network{length}, trained to resist errors "
            f"(after Stutz et al., 2021) and without a generator, on the same chips: {'; '.join(said)}; as the official code trains it, "
            f"{at.loc[tradeoff.ALONE, 'accuracy']:.1f} %."
        )
    return lines


def headline(
    rows: pd.DataFrame, why: pd.DataFrame, voltages: pd.DataFrame, laws: pd.DataFrame, fronts: pd.DataFrame, painted: pd.DataFrame
) -> Markdown:
    """The answer in a few lines.  rows: of `tables.accuracy`; why: of `mechanism.frame`; voltages: of `tradeoff.frame`; laws: of
    `error_models.frame`; fronts: of `mechanism.frame`, of every generator that the page speaks of; painted: of
    `transformed_images.frame`."""
    some, works, alone = _official(why), _official(fronts), mechanism._encoders(fronts, (AT["dataset"],))
    lines = [*_damage(example(rows)), *_works(fronts), *_agrees(rows), _cost(), *_why(some, works, painted), *_laws(laws, works)]
    lines += [*_control(some, alone), *_pays(voltages, works)]
    return show.prose("\n".join([*lines, _rests_on(rows, fronts)]))


def _rests_on(rows: pd.DataFrame, fronts: pd.DataFrame) -> str:
    trained = fronts[fronts["how"] == mechanism.IMITATED]
    text = f"* **What this rests on.** {show.count(len(Store('paper').records()), 'measured setting')} at full size, so far "
    text += f"{show.bases(rows) or 'no base model'}, trained for {show.listed(rows['base_epochs'])} epochs"
    if len(trained):
        text += f"; {show.several(trained['generator'], 'generator')}, trained by imitation in {show.count(round(trained['training_minutes'].max()), 'minute')} or less each"
    return f"{text}. {show.official()}"


def ladders(fronts: pd.DataFrame, why: pd.DataFrame) -> HTML:
    """The pictures of the page's example: of its longest-trained base model, and of the one that shows why it works."""
    both = pd.concat([_official(fronts), _official(why)]).drop_duplicates("record")
    return mechanism.ladders(both) if len(both) else show.gallery([])


def agreement(rows: pd.DataFrame, scores: pd.DataFrame) -> HTML:
    """Printed accuracies of the official setting beside ours, as a table.

    rows: `tables.accuracy`; scores: rows of `mechanism.frame`, of which those with a printed counterpart stand here.
    """
    ours = rows[tables.comparable(rows)]
    ours = ours[ours["base_epochs"] == ours.groupby(["dataset", "base_model"])["base_epochs"].transform("max")]
    ours = ours.sort_values("patterns", ascending=False, kind="stable")  # the scoreboard too takes the most patterns
    base = ours[ours["published_PA"].notna()].drop_duplicates(["dataset", "base_model", "ber_percent"])
    lines = [_line(row, "without errors", "CA", np.nan) for row in base.drop_duplicates(["dataset", "base_model"]).to_dict("records")]
    lines += [_line(row, "no generator", "PA", row["PA_std"]) for row in base.to_dict("records")]
    printed = scores[scores["published_PA_NF"].notna() & scores["how"].isin(mechanism.TRAINED) & scores["PA_NF"].notna()]
    lines += [_line(row, mechanism.front(row), "PA_NF", row["PA_NF_std"]) for row in printed.to_dict("records")]
    return show.table(pd.DataFrame(lines, columns=["setting", "what", "paper", "ours", "± std", "ours − paper"]), "agreement", wrap=True)


def _line(row: dict, what: str, metric: str, spread: float) -> dict:
    rate = "" if metric == "CA" else f", BER {row['ber_percent']:g} %"
    known = row[f"published_{metric}"]
    where = f"{row['dataset']} {row['base_model']} ({row['base_epochs']} epochs){rate}"
    return {"setting": where, "what": what, "paper": known, "ours": row[metric], "± std": spread, "ours − paper": row[metric] - known}


def closed_forms() -> Markdown:
    """How many printed numbers there are, and how many of the energy savings come out as printed."""
    saving, total = tables.energy_saving(), int(published.load()["mean"].notna().sum())
    close = [int(((saving[name] - saving[f"published_{name}"]).abs() <= CLOSE).sum()) for name in ("ES", "MAC_ES")]
    return show.prose(
        f"The paper and its reviews print {total:,} numbers; [every one stands beside ours](scoreboard.ipynb) where we have it. The "
        f"closed forms agree: {close[0]} of {len(saving)} energy savings and {close[1]} of {len(saving)} based on multiply-accumulates "
        "come out as printed. Of the accuracies, these are the main ones that have a counterpart so far; ± is the standard deviation over chips:"
    )


def error_models(rows: pd.DataFrame) -> HTML:
    """The base model of the example alone, by both recipes, an error model a row.

    Recipes are compared at one length of training where they have one in common: `rows` of any length.
    """
    alone = rows[np.logical_and.reduce([rows[name] == AT[name] for name in ("dataset", "base_model", "ber_percent")])]
    alone = alone[alone["generator"] == "none"]
    lengths = [set(some) for _, some in alone.groupby("base_recipe")["base_epochs"]]
    common = set.intersection(*lengths) if lengths else set()
    longest = alone.groupby("base_recipe")["base_epochs"].transform("max")
    alone = alone[alone["base_epochs"] == (max(common) if common else longest)]
    names = {"base_model": "base model", "base_recipe": "recipe", "base_epochs": "epochs", "error_model": "error model", "changed_bits_percent": "% of bits",
             "CA": "CA", "PA": "PA", "PA_std": "± std", "PA_worst": "worst chip"}  # fmt: skip
    return show.table(alone[list(names)].rename(columns=names), "error_models")


def chips(records: list[dict]) -> HTML:
    """`report.chip_pictures` of the base model of the example."""
    return report.chip_pictures([r for r in records if all(tables.setting(r)[name] == AT[name] for name in ("dataset", "base_model"))])


def costs() -> HTML:
    """Energy saving and size of each generator, for ResNet18 and VGG11 at 32x32, and for ResNet18 at 224x224."""
    networks = tables.weight_reads().set_index("network")
    here, large = (tables.energy_saving(size).set_index(["base_model", "generator"])["true_ES"] for size in (32, 224))
    lines = [
        {
            "generator": name,
            "ES with ResNet18 %": here["ResNet18", name],
            "ES with VGG11 %": here["VGG11", name],
            "ES with ResNet18 at 224×224 %": large["ResNet18", name],
            "MACs (M)": networks.loc[name, "macs_million"],
            "parameters": networks.loc[name, "parameters"],
        }
        for name in here.index.unique("generator")
    ]
    return show.table(pd.DataFrame(lines), "costs")
