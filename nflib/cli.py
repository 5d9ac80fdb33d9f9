"""`nflib ...`: run notebooks, sweep cells, derive and check tables, build the book.

Each verb imports what it needs, so that help and refused words come at once, without torch.
"""

import argparse
import os
import re
import signal
import sys
from pathlib import Path

from nflib.names import PROFILES, ROOT, UserError, choose


class OneLineParser(argparse.ArgumentParser):
    """A wrong word is answered in one line."""

    def error(self, message: str):
        self.exit(2, f"nflib: {message}; see {self.prog} --help\n")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(s|m|h)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 25m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[match[2]]


def _run(args: argparse.Namespace) -> int:
    from nflib.study import notebooks
    from nflib.study.records import Store
    from nflib.study.trained import choose_device

    name = notebooks.source(args.notebook).stem
    given: dict[str, str] = {}
    for key, value in [*(args.parameter or []), *([("profile", args.profile)] if args.profile else [])]:
        if given.get(key, value) != value:
            raise UserError(f"parameter {key!r} is given twice, as {given[key]!r} and {value!r}; a list has commas")
        given[key] = value
    profile = str(given.get("profile", "smoke"))
    checked = notebooks.sets(name).get(profile, {}) | notebooks.strict(name, given)
    output = Path(args.output or ROOT / "_build" / "runs" / f"{name}.ipynb").resolve()
    if output.suffix != ".ipynb" or output.is_dir():
        raise UserError(f"output {output} must be a file that ends in .ipynb")
    cells, store = notebooks.cells(name, checked), Store(profile)  # what is wrong is said before a kernel starts
    choose_device(checked.get("device", "auto"))
    missing = sum(not store.has(cell) for cell in cells)
    print(f"nflib: {name} asks for {len(cells)} cells, {missing} of them without a record", file=sys.stderr)
    folder = output.with_suffix("")
    for old in folder.glob("*.csv"):
        old.unlink()
    notebooks.execute(name, output, checked, folder)
    print(f"nflib: executed notebook: {output}\nnflib: its tables: {folder}")
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from nflib.study import cluster, notebooks, runner
    from nflib.study.cells import only
    from nflib.study.records import Store

    asked = [notebooks.source(name).stem for name in args.notebook] or notebooks.names()
    cells = notebooks.all_cells(args.profile, asked)
    if not cells:
        raise UserError(f"{', '.join(asked)}: nothing to measure at profile {args.profile!r} (notebooks/parameters.yml)")
    cells = only(cells, args.only or [])
    if args.workers or args.scheduler is not None:
        if args.budget:
            raise UserError("--budget goes with one process; leave --workers and --scheduler out, or the budget")
        missing = cluster.run(cells, args.profile, args.device, args.workers, args.scheduler)
    else:
        missing = runner.run(cells, args.profile, args.device, args.budget)
    print(f"nflib: {len(cells) - missing} of {len(cells)} cells have a record in {Store(args.profile).root}")
    return 0 if missing == 0 or args.budget else 1


def _status(args: argparse.Namespace) -> int:
    from nflib.study import notebooks, runner
    from nflib.study.records import Store, device_name
    from nflib.study.trained import choose_device

    device = choose_device(args.device)
    for profile in [args.profile] if args.profile else PROFILES:
        store = Store(profile)
        clock = runner.Clock(store, device)
        print(f"profile {profile}, on {device_name(device)}\n{'notebook':18}{'done':>6}{'missing':>9}  time left")
        for name in notebooks.names():
            if cells := notebooks.cells_of(profile, name):
                missing = [cell for cell in cells if not store.has(cell)]
                left = runner.duration(clock.total(missing)) if missing else "-"
                print(f"{name:18}{len(cells) - len(missing):6}{len(missing):9}  {left}")
    return 0


def _publish(args: argparse.Namespace) -> int:
    from nflib.study import notebooks
    from nflib.study.trained import publish

    for path in publish(cell for cell in notebooks.all_cells(args.profile) if cell.kind != "latency"):
        print(path)
    return 0


