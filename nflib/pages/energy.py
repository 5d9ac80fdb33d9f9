"""The page on energy: weight reads and MACs, savings, SCALE-Sim's counts of reads and cycles."""

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import energy, figures, profiles, published, show, simulate, tables
from nflib.study import duration

SAFE_BERS = (1e-6, 1e-5, 1e-4)  # that may be assumed at Vmin, drawn beside the one that is


def over_voltage(safe_ber: float = energy.SAFE_BER, ratio: float = energy.ENERGY_RATIO) -> pd.DataFrame:
    """A row a bit-error rate of the paper: voltage over Vmin, energy of one read over that at Vmin, and what it saves in per cent
    before a generator costs anything."""
    rates = {rate for some in profiles.PAPER_RATES.values() for rate in some} | set(profiles.RATES)
    rows = [(round(100 * rate, 9), energy.voltage(rate, safe_ber), energy.read_energy(rate, safe_ber, ratio)) for rate in sorted(rates)]
    frame = pd.DataFrame(rows, columns=["ber_percent", "voltage", "read_energy"])
    return frame.assign(saving=100 * (1 - frame["read_energy"]))


def voltage_summary(safe_ber: float = energy.SAFE_BER, ratio: float = energy.ENERGY_RATIO) -> Markdown:
    """What a read saves at 1 %, and how much of that at lower rates, from which less is to be recovered."""
    shown = over_voltage(safe_ber, ratio).set_index("ber_percent")["saving"]
    lower = show.listed(f"{shown[rate]:.1f} % at {rate:g} %" for rate in (0.5, 0.35, 0.1))
    return show.prose(
        f"A read saves {shown[1]:.1f} % at a bit-error rate of 1 %. With a rate of {100 * safe_ber:g} % assumed at Vmin it saves {lower}: "
        f"a tenth of the errors leaves {100 * shown[0.1] / shown[1]:.0f} % of the saving. [Does it pay?](tradeoff.ipynb) measures what "
        "accuracy is left at each voltage."
    )


def voltage_picture(safe_ber: float = energy.SAFE_BER, ratio: float = energy.ENERGY_RATIO) -> figures.Picture:
    """Figure 2 as this study assumes it: bit-error rate and energy of a read over the voltage, and the printed point."""
    figure, axes = figures._figure(2, height=3.0)
    rates = np.geomspace(1e-6, 0.02, 60)
    for other in sorted({*SAFE_BERS, safe_ber}):
        own = {"color": "black", "linewidth": 2, "label": f"{100 * other:g} % at Vmin"} if other == safe_ber else {"color": "0.6", "linestyle": "--", "linewidth": 1}
        some = rates[rates >= other]
        volts = [energy.voltage(rate, other) for rate in some]
        axes[0].plot(volts, some, **own)
        if other == safe_ber:
            axes[1].plot(volts, [energy.read_energy(rate, other, ratio) for rate in some], color="black", linewidth=2)
    axes[0].plot(energy.LOW_VOLTAGE, energy.LOW_BER, "D", color="crimson", label="printed in the paper")
    axes[1].plot(energy.LOW_VOLTAGE, ratio, "D", color="crimson")
    axes[0].set(yscale="log", xlabel="voltage / Vmin", ylabel="bit-error rate", xlim=(1.01, 0.8))
    axes[1].set(xlabel="voltage / Vmin", ylabel="energy per read (Vmin: 1)", xlim=(1.01, 0.8), ylim=(0.6, 1.02))
    axes[0].legend(fontsize=8)
    said = "; ".join(f"{row.ber_percent:g} %: {row.voltage:.2f} Vmin, {row.saving:.0f} % saved" for row in over_voltage(safe_ber, ratio).itertuples())
    return figures.Picture(figure, f"Bit-error rate and energy of a read over the supply voltage, assumed between the printed point and Vmin. {said}.")


def voltage_table(safe_ber: float = energy.SAFE_BER, ratio: float = energy.ENERGY_RATIO) -> HTML:
    names = {"ber_percent": "BER %", "voltage": "V/Vmin", "read_energy": "energy of a read", "saving": "saved before a generator's cost %"}
    return show.table(over_voltage(safe_ber, ratio).rename(columns=names), "voltage", 2)


