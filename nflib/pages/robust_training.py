"""Other training: generators on adversarially flipped bits (Table 25), base models on perturbed weights (Table 26)."""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import data, faults, figures, generators, models, published, quantize, report, show, tables
from nflib.cells import digest_of

NAME = "robust_training"
TRUE = faults.LABELS["release_map"]
PREACT = models.EXTRA_LABELS["preact_resnet18"]
ORIGINS = ("table25_adversarial_training", "table26_awp_preact")
RANDOM = ("CIFAR-10", "ResNet18", 8, 1.0, "ConvL", "ResNet18", 1.0, 5.0, 0)  # in Table 12: ConvL trained on random patterns
RUN = ["dataset", "error_model", "ber_percent", "base_epochs", "patterns", "images"]
PUBLISHED = [f"published_{metric}" for metric in tables.METRICS]
DIFFERENCES = ["PA_difference", "RP_difference"]
COLUMNS = [*RUN[:3], "base_model", "base_recipe", *RUN[3:], "generator", "flips", "flips_percent", "models_per_step"]
COLUMNS += ["imitation_steps", "steps"]
COLUMNS += [*tables.MEASURED, "against", "against_error", *PUBLISHED, *DIFFERENCES, "changed_bits_percent", "device", "record"]
SHOWN = {"flips": "K", "flips_percent": "K, % of bits"} | report.SHOWN | {"models_per_step": "models per step"}
SHOWN |= {"published_CA": "paper CA", "published_CA_NF": "paper CA(NF)", "PA_difference": "PA, ours − paper"}


@functools.cache
def _stored_bits(model: str, width: float) -> int:
    layers = quantize.weighted_layers(models.build(model, width=width)).values()
    return 8 * sum(layer.weight.numel() for layer in layers)


def _printed(dataset: str) -> pd.DataFrame:
    """The settings of Tables 25 and 26 of a data set (its printed name) as rows in which nothing of ours is measured."""
    rows, index = [], tables.published_index()
    for (metric, *key), lines in index.items():
        wanted = tuple(key) == RANDOM or any(line["origin"] in ORIGINS for line in lines)
        if key[0] == dataset and metric in ("PA", "PA_NF") and wanted:
            _, name, bits, ber, *training = key
            generator, on, train_ber, weight, flips = training or ("none", name, np.nan, 5.0, 0)
            model, _, awp = name.partition(" (AWP")
            row = {"dataset": dataset, "base_model": model, "base_recipe": "awp" if awp else "release", "ber_percent": ber}
            row |= {"error_model": TRUE, "bits": bits, "generator": generator, "flips": flips, "trained_for": on}
            row |= {"train_ber_percent": train_ber, "loss_weight": weight}
            found = {m: index.get(tables.published_key(row, m)) for m in tables.METRICS}
            rows.append(row | {f"published_{m}": lines[0]["mean"] for m, lines in found.items() if lines})
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def frame(records: Iterable[dict], dataset: str = "") -> pd.DataFrame:
    """A row for each base model alone and with each generator, as `tables.recoveries` gives them; flips is K.

    flips_percent: K in per cent of the stored bits of the base model (of one with ten classes).  flips 0: trained on random
    patterns.  against, against_error: PA(NF) less that of the same generator trained on random patterns, on the same chips,
    and its standard error, in points (the mean of several, where it was trained in several ways).  published_*: Tables 25 and 26, Table 12 for random patterns; only where the error model is ReleaseMap and the
    base recipe release or awp.  dataset: a data set whose settings in the paper get rows even where ours are missing.
    """
    records = list(records)
    rows = tables.recoveries(records)
    comparable = (rows["error_model"] == TRUE) & rows["base_recipe"].isin(["release", "awp"])
    rows.loc[~comparable, [*PUBLISHED, *DIFFERENCES]] = np.nan
    bases = {tables.setting(r)["base"]: r["cell"]["base"] for r in records}
    stored = rows["base"].map({key: _stored_bits(base["model"], base["width"]) for key, base in bases.items()})
    rows["flips_percent"] = (100 * rows["flips"] / stored.astype(float)).where(rows["flips"] > 0)
    after = {digest_of(record["cell"]): np.array(record["metrics"]["perturbed"]) for record in records}
    behind = rows[rows["generator"] != "none"]
    random = behind[behind["flips"] == 0].groupby([*tables.KEYS, "generator"])["record"].agg(list)
    gaps = {
        row["record"]: tables.paired(after, row["record"], random.get(tuple(row[key] for key in [*tables.KEYS, "generator"]), []))
        for row in behind[behind["flips"] > 0].to_dict("records")
    }
    for place, name in enumerate(("against", "against_error")):
        rows[name] = [gaps.get(record, (np.nan, np.nan))[place] for record in rows["record"]]
    printed = _printed(data.LABELS.get(dataset, dataset))
    key = ["dataset", "base_model", "base_recipe", "error_model", "ber_percent", "generator", "flips"]
    have = rows.set_index(key).index
    parts = [part for part in (rows[COLUMNS], printed[~printed.set_index(key).index.isin(have)]) if len(part)]
    whole = pd.concat(parts) if parts else rows[COLUMNS]
    names = ["none", *generators.LABELS.values()]
    order = whole["generator"].map({name: place for place, name in enumerate(names)})
    preact = whole["base_model"] == PREACT
    by = ["_table", *RUN, "base_model", "base_recipe", "_generator", "flips", "steps", "record"]
    whole = whole.assign(_generator=order, _table=preact).sort_values(by, kind="stable", ignore_index=True)
    return whole[COLUMNS]