def _tables(args: argparse.Namespace) -> int:
    from nflib.report import book

    for path in book.write():
        print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    from nflib.report import book, compare

    if args.against:
        for line in compare.compare(args.profile or "smoke", Path(args.against).resolve()):
            print(f"nflib: {line}")
        return 0
    for line in book.check():
        print(f"nflib: {line}")
    for row in book.claims().itertuples():
        print(f"{'holds' if row.holds else 'FAILS'}  {row.page}: {row.claim}")
    return 0


def _book(args: argparse.Namespace) -> int:
    from nflib.report import book

    print(f"nflib: the book lies at {book.build()}")
    return 0


def _workers(text: str) -> int:
    most = len(os.sched_getaffinity(0)) * 4
    if not text.isdecimal() or not 0 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {most}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line, verb by verb."""
    top = OneLineParser(prog="nflib", description="A reproducible study of NeuralFuse.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, action, text: str, profile: str | None = None, device: bool = False) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(action=action, parser=one)
        one.add_argument("--profile", default=profile, help=", ".join(PROFILES))
        if device:
            one.add_argument("--device", default="auto", help="auto, cpu or cuda")
        return one

    known = ", ".join(sorted(path.stem for path in (ROOT / "notebooks").glob("*.py")))
    run = verb("run", _run, "execute a notebook with other parameters")
    run.add_argument("notebook", help=known)
    text = "a parameter of the notebook, a list with commas; several are given one by one"
    run.add_argument("-p", dest="parameter", nargs=2, action="append", metavar=("NAME", "VALUE"), help=text)
    run.add_argument("--output", help="where the executed notebook goes (.ipynb); its tables go into a folder beside it")
    sweep = verb("sweep", _sweep, "measure the cells of notebooks that have no record yet, cheapest first", "smoke", True)
    sweep.add_argument("notebook", nargs="*", help="notebooks; without any, all of them")
    sweep.add_argument("--only", action="append", metavar="KEY=VALUE", help="cells with this value, e.g. model=vgg11; several are combined")
    sweep.add_argument("--budget", type=_seconds, help="time to stop after, e.g. 25m; run again to go on")
    many = sweep.add_mutually_exclusive_group()
    many.add_argument("--workers", type=_workers, default=0, help="local worker processes (needs dask.distributed)")
    many.add_argument("--scheduler", help="address of a Dask scheduler that the cells are handed to")
    verb("status", _status, "per notebook: cells done, missing, and the time left on this device", device=True)
    verb("tables", _tables, "derive tables, pictures and claims of all pages from the records")
    verb("publish", _publish, "store the trained models of a profile as 8-bit codes in results/models", "desk")
    check = verb("check", _check, "records valid, tables and claims equal to what they give, nothing changed")
    check.add_argument("--against", metavar="RESULTS", help="compare the records with those of another results folder")
    verb("book", _book, "execute every page on stored records and build the HTML, warnings as errors")
    return top


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def main(words: list[str] | None = None) -> int:
    """Entry point; a user's mistake is one line on stderr and exit status 2, a signal one line and 128 + its number.

    SIGTERM and SIGHUP end the work as Ctrl-C does, so that kernels, workers and parts go with it.
    """
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal has every letter
    stops = [one for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]
    before = {one: signal.signal(one, _stop) for one in stops}
    try:
        try:
            args, unknown = parser().parse_known_args(words)
            if unknown:
                args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
            if args.profile:
                choose("profile", args.profile, PROFILES)
            return args.action(args)
        finally:
            try:
                if sys.stdout:
                    sys.stdout.flush()
            except OSError:  # nobody reads any more, or the disk is full: nor is it said when the interpreter ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise
    except UserError as error:
        print(f"nflib: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(f"nflib: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print("nflib: stopped; what was measured is stored, run the same command again to go on", file=sys.stderr)
        return 128 + next(iter(stop.args), signal.SIGINT)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


if __name__ == "__main__":
    sys.exit(main())