def summary(saving: pd.DataFrame, image_size: int, ratio: float) -> Markdown:
    """Agreement with the printed savings, and what the correction changes."""
    text = f"At {image_size}×{image_size} pixels and an energy ratio of {ratio:g}: "
    if saving["published_ES"].notna().any():
        for name, label in (("ES", "Table 2"), ("MAC_ES", "Table 8")):
            gap = (saving[name] - saving[f"published_{name}"]).abs()
            text += f"{int((gap <= 0.06).sum())} of {len(saving)} entries of {label} come out within 0.06 of the print, which knows the ratio better than to three digits"
            far = saving[gap > 0.06]
            if len(far):
                text += " (not " + "; ".join(
                    f"{r['base_model']}/{r['generator']}: printed {r['published_' + name]:g}, computed {r[name]:.1f}"
                    for _, r in far.head(3).iterrows()
                ) + (" …" if len(far) > 3 else "") + ")"
            text += ". "
    gain = saving["true_ES"] - saving["ES"]
    row = saving.loc[gain.idxmax()]
    text += (
        f"True weight reads change the saving by {gain.min():+.1f} to {gain.max():+.1f} points, most for "
        f"{row['base_model']}/{row['generator']} ({row['ES']:.1f} → {row['true_ES']:.1f} %). "
        f"By these, {show.count(int((saving['true_ES'] < 0).sum()), 'pair')} of {len(saving)} would lose energy; by multiply-accumulates, "
        f"{int((saving['true_MAC_ES'] < 0).sum())}."
    )
    return show.prose(text)


def _range(values: pd.Series) -> str:
    return f"{values.min():.0f} to {values.max():.0f} %"


def whole_summary(image_size: int, ratio: float = energy.ENERGY_RATIO) -> Markdown:
    """What weight reads are of an inference's energy, and what a pair saves of all of it."""
    rows = tables.inference_energy(image_size, ratio)
    best, worst = (rows.loc[find(rows["saved"])] for find in (pd.Series.idxmax, pd.Series.idxmin))
    lost, large = (show.count(int((rows[name] < 0).sum()), "pair") for name in ("saved", "large_saved"))
    return show.prose(
        f"At {image_size}×{image_size} pixels, reading weights takes **{_range(rows['share'])}** of a base model's energy if feature maps lie in "
        f"memories of 32 KB, {_range(rows['large_share'])} if they lie in ones as large as the weights'. So low voltage saves {_range(rows['low_voltage'])} "
        f"of the whole ({_range(rows['large_low_voltage'])}), before a generator costs anything. With all that a generator takes, its arithmetic and feature "
        f"maps too, a pair saves **{_range(rows['saved'])}**, most {best['base_model']} with {best['generator']}, least {worst['base_model']} with "
        f"{worst['generator']} ({_range(rows['large_saved'])}); {lost} of {len(rows)} ({large}) would cost more than they save."
    )


def whole_picture(image_size: int) -> figures.Picture:
    """Energy of one image in each network, stacked by what takes it: weight reads, feature maps, arithmetic."""
    parts = tables.picojoules(image_size) / 1e6
    figure, (axis,) = figures._figure(height=3.9)
    left = np.zeros(len(parts))
    for name, words, colour in zip(parts, ("weight reads", "feature maps", "arithmetic"), ("black", "0.55", "0.8")):
        axis.barh(parts.index, parts[name], left=left, color=colour, label=words)
        left += parts[name]
    axis.set(xlabel="energy of one image (µJ)", title=f"{image_size}×{image_size} pixels, nominal voltage")
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    said = "; ".join(f"{name}: {row.sum():.3g} µJ, {100 * row['weights'] / row.sum():.0f} % of it weight reads" for name, row in parts.iterrows())
    return figures.Picture(figure, f"Energy of one image by network and by what takes it. {said}.")


def whole_table(image_size: int, ratio: float = energy.ENERGY_RATIO) -> HTML:
    names = {"base_model": "base model", "share": "weight reads %", "low_voltage": "low voltage saves %", "saved": "pair saves %"}
    names |= {f"large_{name}": f"{words}, maps in 1 MB" for name, words in list(names.items())[1:]}
    return show.table(tables.inference_energy(image_size, ratio).rename(columns=names), "inference_energy")