def _attacks(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Table 25, one base model and setting at a time: (title, rows with ConvL); under each error model."""
    own = rows[(rows["base_model"] != PREACT) & (rows["generator"] == "ConvL")]
    for _, some in own.groupby(["dataset", "base_model", "base_recipe", *RUN[2:]], sort=False, dropna=False):
        first = some.iloc[0]
        title = f"{first['dataset']} {first['base_model']}, base recipe {first['base_recipe']}, BER {first['ber_percent']:g} %"
        yield title + (", paper only" if pd.isna(first["record"]) else f", {first['base_epochs']:g} epochs"), some


def _protected(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Table 26, one setting at a time: (title, rows of PreActResNet18), AWP and the other base recipe together."""
    for _, some in rows[rows["base_model"] == PREACT].groupby(RUN, sort=False, dropna=False):
        first = some.iloc[0]
        title = f"{first['dataset']} {PREACT}, {first['error_model']}, BER {first['ber_percent']:g} %"
        yield title + (", paper only" if pd.isna(first["record"]) else f", {first['base_epochs']:g} epochs"), some


def flips_picture(rows: pd.DataFrame, title: str) -> figures.Picture:
    """RP of ConvL against K (Table 25), and of ConvL trained on random patterns; a panel an error model.

    Bars and band: two standard errors over patterns.  Hollow diamonds and the dotted line: the paper's.
    """
    laws, said = list(dict.fromkeys(rows["error_model"])), []
    figure, axes = figures._figure(len(laws), height=3.4, sharey=True)
    counts = rows.loc[rows["flips"] > 0, "flips"]
    limits = (counts.min() / 2, counts.max() * 2) if len(counts) else (1, 10)  # a log axis cannot find its own without points
    for axis, law in zip(axes, laws):
        here = rows[rows["error_model"] == law]
        attacked, random = here[here["flips"] > 0], here[here["flips"] == 0]
        look = {"fmt": "-o", "color": figures.GENERATORS["ConvL"], "markersize": 5, "label": "K adversarial flips"}
        axis.errorbar(attacked["flips"], attacked["RP"], yerr=2 * attacked["RP_error"], **look)
        look = {"color": "none", "markeredgecolor": "crimson", "label": "paper, K flips"}
        if attacked["published_RP"].notna().any():
            axis.plot(attacked["flips"], attacked["published_RP"], "D", **look)
        for row in random.itertuples():
            if pd.notna(row.RP):
                axis.axhline(row.RP, color="black", linestyle="--", linewidth=1.2, label="random patterns")
                if pd.notna(row.RP_error):
                    axis.axhspan(row.RP - 2 * row.RP_error, row.RP + 2 * row.RP_error, color="black", alpha=0.12, linewidth=0)
                said.append(f"{law}, random patterns: RP {row.RP:+.1f}")
            if pd.notna(row.published_RP):
                axis.axhline(row.published_RP, color="crimson", linestyle=":", linewidth=1.5, label="paper, random patterns")
        said += [f"{law}, K = {r.flips:,.0f}: RP {r.RP:+.1f}" for r in attacked[attacked["RP"].notna()].itertuples()]
        axis.axhline(0, color="0.5", linewidth=1)
        axis.set(xscale="log", xlim=limits, xlabel="K, adversarially flipped bits", title=law)
    axes[0].set_ylabel("recovery RP (points)")
    labels = dict(pair[::-1] for axis in axes for pair in zip(*axis.get_legend_handles_labels()))
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncol=4, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=9, **figures.TITLE)
    alt = f"Recovery against the number of adversarially flipped bits. {title}. {'; '.join(said) or 'The paper only'}."
    return figures.Picture(figure, alt)


