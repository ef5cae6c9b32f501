"""`python -m optselect.recipes.records`: records out of public repositories, facts out of records, races on them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from optselect import rules
from optselect.errors import OptselectError
from optselect.recipes.records import facts, store, tables
from optselect.recipes.records.sources import READERS, SOURCES
from optselect.rules.large_trainings import FILE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 2 wrong input or records that differ."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.function(arguments))
    except OptselectError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optselect.recipes.records", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    made = commands.add_parser("regenerate", help="make records out of a local clone; `facts` names the revisions")
    made.add_argument("source", choices=SOURCES, help="whose clone it is")
    made.add_argument("clone", type=Path, metavar="CLONE")
    made.add_argument("folder", type=Path, metavar="FOLDER", help="where the records go")
    made.add_argument("--against", type=Path, metavar="FOLDER", help="compare with the records there")
    made.set_defaults(function=_regenerate)

    derived = commands.add_parser("facts", help="derive the facts that ship, and write them")
    derived.add_argument("folder", type=Path, metavar="FOLDER", help="the records of all sources")
    derived.add_argument("-o", "--output", type=Path, metavar="FILE", help="the package's own without it")
    derived.set_defaults(function=_facts)

    raced = commands.add_parser("replay", help="run races on recorded curves, and print tables")
    raced.add_argument("folder", type=Path, metavar="FOLDER")
    raced.set_defaults(function=_replay)
    return parser


def _regenerate(arguments: argparse.Namespace) -> int:
    name = arguments.source
    count = store.write(arguments.folder, name, READERS[name](arguments.clone))
    print(f"{count} records of {SOURCES[name].repository} in {arguments.folder / f'{name}.jsonl.gz'}")
    if arguments.against is None:
        return 0
    here, there = (store.lines(folder, name) for folder in (arguments.folder, arguments.against))
    print(f"{len(here & there)} are the same, {len(here - there)} only here, {len(there - here)} only there")
    return 0 if here == there else 2


def _facts(arguments: argparse.Namespace) -> int:
    with resources.as_file(resources.files(rules).joinpath(FILE)) as own:
        target = arguments.output or own
    found = facts.facts(arguments.folder)
    target.write_text(facts.written(found), encoding="utf-8")
    print(f"{len(found)} facts in {target}")
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    for block in tables.tables(arguments.folder):
        print(f"{block}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