def reads_table(image_size: int) -> HTML:
    names = {"published_reads": "paper reads", "true_reads": "true reads", "published_macs_million": "paper MACs (M)"}
    shown = tables.weight_reads(image_size).rename(columns={**names, "macs_million": "true MACs (M)"})
    return show.table(shown.dropna(axis=1, how="all"), "weight_reads", 2)


def saving_table(saving: pd.DataFrame) -> HTML:
    names = {"base_model": "base model", "published_ES": "paper ES", "true_ES": "true ES"}
    names |= {"published_MAC_ES": "paper MAC-ES", "MAC_ES": "MAC-ES", "true_MAC_ES": "true MAC-ES"}
    return show.table(saving.rename(columns=names).dropna(axis=1, how="all"), "energy_saving")


def pictures(ratio: float, records: list[dict]) -> HTML:
    """Figures 5 and 6: published recovery at 1 %, and ours under ReleaseMap, against ES and MAC-ES of 32x32 pixels (CIFAR-10), as the
    paper counts them and as they are."""
    saving = tables.energy_saving(32, ratio)
    known = published.select(origin="table12_cifar10", metric="RP", ber_percent=1)
    gain = known[["base_model", "generator", "mean"]].rename(columns={"mean": "published"})
    ours = tables.accuracy(records)
    ours = ours[(ours["dataset"] == "CIFAR-10") & (ours["error_model"] == "ReleaseMap") & (ours["ber_percent"] == 1.0)]
    ours = tables.longest_trained(ours[ours["base_recipe"] == "release"], ["base_model", "generator"])[["base_model", "generator", "RP"]]
    gain = gain.merge(ours.rename(columns={"RP": "measured"}), how="left", on=["base_model", "generator"])
    axes = (("ES", "energy saving ES, as the paper counts (%)"), ("true_ES", "energy saving ES, true reads (%)"))
    axes += (("MAC_ES", "energy saving MAC-ES, as the paper counts (%)"), ("true_MAC_ES", "energy saving MAC-ES, true MACs (%)"))
    return show.gallery([figures.energy_scatter(saving, gain, x, label) for x, label in axes])


def meaning(saving: pd.DataFrame) -> Markdown:
    """What a pair saves, what decides it, and what the model leaves out."""
    best, worst = (saving.loc[find(saving["true_ES"])] for find in (pd.Series.idxmax, pd.Series.idxmin))
    spread = saving.groupby("base_model")["true_ES"].agg(np.ptp), saving.groupby("generator")["true_ES"].agg(np.ptp)
    return show.prose(
        f"A pair saves what low voltage saves, less the generator's reads over the base model's: most for {best['base_model']} with {best['generator']} "
        f"({best['true_ES']:.1f} %), least for {worst['base_model']} with {worst['generator']} ({worst['true_ES']:.1f} %). For one base model the "
        f"choice of generator moves it by up to {spread[0].max():.1f} points, for one generator the base model by up to {spread[1].max():.1f}. So the "
        "saving is large where it is needed least: a large classifier, small images, a small generator, and small generators recover least "
        "([accuracy](accuracy.ipynb)). All of it is energy of reading weights; what that is of the whole is said above."
    )


def efficiency_table(records: list[dict]) -> HTML:
    names = {"base_model": "base model", "ber_percent": "BER %", "published": "paper", "published_recomputed": "paper, recomputed"}
    shown = tables.efficiency(records).rename(columns={**names, "ReleaseMap": "ours, ReleaseMap", "BitFlips": "ours, BitFlips"})
    return show.table(shown.dropna(axis=1, how="all"), "efficiency")


