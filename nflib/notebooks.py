"""Notebooks: strict parameters, execution by papermill, pages for the book."""

import ast
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nflib import data, energy, faults, generators, grids, models, profiles
from nflib.mitigations import MITIGATIONS
from nflib.names import PROFILES, UserError, choose
from nflib.names import notebooks as names
from nflib.quantize import MAX_BITS, MIN_BITS
from nflib.shifts import SHIFTS
from nflib.store import ROOT
from nflib.trained import choose_device
from nflib.training import SCHEDULES

SOURCES = ROOT / "notebooks"
EXECUTED = ROOT / "book" / "_executed"
HTML = ROOT / "_build" / "html"


def _both(name: str, **paper: Any) -> dict[str, tuple[str, dict]]:
    """Two pages of a notebook: full size and smoke scale, from stored records."""
    stored = {"measure": False}
    return {name: (name, {"profile": "paper", **paper, **stored}), f"{name}_smoke": (name, {"profile": "smoke", **stored})}


CIFAR10 = {"dataset": "cifar10"}
PAGES = {  # page of the book: (notebook, parameters)
    "index": ("index", {}),
    "questions": ("questions", {}),
    "scoreboard": ("scoreboard", {}),
    **_both("accuracy", datasets=list(profiles.PAPER_RATES)),
    **_both("error_models", **CIFAR10),
    **_both("base_recipe", **CIFAR10),
    **_both("mechanism", **CIFAR10),
    **_both("cost", **CIFAR10),
    **_both("sensitivity", **CIFAR10),
    **_both("tradeoff", **CIFAR10),
    **_both("shift", **CIFAR10),
    **_both("seeds", **CIFAR10),
    **_both("transfer", **CIFAR10),
    **_both("quantization", **CIFAR10),
    **_both("ablations", **CIFAR10),
    **_both("robust_training", **CIFAR10),
    **_both("tsne", **CIFAR10),
    **_both("transformed_images", **CIFAR10),
    **_both("overhead"),
    "energy": ("energy", {}),
    "performance": ("performance", {}),
    "provenance": ("provenance", {}),
}


def source(name: str) -> Path:
    """The py:percent file of a notebook; UserError for an unknown name."""
    return SOURCES / f"{choose('notebook', name.removesuffix('.py').removeprefix('notebooks/'), names())}.py"


def _each(kind: str, allowed) -> Any:
    def check(values: list) -> None:
        if not values:
            raise UserError(f"no {kind} given; allowed: {', '.join(allowed())}")
        for value in values:
            choose(kind, value, allowed())

    return check


def _law(name: str) -> None:
    law = faults.error_model(name, 0.0)
    if isinstance(law, faults.ChipMap):
        law.load()


def _at_least(name: str, least: float):
    def check(value: float) -> None:
        if value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}")

    return check


def _fraction(name: str):
    def check(value: float) -> None:
        if not 0 < value <= 1:
            raise UserError(f"{name} is {value}; allowed are fractions in (0, 1]")

    return check


def _safe_ber(value: float) -> None:
    if not 0 < value < energy.LOW_BER:
        raise UserError(f"safe_ber is {value}; it must be above 0 and below {energy.LOW_BER:g}, the rate at {energy.LOW_VOLTAGE:g} Vmin")


def _bits(value: int) -> None:
    if not MIN_BITS <= value <= MAX_BITS:
        raise UserError(f"a code width is {value}; allowed are whole numbers from {MIN_BITS} to {MAX_BITS}")


def _all(check, some: str = "") -> Any:
    """A check of each value of a list; some: what there must be one of at least."""

    def each(values: list) -> None:
        if some and not values:
            raise UserError(f"no {some} given")
        for value in values:
            check(value)

    return each


CHECKS = {
    "profile": lambda value: choose("profile", value, PROFILES),
    "dataset": lambda value: choose("data set", value, data.names()),
    "base_models": _each("base model", lambda: models.NAMES),
    "base_recipe": lambda value: choose("base recipe", value, grids.RECIPES),
    "generators": _all(lambda value: choose("generator", value, generators.NAMES)),
    "error_models": _all(_law, "error model"),
    "rates": _all(faults.check_rate, "bit-error rate"),
    "patterns": _at_least("patterns", 1),
    "base_model": lambda value: choose("base model", value, models.NAMES),
    "base_recipes": _each("base recipe", lambda: (*grids.RECIPES, *grids.ROBUST_RECIPES)),
    "robust_recipes": _all(lambda value: choose("robust recipe", value, grids.ROBUST_RECIPES)),
    "batches": _all(_at_least("a batch size", 1)),
    "datasets": _each("data set", data.names),
    "error_model": _law,
    "flips": _all(_at_least("a number of flips", 1)),
    "generator_names": _all(lambda value: choose("generator", value, generators.NAMES)),
    "images": _at_least("images", 10),
    **dict.fromkeys(("official_steps", "steps", "imitation_steps"), _all(_at_least("a number of steps", 1))),
    "loss_weights": _all(_at_least("a loss weight", 0)),
    "models_per_step": _all(_at_least("a number of perturbed models", 1)),
    "rate": faults.check_rate,
    "surrogates": _each("surrogate", lambda: models.NAMES),
    "tellers": _all(lambda value: choose("teller", value, models.ENCODERS.values())),
    "mitigations": _all(lambda value: choose("mitigation", value, MITIGATIONS)),
    "shifts": _each("shift", lambda: SHIFTS),
    "trainings": _at_least("trainings", 2),
    "safe_ber": _safe_ber,
    "train_rate": faults.check_rate,
    "train_rates": _all(faults.check_rate, "bit-error rate of training"),
    "widths": _all(_bits, "code width"),
    "width": _fraction("width"),
    "epochs": _at_least("epochs", 1),
    "epoch_counts": _all(_at_least("a number of epochs", 1)),
    "weight_decays": _all(_at_least("a weight decay", 0)),
    "clippings": _all(_at_least("a clipping", 0)),
    "bit_error_rates": _all(faults.check_rate),
    "schedules": _all(lambda value: choose("schedule", value, SCHEDULES)),
    "device": choose_device,
    "energy_ratio": _fraction("energy_ratio"),
    "image_size": lambda value: choose("image size", value, (32, 224)),
}


