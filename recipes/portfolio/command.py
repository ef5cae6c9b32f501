"""`optselect portfolio record | build | judge | long`: trainings, the prior made out of them, and what it is worth."""

from __future__ import annotations

import argparse
from pathlib import Path

from optselect.errors import ConfigurationError, nearest
from optselect.recipes.portfolio import build, judge, long, record
from optselect.recipes.portfolio.grid import GRID, SPARSE
from optselect.recipes.portfolio.workloads import WORKLOADS


def portfolio(arguments: argparse.Namespace) -> None:
    """Run `optselect portfolio` with its parsed arguments."""
    actions = {"record": _record, "build": _build, "judge": _judge, "long": _long}
    for name in arguments.workloads or ():
        if name not in WORKLOADS:
            raise ConfigurationError(
                f"there is no workload {name!r}.{nearest(name, WORKLOADS)} Known: {', '.join(WORKLOADS)}"
            )
    actions[arguments.action](arguments)


def _record(arguments: argparse.Namespace) -> None:
    for name in arguments.points or ():
        if name not in (known := {**GRID, **SPARSE}):
            raise ConfigurationError(f"there is no point {name!r}.{nearest(name, known)} Known: {', '.join(known)}")
    record.record(
        arguments.records or Path("portfolio_runs"),
        names=arguments.workloads,
        points=arguments.points,
        processes=arguments.processes,
    )


def _build(arguments: argparse.Namespace) -> None:
    build.write(build.build(build.read(arguments.records)), arguments.output)
    print(arguments.output)


def _judge(arguments: argparse.Namespace) -> None:
    print(judge.report(build.read(arguments.records)))


def _long(arguments: argparse.Namespace) -> None:
    found = build.read(arguments.records)
    scores = long.compare(found, Path("long_runs"), names=arguments.workloads, seeds=arguments.seeds)
    print(long.report(scores))