def simulated_summary(image_size: int = 32) -> Markdown:
    """How many simulated counts equal the closed forms, and how many network totals equal Table 6."""
    layers_here = simulate.wanted(image_size)
    done = {layer: said for layer, said in simulate.stored().items() if layer in layers_here}
    left, seconds = layers_here - done.keys(), sum(said.seconds for said in done.values())
    again = f"`python -m nflib.simulate --image-size {image_size} --array` does it; most layers take seconds, the largest minutes each."
    if not done:
        return show.prose(f"**Nothing simulated yet** at {image_size}×{image_size} pixels; {again}")
    equal = {what: sum(getattr(a, what) == getattr(b, what) for a, b in done.items()) for what in ("reads", "cycles")}
    alone = sum(np.isnan(said.stalls) for said in done.values())
    text = (
        f"**What was run.** SCALE-Sim on {len(done)} of the {len(layers_here)} distinct layers of the eleven networks at "
        f"{image_size}×{image_size} pixels, in {duration(seconds)} (one thread of a shared machine)"
    )
    if alone:
        text += f", for {alone} of them its array without the memory that feeds it, which in this setting never keeps it waiting"
    text += f". The other {len(left)} are not simulated yet; {again} " if left else ". "
    text += (
        f"Its weight reads equal the closed form for {equal['reads']} of these {len(done)} layers, its cycles for "
        f"{equal['cycles']}. "
    )
    counts = simulate.frame(image_size)
    if counts["published_reads"].notna().any():
        same = int((counts["simulated_reads"] == counts["published_reads"]).sum())
        text += f"Added up over a network's layers, {same} of {len(counts)} totals are those of the paper's Table 6."
    return show.prose(text)


def simulated_table(image_size: int = 32) -> HTML:
    """Weight reads of each network: printed, in closed form and simulated, as the authors ran its layers and truly."""
    names = {"network": "network", "shapes": "distinct layers", "simulated": "simulated", "published_reads": "paper reads"}
    names |= {"reads": "reads", "simulated_reads": "SCALE-Sim reads"}
    names |= {"true_reads": "true reads", "simulated_true_reads": "SCALE-Sim true reads"}
    return show.table(simulate.frame(image_size)[list(names)].rename(columns=names), "weight_reads_simulated", 0)


def cycles_summary(image_size: int = 32) -> Markdown:
    """What a generator adds in cycles, beside what the paper measured on a graphics card."""
    extra, counts = simulate.cycle_overhead(image_size), simulate.frame(image_size)
    least, most = (extra.loc[find(extra["true_cycles"])] for find in (pd.Series.idxmin, pd.Series.idxmax))
    text = (
        f"At {image_size}×{image_size} pixels a generator adds from {least['true_cycles']:.1f} % "
        f"({least['base_model']} with {least['generator']}) to {most['true_cycles']:.1f} % ({most['base_model']} with "
        f"{most['generator']}) to the cycles of its base model. For {int((extra['true_cycles'] > extra['true_reads']).sum())} "
        f"of {len(extra)} pairs that is more, in per cent, than it adds in weight reads. "
    )
    if counts["authors_cycles"].notna().any():
        same = int((counts["cycles"] == counts["authors_cycles"]).sum())
        text += f"The authors' own runs took the closed form's number of cycles for {same} of {len(counts)} networks. "
    times = published.select(origin="table09_latency", metric="latency_ms").fillna({"generator": "none"})
    times = times[times["dataset"] == ("CIFAR-10" if image_size == 32 else "ImageNet-10")]
    alone = times[times["generator"] == "none"].set_index("base_model")["mean"]
    more = (100 * (times["mean"] / times["base_model"].map(alone) - 1))[times["generator"] != "none"]
    large, small = (times.loc[times["generator"] == name, "mean"].iloc[0] for name in ("UNetL", "UNetS"))
    return show.prose(
        f"{text}The paper's Table 9 measures {more.min():.0f} to {more.max():.0f} % more time on a graphics card with one "
        f"image at a time; {times['base_model'].iloc[0]} takes {large:g} ms there with UNetL and {small:g} ms with the "
        "smaller UNetS, half as wide and as deep."
    )


def cycles_table(image_size: int = 32) -> HTML:
    """What each generator adds, in per cent: cycles simulated and in closed form, and weight reads."""
    names = {"base_model": "base model", "cycles": "cycles, authors' layers", "true_cycles": "cycles, true layers"}
    names |= {"simulated_cycles": "SCALE-Sim, authors' layers", "simulated_true_cycles": "SCALE-Sim, true layers"}
    return show.table(simulate.cycle_overhead(image_size).rename(columns=names | {"true_reads": "true reads"}), "cycle_overhead")