def parameters(name: str) -> dict[str, Any]:
    """Names and defaults of a notebook's parameters, read from the literals of its cell tagged `parameters`."""
    import jupytext

    cells = jupytext.read(source(name)).cells
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    found = {}
    for node in ast.parse("\n".join(tagged)).body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = ast.literal_eval(node.value)
    return found


def _convert(name: str, text: Any, default: Any) -> Any:
    """The value that `text` (from the command line, or a Python value) stands for, of the default's type."""
    value = text
    if isinstance(text, str) and not isinstance(default, str):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if isinstance(default, bool) and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        if isinstance(default, list) and not isinstance(value, list):
            parts = str(text).strip().removeprefix("[").removesuffix("]").split(",")
            value = list(value) if isinstance(value, tuple) else [part.strip() for part in parts if part.strip()]
            value = [_convert(name, part, default[0]) if default else part for part in value]
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise UserError(f"parameter {name!r} is {text!r}; a value like {default!r} ({type(default).__name__}) is needed")
    if isinstance(value, list) and default:
        value = [_convert(name, item, default[0]) for item in value]
    return value


def strict(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The parameters given, converted and checked against the notebook's own; UserError in one line for any fault."""
    defaults, checked = parameters(name), {}
    for key, text in given.items():
        choose(f"parameter of notebook {name!r}", key, defaults)
        value = _convert(key, text, defaults[key])
        CHECKS.get(key, lambda value: None)(value)
        checked[key] = value
    return checked


def execute(name: str, output: Path, given: dict[str, Any]) -> Path:
    """Run a notebook by papermill; `output` (.ipynb) is written even when a cell fails, which is then raised."""
    import jupytext
    import papermill
    from papermill.exceptions import PapermillExecutionError

    checked = strict(name, given)
    output.parent.mkdir(parents=True, exist_ok=True)
    plain = output.with_suffix(f".{os.getpid()}.source.ipynb")
    jupytext.write(jupytext.read(source(name)), plain)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    if sys.stderr.isatty():
        os.environ["NFLIB_TERMINAL"] = "1"  # the kernel's bars pass through to this terminal
    try:
        papermill.execute_notebook(
            plain,
            output,
            checked,
            kernel_name="python3",
            cwd=ROOT,
            progress_bar=False,
            stderr_file=sys.stderr,
            extra_arguments=["--log-level=ERROR"],  # newer kernels warn that they talk to papermill over TCP
        )
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(f"notebook {name}: {error.evalue}") from None
        raise
    finally:
        plain.unlink(missing_ok=True)
    return output


def book(fresh: bool = True) -> Path:
    """Execute every page's notebook on stored records, build the HTML with warnings as errors; returns its first page."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for page in as_completed([pool.submit(_page, page) for page in PAGES]):
            print(f"nflib: executed {page.result()}", file=sys.stderr)
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", "-W", "-n", "--keep-going"]
    done = subprocess.run([*command, *(["--all"] if fresh else []), str(ROOT)], cwd=ROOT)
    if done.returncode:
        raise UserError("the book has warnings or errors, see above")
    for page in PAGES:
        if not (HTML / "book" / "_executed" / f"{page}.html").exists():
            raise UserError(f"page {page} is missing from the book")
    return HTML / "index.html"


def _page(page: str) -> str:
    """Execute the notebook of a page of the book; returns the page's name."""
    name, given = PAGES[page]
    execute(name, EXECUTED / f"{page}.ipynb", given)
    _tidy(EXECUTED / f"{page}.ipynb", full_size=page.removesuffix("_smoke") if page.endswith("_smoke") else "")
    return page


SMOKE_NOTE = """:::{{note}}
This page is [{title}]({page}.ipynb) at **smoke scale**: small handwritten digits, narrow base models, training for
minutes. It shows that every step works, and can be regenerated on any computer. Its numbers say nothing about the paper's.
:::"""


def _tidy(path: Path, full_size: str = "") -> None:
    """Make a page of an executed notebook: less code in the reader's way, and nothing that depends on the run (times).

    The parameters of the page, which papermill puts into a cell of its own, go under the defaults that they change; a line
    that only shows a table or a picture is not offered to read.
    full_size: the page that this one is the twin of at smoke scale, which is then said under its title.
    """
    notebook = json.loads(path.read_text())
    if full_size:
        first = notebook["cells"][0]
        title, rest = "".join(first["source"]).split("\n", 1)
        note = SMOKE_NOTE.format(title=title.removeprefix("# "), page=full_size)
        first["source"] = f"{title}, at smoke scale\n\n{note}\n{rest}"
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        tags, code = cell["metadata"].get("tags", []), "".join(cell["source"])
        if "parameters" in tags:
            defaults = cell
            cell["metadata"]["mystnb"] = {f"code_prompt_{what.lower()}": f"{what} the parameters" for what in ("Show", "Hide")}
        if "injected-parameters" in tags:
            defaults["source"] = "".join(defaults["source"]) + "\n\n" + code.replace("# Parameters", "# on this page", 1)
        if "hide-input" in tags and re.fullmatch(r"[\w.]+\(.*\)", code.strip()):
            tags[tags.index("hide-input")] = "remove-input"
    notebook["cells"] = [cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]
    path.write_text(json.dumps(notebook, indent=1) + "\n")