def awp_picture(rows: pd.DataFrame, title: str) -> figures.Picture:
    """PA of PreActResNet18 by base recipe, and PA(NF) behind it (Table 26); bars: standard deviation over patterns."""
    rows = sorted(rows.itertuples(), key=lambda row: row.generator != "none")
    lines = [(f"{row.base_recipe}, {row.generator.replace('none', 'alone')}", row) for row in rows]
    figure, (axis,) = figures._figure(height=1.3 + 0.3 * len(lines))
    said = []
    for y, (label, row) in enumerate(lines):
        alone = row.generator == "none"
        value, spread, theirs = (row.PA, row.PA_std, row.published_PA) if alone else (row.PA_NF, row.PA_NF_std, row.published_PA_NF)
        axis.errorbar(value, y, xerr=spread, fmt="o", color="black" if alone else figures.GENERATORS[row.generator], markersize=6)
        axis.plot(theirs, y, "D", color="none", markeredgecolor="crimson", markersize=7)
        said += [f"{label}: {value:.0f} %"] if pd.notna(value) else []
    axis.set(xlabel="perturbed accuracy (%)", xlim=(0, 102), ylim=(len(lines) - 0.5, -0.5), title=title)
    axis.set_yticks(range(len(lines)), [label for label, _ in lines])
    return figures.Picture(figure, f"Perturbed accuracy by base recipe and generator. {title}. {'; '.join(said) or 'The paper only'}.")


def pictures(rows: pd.DataFrame, table: int) -> HTML:
    """`flips_picture` (table 25) or `awp_picture` (table 26) of each setting."""
    groups, draw = (_attacks, flips_picture) if table == 25 else (_protected, awp_picture)
    return show.gallery([draw(some, title) for title, some in groups(rows)])


def table(rows: pd.DataFrame, number: int) -> HTML:
    """The rows of Table 25 or 26, columns in words, those without content left out; K belongs to Table 25."""
    some = rows[(rows["base_model"] == PREACT) == (number == 26)]
    names = {key: words for key, words in SHOWN.items() if number == 25 or not key.startswith("flips")}
    return show.table(some[list(names)].rename(columns=names).dropna(axis=1, how="all"), f"{NAME}_{number}")


def _against(change: float, error: float) -> str:
    if np.isnan(error):
        return f"{show.points(change)} points"
    sure = "beyond" if abs(change) > 2 * error else "within"
    return f"{show.points(change, error)} points, {sure} two standard errors"


