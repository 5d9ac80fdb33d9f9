"""Notebooks: their parameters, refused where they are wrong; the cells that they ask for; their execution.

A notebook is a py:percent file in notebooks/.  Its cell tagged `parameters` has typed literals; its cell tagged `cells`
makes the list `cells` of them.  notebooks/parameters.yml says with which values each profile runs it.
"""

import ast
import contextlib
import functools
import io
import json
import logging
import os
import sys
import tempfile
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import jupytext
import yaml

from nflib.names import ROOT, UserError, choose
from nflib.study.cells import Cell

SOURCES = ROOT / "notebooks"
MOST_VALUES = 100  # of a list
BOOK = "book"  # the key of parameters.yml that lists which parameter sets are pages of the book


def names() -> list[str]:
    """Names of the notebooks, in order."""
    return sorted(path.stem for path in SOURCES.glob("*.py"))


def source(name: str) -> Path:
    """The file of a notebook, by its name or its path from here; UserError for one that is not there."""
    path = Path(name)
    if path.parent != Path() and path.resolve().parent != SOURCES:
        raise UserError(f"{name} is no notebook of this study; they lie in {SOURCES}")
    return SOURCES / f"{choose('notebook', path.name.removesuffix('.py'), names())}.py"


@functools.cache
def _code(path: Path, changed: int) -> list:
    cells = jupytext.reads(path.read_text("utf-8"), fmt="py:percent").cells
    return [cell for cell in cells if cell.cell_type == "code"]


def code(name: str, tag: str | None = None) -> list[str]:
    """Sources of a notebook's code cells, or of those with a tag."""
    path = source(name)
    cells = _code(path, path.stat().st_mtime_ns)
    return [cell.source for cell in cells if tag is None or tag in cell.metadata.get("tags", [])]


def parameters(name: str) -> dict[str, tuple[object, object]]:
    """(type, default) of each parameter of a notebook, read from the annotated literals of its cell `parameters`."""
    found = {}
    for node in ast.parse("\n".join(code(name, "parameters"))).body:
        if isinstance(node, ast.AnnAssign):
            kind = eval(ast.unparse(node.annotation), {})  # noqa: S307  (the notebook's own annotation)
            found[node.target.id] = kind, ast.literal_eval(node.value)
    return found


def meanings(name: str) -> dict[str, str]:
    """What each parameter of a notebook means: the comment behind its literal; "" where there is none."""
    text = "\n".join(code(name, "parameters"))
    ends = {node.target.id: node for node in ast.parse(text).body if isinstance(node, ast.AnnAssign)}
    lines = [line.encode() for line in text.splitlines()]  # columns of the syntax tree are bytes
    return {key: lines[node.end_lineno - 1][node.end_col_offset :].decode().lstrip(" #") for key, node in ends.items()}


@functools.cache
def _sets(changed: int) -> dict[str, dict[str, object]]:
    whole = yaml.safe_load((SOURCES / "parameters.yml").read_text("utf-8"))
    return {choose("notebook of parameters.yml", name, names()): sets or {} for name, sets in whole.items()}


def sets(name: str) -> dict[str, dict]:
    """The parameter sets of a notebook, by profile (or another name, where it has no parameter `profile`); {} without any."""
    known = _sets((SOURCES / "parameters.yml").stat().st_mtime_ns).get(source(name).stem, {})
    has_profile = "profile" in parameters(name)
    return {key: (values or {}) | ({"profile": key} if has_profile else {}) for key, values in known.items() if key != BOOK}


def reading(name: str, key: str) -> dict[str, object]:
    """A notebook's parameter set of a name, to be run on stored records only."""
    return sets(name)[key] | ({"measure": False} if "measure" in parameters(name) else {})


def pages() -> dict[str, tuple[str, str]]:
    """Pages of the book: {page: (notebook, parameter set)}; a notebook's first page has its name."""
    found = {}
    for name, known in _sets((SOURCES / "parameters.yml").stat().st_mtime_ns).items():
        for place, key in enumerate(known.get(BOOK, ())):
            choose(f"parameter set of {name}", key, sets(name))
            found[f"{name}_{key}" if place else name] = name, key
    return found


def _wrong(name: str, value: object, kind: object) -> UserError:
    words = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    return UserError(f"parameter {name!r} is {value!r}; a value of type {words} is needed")


def _literal(value: object) -> object:
    """What a text writes, where it writes a value of Python."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval({"true": "True", "false": "False"}.get(value.lower(), value))
    return value


def _converted(name: str, value: object, kind: object) -> object:
    """`value`, or what a text of the command line stands for, as a value of the annotated type."""
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        if typing.get_origin(inside[0]) is list:
            value = _literal(value)
        if isinstance(value, str):
            value = [part.strip() for part in value.strip().removeprefix("[").removesuffix("]").split(",") if part.strip()]
        if not isinstance(value, (list, tuple)):
            raise _wrong(name, value, kind)
        if len(value) > MOST_VALUES:
            raise UserError(f"parameter {name!r} has {len(value)} values; allowed are {MOST_VALUES}")
        return [_converted(name, item, inside[0]) for item in value]
    if kind is str:
        if not isinstance(value, str):
            raise _wrong(name, value, kind)
        return value.strip("'\"")
    value = _literal(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            value = float(value)
    if type(value) is not kind:
        raise _wrong(name, value if len(repr(value)) < 80 else repr(value)[:80] + "...", kind)
    return value


def strict(name: str, given: dict[str, object]) -> dict[str, object]:
    """The parameters given, as values of the notebook's annotated types; UserError for an unknown name or a wrong type."""
    known, checked = parameters(name), {}
    for key, value in given.items():
        kind, _ = known[choose(f"parameter of notebook {name!r}", key, known)]
        checked[key] = _converted(key, value, kind)
    return checked


