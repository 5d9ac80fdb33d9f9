"""`nflib ...`: run notebooks, sweep cells, derive and check tables, build the book.

Each verb imports what it needs, so that help and refused words come at once, without torch.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from nflib import names
from nflib.names import PROFILES, ROOT, TABLES, UserError, choose


class OneLineParser(argparse.ArgumentParser):
    """A wrong word is answered in one line."""

    def error(self, message: str):
        self.exit(2, f"nflib: {message}; see {self.prog} --help\n")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 25m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, None: 1}[match[2]]


def _run(args: argparse.Namespace) -> int:
    from nflib import notebooks

    given: dict[str, str] = {}
    for name, value in [*(args.parameter or []), *([("profile", args.profile)] if args.profile else [])]:
        if given.get(name, value) != value:
            raise UserError(f"parameter {name!r} is given twice, as {given[name]!r} and {value!r}; a list has commas")
        given[name] = value
    asked = Path(args.notebook)
    if asked.parent != Path() and asked.resolve().parent != notebooks.SOURCES:
        raise UserError(f"{args.notebook} is no notebook of this study; they lie in {notebooks.SOURCES}")
    output = Path(args.output or ROOT / "_build" / "runs" / f"{asked.stem}.ipynb")
    if output.suffix != ".ipynb" or output.is_dir():
        raise UserError(f"output {output} must be a file that ends in .ipynb")
    checked = notebooks.strict(asked.stem, given)
    whole = {**notebooks.parameters(asked.stem), **checked}
    for name, value in whole.items():
        if value in ("digits", ["digits"]) and name not in given and whole["profile"] == "paper" and whole.get("measure"):
            print(f"nflib: full-size models on digits; the paper's data sets are asked for by -p {name} cifar10 and the like", file=sys.stderr)
    notebooks.execute(asked.stem, output, given)
    print(f"nflib: executed notebook lies at {output}")
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from nflib import cluster, profiles, study
    from nflib.cells import only
    from nflib.store import Store

    asked = [names.READS.get(name, name) for name in args.table]
    if without := [name for name in asked if name in names.notebooks() and name not in TABLES]:
        raise UserError(f"notebook {without[0]!r} has no cells of its own; it shows what other tables measured ({', '.join(TABLES)})")
    cells = list(dict.fromkeys(cell for table in asked or TABLES for cell in profiles.cells(args.profile, table)))
    cells = only(cells, args.only or [])
    if args.workers < 0:
        raise UserError(f"--workers is {args.workers}; it must be 0 or more")
    if args.workers or args.scheduler:
        if args.budget:
            raise UserError("--budget goes with one process; leave --workers and --scheduler out, or the budget")
        missing = cluster.run(cells, args.profile, args.device, args.workers, args.scheduler)
    else:
        missing = study.run(cells, args.profile, args.device, args.budget)
    print(f"nflib: {len(cells) - missing} of {len(cells)} cells have a record in {Store(args.profile).root}")
    return 0 if missing == 0 or args.budget else 1


def _status(args: argparse.Namespace) -> int:
    from nflib import derive
    from nflib.pages import scoreboard
    from nflib.store import device_name
    from nflib.trained import choose_device

    for profile in [args.profile] if args.profile else PROFILES:
        print(f"profile {profile}, on {device_name(choose_device(args.device))}")
        print(derive.status(profile, args.device).to_string(index=False))
        if profile == "paper":
            print("\nby table and figure of the paper")
            print(scoreboard.status_by_paper_table(args.device).to_string(index=False))
    return 0


def _tables(args: argparse.Namespace) -> int:
    from nflib import derive

    for profile in [args.profile] if args.profile else PROFILES:
        for path in derive.write(profile):
            print(path)
    return 0


def _check(args: argparse.Namespace) -> int:
    from nflib import derive

    if args.against:
        frame = derive.compare(args.profile or "smoke", Path(args.against), args.one, args.all)
        for name in ("clean", "perturbed"):
            gap = frame[f"{name}_there"] - frame[name]
            print(f"{len(frame)} cells, {name}: on average {gap.mean():+.2f}, at most {gap.abs().max():.2f} points apart")
        return 0
    for line in derive.check():
        print(line)
    return 0


def _book(args: argparse.Namespace) -> int:
    from nflib import notebooks

    print(f"nflib: the book lies at {notebooks.book()}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line, verb by verb."""
    top = OneLineParser(prog="nflib", description="A reproducible study of NeuralFuse.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, action, text: str, profile: str | None = None, device: bool = False) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(action=action, parser=one)
        one.add_argument("--profile", default=profile, help="smoke or paper")
        if device:
            one.add_argument("--device", default="auto", help="auto, cpu or cuda")
        return one

    run = verb("run", _run, "execute a notebook with other parameters")
    run.add_argument("notebook", help=", ".join(names.notebooks()))
    text = "a parameter of the notebook, a list with commas; several are given one by one"
    run.add_argument("-p", dest="parameter", nargs=2, action="append", metavar=("NAME", "VALUE"), help=text)
    run.add_argument("--output", help="where the executed notebook goes (.ipynb)")
    sweep = verb("sweep", _sweep, "measure the cells of tables that have no record yet, cheapest first", "smoke", True)
    sweep.add_argument("table", nargs="*", help=f"{', '.join(TABLES)}; without any, all of them")
    sweep.add_argument("--only", action="append", metavar="KEY=VALUE", help="cells with this value, e.g. model=vgg11; several are combined")
    sweep.add_argument("--budget", type=_seconds, help="time to stop after, e.g. 25m; run again to go on")
    many = sweep.add_mutually_exclusive_group()
    many.add_argument("--workers", type=int, default=0, help="local worker processes (needs dask.distributed)")
    many.add_argument("--scheduler", help="address of a Dask scheduler that the cells are handed to")
    verb("status", _status, "per table: cells done, missing, and the time left on this device", device=True)
    verb("tables", _tables, "derive the tables from the records")
    check = verb("check", _check, "records valid, tables equal to what they give, published numbers intact")
    check.add_argument("--against", metavar="RESULTS", help="compare the records with those of another results folder")
    points = {"nargs": 2, "type": float, "metavar": ("CLEAN", "PERTURBED")}
    check.add_argument("--one", **points, default=(25, 40), help="allowed difference of one cell, points")
    check.add_argument("--all", **points, default=(3, 6), help="allowed mean difference over all cells, points")
    verb("book", _book, "execute every notebook on stored records and build the HTML, warnings as errors")
    return top


def main(words: list[str] | None = None) -> int:
    """Entry point; a user's mistake is one line on stderr and exit status 2."""
    args, unknown = parser().parse_known_args(words)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        if args.profile:
            choose("profile", args.profile, PROFILES)
        return args.action(args)
    except UserError as error:
        print(f"nflib: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"nflib: {error.strerror or error}{f' ({error.filename})' if error.filename else ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nflib: stopped; what was measured is stored, run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.close(sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
