"""Pictures of the benchmark: regret against what a search cost, and what became of calls by how sure they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from optselect.recipes.bench.calibration import Count
from optselect.recipes.bench.scores import Summary
from optselect.recipes.bench.sources import tool

_OURS = "ours"


def draw(summaries: Sequence[Summary], file: Path) -> None:
    """Write the picture to `file`; its suffix, .svg or .png, says what it is. Raises `MissingExtraError`."""
    matplotlib = tool("matplotlib")
    matplotlib.use("agg")
    pyplot = tool("matplotlib.pyplot")
    with matplotlib.rc_context({"svg.hashsalt": "optselect", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for summary in summaries:
            _mark(axes, summary)
        line = [summary for summary in summaries if summary.method.startswith(f"{_OURS}@")]
        axes.plot([each.cost for each in line], [each.mean for each in line], color="C3")
        axes.axhline(0, color="0.7", linewidth=0.8)
        axes.set_xscale("symlog", linthresh=0.25, linscale=0.5)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_xlabel("gradient steps spent on the choice, in trainings")
        axes.set_ylabel("mean normalised regret (0: best of the grid, 1: AdamW 1e-3)")
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        pyplot.close(figure)


def _mark(axes: object, summary: Summary) -> None:
    low, high = summary.interval
    colour = "C3" if summary.method.startswith(_OURS) else "0.35"
    error = [[max(summary.mean - low, 0)], [max(high - summary.mean, 0)]]
    axes.errorbar([summary.cost], [summary.mean], yerr=error, fmt="o", color=colour, capsize=2)  # type: ignore[attr-defined]
    axes.annotate(  # type: ignore[attr-defined]
        summary.method,
        (summary.cost, summary.mean),
        textcoords="offset points",
        xytext=(5, 5),
        color=colour,
        fontsize=8,
    )


def reliability(series: Mapping[str, Sequence[tuple[float, Count]]], file: Path) -> None:
    """Draw the share of calls that do not end behind against the chance that was given, with 95 % intervals.

    The file's suffix, .svg or .png, says what it is. Raises `MissingExtraError`.
    """
    matplotlib = tool("matplotlib")
    matplotlib.use("agg")
    pyplot = tool("matplotlib.pyplot")
    with matplotlib.rc_context({"svg.hashsalt": "optselect", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
        axes.plot([0.5, 1], [0.5, 1], color="0.7", linewidth=0.8)
        for index, (name, points) in enumerate(series.items()):
            shares = [1 - count.share for _, count in points]
            lows = [share - (1 - count.interval[1]) for share, (_, count) in zip(shares, points, strict=True)]
            highs = [(1 - count.interval[0]) - share for share, (_, count) in zip(shares, points, strict=True)]
            chances = [chance for chance, _ in points]
            axes.errorbar(chances, shares, yerr=[lows, highs], fmt="o-", color=f"C{index}", capsize=2, label=name)
        axes.set_xlabel("chance, by the model, that a rival does not end behind")
        axes.set_ylabel("share that does not")
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
        pyplot.close(figure)