def _of_one_set(name: str, cells: list, given: dict[str, object]) -> list:
    """A notebook's cells without those that are tagged only with other parameter sets than the one of the profile given."""
    known, own = {*sets(name)}, given.get("profile", parameters(name).get("profile", ("", ""))[1])
    return [cell for cell in cells if not (tags := known & {*cell.metadata.get("tags", [])}) or own in tags]


def _run(sources: list[str], namespace: dict, name: str) -> None:
    for text in sources:
        exec(compile(text, f"notebooks/{name}.py", "exec"), namespace)  # noqa: S102  (a notebook of this study)


def cells(name: str, given: dict[str, object]) -> list[Cell]:
    """What a notebook measures with the parameters given: its cells `parameters` and `cells`, executed here.

    [] for a notebook that only reads.  UserError where a value is refused by what builds cells, or nothing is asked for.
    """
    checked = strict(name, given)
    namespace: dict = {}
    _run(code(name, "parameters"), namespace, name)
    namespace |= checked
    try:
        _run(code(name, "cells"), namespace, name)
    except UserError as error:
        raise UserError(f"notebook {name}: {error}") from None
    if "cells" in namespace and not namespace["cells"]:
        raise UserError(f"notebook {name}: with these parameters there is nothing to measure")
    return list(dict.fromkeys(namespace.get("cells", [])))


def cells_of(profile: str, name: str) -> list[Cell]:
    """The cells of a notebook at a profile; [] where it has no parameter set of that name."""
    known = sets(name)
    return cells(name, known[profile]) if profile in known else []


def all_cells(profile: str, asked: list[str] | None = None) -> list[Cell]:
    """The cells of all notebooks at a profile, or of those asked for, each once."""
    return list(dict.fromkeys(cell for name in asked or names() for cell in cells_of(profile, name)))


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Variables of the environment, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= values
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def keeping(folder: Path, strict_claims: bool) -> contextlib.AbstractContextManager:
    """What notebooks show is kept in `folder` (`report.show.keep`), and claims must hold where they are strict."""
    return _environment(NFLIB_OUTCOMES=str(folder), NFLIB_STRICT="1" if strict_claims else "")


def inline(name: str, given: dict[str, object], folder: Path, strict_claims: bool = False) -> dict:
    """Execute a notebook here, without a kernel and without showing anything; returns its names.

    A cell tagged with a parameter set (profile) is for that set only.  Tables, named pictures and claims are kept in `folder`.
    For tests, and for tables derived from stored records.
    """
    namespace: dict = types.ModuleType("__main__").__dict__
    path = source(name)
    sources = [cell.source for cell in _of_one_set(name, _code(path, path.stat().st_mtime_ns), given)]
    place = next((k for k, text in enumerate(sources) if text in code(name, "parameters")), -1) + 1
    with keeping(folder, strict_claims), contextlib.redirect_stdout(io.StringIO()):
        _run(sources[:place], namespace, name)
        namespace |= strict(name, given)
        _run(sources[place:], namespace, name)
    return namespace


@contextlib.contextmanager
def _own_kernel() -> Iterator[str]:
    """The name of a kernel that is this interpreter, whatever "python3" names on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernels" / "nflib" / "kernel.json"
        target.parent.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        target.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
        with _environment(JUPYTER_PATH=os.pathsep.join(filter(None, (folder, os.environ.get("JUPYTER_PATH"))))):
            yield "nflib"


def execute(name: str, output: Path, given: dict[str, object], folder: Path, strict_claims: bool = False) -> Path:
    """Run a notebook by papermill from where the user stands; `output` (.ipynb) is written even when a cell fails.

    given: parameters, as `strict` returns them.  A cell tagged with a parameter set (profile) is for that set only.
    Tables, named pictures and claims are kept in `folder`.  Raises UserError where a cell of the notebook fails, a claim of
    the book does not hold, or the kernel dies.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    output.parent.mkdir(parents=True, exist_ok=True)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    for chatty in ("papermill", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)  # what goes wrong is said here, in one line
    if sys.stderr.isatty():
        os.environ["NFLIB_TERMINAL"] = "1"  # the kernel's bars pass through to this terminal
    with tempfile.TemporaryDirectory() as scratch, _own_kernel() as kernel, keeping(folder, strict_claims):
        plain = Path(scratch) / "source.ipynb"
        notebook = jupytext.read(source(name))
        notebook.cells = _of_one_set(name, notebook.cells, given)
        jupytext.write(notebook, plain)
        try:
            papermill.execute_notebook(
                plain,
                str(output).replace("{", "{{").replace("}", "}}"),
                given,
                kernel_name=kernel,
                cwd=Path.cwd(),
                progress_bar=False,
                stderr_file=sys.stderr,
                extra_arguments=["--log-level=ERROR"],  # newer kernels warn that they talk to papermill over TCP
            )
        except PapermillExecutionError as error:
            told = {"UserError": "", "ClaimFails": "a claim does not hold: "}.get(error.ename)
            if told is None:
                told = f"{output} has the traceback of {error.ename}: "
            raise UserError(f"notebook {name}: {told}{str(error.evalue).partition(chr(10))[0]}") from None
        except RuntimeError as error:  # the kernel was killed, perhaps for its memory, or did not start
            raise UserError(f"notebook {name}: {str(error).partition(chr(10))[0]}; what it measured is stored") from None
    return output