def _attack_lines(rows: pd.DataFrame) -> list[str]:
    """RP of each K beside random patterns; what the paper has."""
    lines = []
    for title, some in _attacks(rows[rows["RP"].notna()]):
        for law, here in some.groupby("error_model", sort=False):
            attacked, random = here[here["flips"] > 0], here[here["flips"] == 0]
            lines.append(f"* **{title}, {law}**. Its patterns change {here['changed_bits_percent'].mean():.2g} % of the stored bits.")
            for row in random.itertuples():
                many = show.count(int(row.models_per_step), "perturbed model")
                lines.append(f"  * ConvL trained on random patterns, {many} a step: RP {show.points(row.RP, row.RP_error)}.")
            for row in attacked.itertuples():
                text = f"  * K = {row.flips:,.0f}, {row.flips_percent:.2g} % of the stored bits: RP {show.points(row.RP, row.RP_error)}"
                if pd.notna(row.against):
                    text += f"; against random patterns, on the same chips, {_against(row.against, row.against_error)}"
                lines.append(text + (f"; the paper has {row.published_RP:+g}." if pd.notna(row.published_RP) else "."))
            if len(attacked):
                useful = attacked.loc[attacked["RP"] > 2 * attacked["RP_error"], "flips"]
                where = f"for K = {show.listed(f'{k:,.0f}' for k in useful)}" if len(useful) else "for no K"
                lines.append(f"  * RP is more than two standard errors above zero {where}.")
    return lines


def _awp_lines(rows: pd.DataFrame) -> list[str]:
    """PA with and without AWP, and RP behind it."""
    lines = []
    for title, some in _protected(rows[rows["record"].notna()]):
        alone = some[(some["generator"] == "none") & some["PA"].notna()].set_index("base_recipe")
        text = "; ".join(f"`{recipe}` has CA {row['CA']:.1f} %, PA {row['PA']:.1f} %" for recipe, row in alone.iterrows())
        lines.append(f"* **{title}**. Without a generator: {text or 'not measured'}.")
        for recipe in alone.index.difference(["awp"]) if "awp" in alone.index else ():
            two = alone.loc[["awp", recipe]]
            error = np.sqrt((two["PA_std"] ** 2 / (two["patterns"] - 1).where(two["patterns"] > 1)).sum(skipna=False))
            change = two["PA"].iloc[0] - two["PA"].iloc[1]
            clean = two["CA"].iloc[0] - two["CA"].iloc[1]
            text = f"  * AWP changes PA by {_against(change, error)} over patterns, and CA by {clean:+.1f} points"
            lines.append(f"{text}; each base model was trained once, and the chance in training is not in the error.")
        for row in some[some["RP"].notna()].itertuples():
            text = f"  * {row.generator} behind `{row.base_recipe}`: RP {show.points(row.RP, row.RP_error)}"
            lines.append(text + (f"; the paper has {row.published_RP:+g}." if pd.notna(row.published_RP) else "."))
    return lines


def summary(rows: pd.DataFrame, profile: str, table: int) -> Markdown:
    """What was measured and came out for Table 25 or 26, and what the paper has."""
    some = rows[(rows["base_model"] == PREACT) == (table == 26)]
    lines = [show.progress(some, profile, NAME), "", *(_attack_lines(some) if table == 25 else _awp_lines(some))]
    known = published.load()
    gain, perturbed = known[known["metric"] == "RP"], known[(known["metric"] == "PA") & (known["origin"] == ORIGINS[1])]
    if table == 25:
        theirs = gain[gain["origin"] == ORIGINS[0]]["mean"]
        random = tables.published_index()["RP", *RANDOM][0]["mean"]
        lines.append(
            f"* The paper (CIFAR-10 ResNet18, BER 1 %) has RP from {theirs.min():g} to {theirs.max():g} for its "
            f"{len(theirs)} values of K, and {random:g} for random patterns."
        )
    else:
        plain = published.select(origin="table12_cifar10", base_model="ResNet18", generator="none", metric="PA")
        plain = plain.drop_duplicates("ber_percent").set_index("ber_percent")["mean"]
        words = "{:g} % at {:g} % (ResNet18 without AWP: {:g} %)"
        pairs = [words.format(row.mean, row.ber_percent, plain[row.ber_percent]) for row in perturbed.itertuples()]
        lines.append(f"* The paper's AWP base model has, on CIFAR-10, a PA of {' and '.join(pairs)}.")
    if not some[PUBLISHED].notna().any(axis=None):
        lines.append("* It has none of the settings shown here, so the numbers cannot be compared.")
    return show.prose("\n".join(lines))
