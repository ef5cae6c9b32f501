"""The plots of a report: matplotlib, as SVG that takes its colours and its font from the page around it.

The same plan gives the same bytes. Text stays text, so that it can be read, searched and scaled.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET  # what is parsed is matplotlib's

from optselect.configuration import Trial
from optselect.plan import OptimizerPlan
from optselect.report.markup import Html, element, visible
from optselect.report.rates import Rate, rates_of
from optselect.report.trials import but_for_its_rate, is_baseline, is_chosen, optimizers, points, rate_name, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In points, which are the units of the SVG. On a phone 380 of them are about 330 pixels wide.
_WIDTH, _HEIGHT, _FONT = 380, 260, 11.5
SERIES = 8
"""Colours there are for optimizers; the markers go on changing after them."""

# matplotlib wants colours, the page has variables: each has a colour of its own that stands for it.
_STANDS_FOR = {
    "ink": "#010101",
    "muted": "#010102",
    "line": "#010103",
    "surface": "#010104",
    **{f"series-{number}": f"#0102{number:02x}" for number in range(1, SERIES + 1)},
}
_VARIABLES = {colour: f"var(--{name})" for name, colour in _STANDS_FOR.items()}
_INK, _MUTED, _LINE, _SURFACE = (_STANDS_FOR[name] for name in ("ink", "muted", "line", "surface"))

# matplotlib's name for each marker, and the character that looks like it in a legend.
_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"), ("*", "★"), ("p", "⬟"))

# For lines of one colour.
_DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "optselect",
    "font.size": _FONT,
    "font.family": "DejaVu Sans",  # comes with matplotlib; the page's own takes its place
    # A monitor or a parameter may have dollars in its name.
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
}


def available() -> bool:
    """Tell whether there is a matplotlib to draw with."""
    try:
        import matplotlib.figure  # noqa: PLC0415  # an extra, and half a second
    # A mismatched binary raises whatever it likes.
    except Exception:  # noqa: BLE001  # see above
        return False
    return matplotlib.figure is not None


def colour(number: int) -> str:
    """Name the page's variable for an optimizer's colour."""
    return f"--series-{number % SERIES + 1}"


def marker(number: int) -> str:
    """Return the character that stands for an optimizer's marker."""
    return _MARKERS[number % len(_MARKERS)][1]


# --- what is drawn --------------------------------------------------------------------------------


def learning_curves(plan: OptimizerPlan, trials: Sequence[Trial], label: str) -> Html:
    """Draw the monitored value of each trial along its rungs; the baseline dashed, the chosen one thick."""
    numbers = series(plan)

    def draw(axes: Axes) -> None:
        # The chosen one last, on top.
        for trial in reversed(trials):
            number, chosen = numbers[trial.configuration.optimizer], is_chosen(plan, trial)
            axes.plot(
                list(trial.values),
                list(trial.values.values()),
                color=_series(number),
                marker=_MARKERS[number % len(_MARKERS)][0],
                markersize=8 if chosen else 6,
                linewidth=2.6 if chosen else 1.3,
                linestyle="--" if is_baseline(plan, trial) else ":" if trial.seed else "-",
                markeredgecolor=_SURFACE,
                markeredgewidth=0.8,
            )
        _scale(axes, "y", [value for trial in trials for value in trial.values.values()])
        axes.set_xlim(left=0)
        axes.set_xlabel("micro-batches")
        axes.set_ylabel(_shortened(plan.monitor))

    return _svg("curves", label, draw)


def rates(plan: OptimizerPlan, trials: Sequence[Trial], rung: int, label: str) -> Html:
    """Draw the value at one rung over the peak learning rate; a line through what differs in nothing else."""
    numbers = series(plan)

    def draw(axes: Axes) -> None:
        found = list(points(plan, trials, rung))
        lines: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for trial, lr, value in found:
            which = numbers[trial.configuration.optimizer], but_for_its_rate(trial.configuration)
            lines.setdefault(which, []).append((lr, value))
        for (number, _), line in sorted(lines.items(), reverse=True):
            own = sorted(line)
            # Two points are no valley: a line between them would look like a half of one.
            axes.plot(
                [lr for lr, _ in own],
                [value for _, value in own],
                color=_series(number),
                marker=_MARKERS[number % len(_MARKERS)][0],
                markersize=7,
                linewidth=1.3 if len(own) > 2 else 0.0,
                markeredgecolor=_SURFACE,
                markeredgewidth=0.8,
            )
        for trial, lr, value in found:
            if is_chosen(plan, trial):
                axes.plot([lr], [value], marker="o", markersize=14, markeredgewidth=1.8, color=_INK, mfc="none")
        base = next((trial.values[rung] for trial in trials if is_baseline(plan, trial) and rung in trial.values), None)
        if base is not None:
            axes.axhline(base, color=_MUTED, linewidth=1, linestyle="--", zorder=0.9)
        _scale(axes, "x", [lr for _, lr, _ in found])
        _scale(axes, "y", [value for _, _, value in found])
        axes.set_xlabel(rate_name(plan))
        axes.set_ylabel(f"{_shortened(plan.monitor)} after {rung:,}")

    return _svg("rates", label, draw)


def schedule(plan: OptimizerPlan, label: str) -> Html:
    """Draw the learning rate of the groups over the optimizer steps; their share of the peak where they have none."""
    steps = plan.total_steps or max(4 * plan.schedule.warmup_steps, 100)
    order, lines = optimizers(plan), rates_of(plan)
    shown = sorted({round(each * (steps - 1) / 400) for each in range(401)} | set(_corners(plan, lines, steps)))

    def draw(axes: Axes) -> None:
        drawn: Counter[int] = Counter()
        for number, line in enumerate(lines):
            optimizer = line.groups[0].optimizer
            at = order.index(optimizer) if optimizer in order else len(order) + number
            rates = {step: line.at(step, plan.schedule, plan.total_steps) for step in shown}
            known = {step: rate for step, rate in rates.items() if rate is not None}
            axes.plot(
                list(known),
                list(known.values()),
                color=_series(at),
                linestyle=_DASHES[drawn[at] % len(_DASHES)],
                linewidth=2.2,
                label=_shortened(line.label, 40),
            )
            drawn[at] += 1
        axes.set_ylim(bottom=0)
        # Each tick whole: a power of ten above the axis would stand in the legend.
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlim(0, steps)
        axes.set_xlabel("optimizer steps" if plan.total_steps else "optimizer steps, and so on")
        axes.set_ylabel("share of the peak" if any(line.peak is None for line in lines) else "learning rate")
        if len(lines) > 1:
            # Above the axes: inside, it would lie on a line wherever there are many.
            axes.legend(
                fontsize=_FONT - 2, loc="lower left", bbox_to_anchor=(0, 1.02), borderaxespad=0, labelspacing=0.25
            )

    return _svg("schedule", label, draw, height=_HEIGHT + (15 * len(lines) if len(lines) > 1 else 0))


def shares(values: Mapping[str, float], label: str) -> Html:
    """Draw a bar for each of `values`, which are shares of one, the first at the top."""

    def draw(axes: Axes) -> None:
        rows = range(len(values))
        axes.barh(list(rows), list(values.values()), height=0.6, color=_STANDS_FOR["series-1"])
        for row, value in zip(rows, values.values(), strict=True):
            axes.annotate(f"{value:.0%}", (value, row), (4, 0), textcoords="offset points", va="center", color=_INK)
        axes.set_yticks(list(rows), [_shortened(name) for name in values])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * max(values.values()))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return _svg("shares", label, draw, height=max(_HEIGHT / 2, 50 + 34 * len(values)))


def classes(counts: Sequence[int], label: str) -> Html:
    """Draw how many samples there are of each class, the most frequent first."""

    def draw(axes: Axes) -> None:
        ranks = range(1, len(counts) + 1)
        if len(counts) <= 40:
            axes.bar(ranks, counts, width=0.72, color=_STANDS_FOR["series-1"])
        else:
            axes.fill_between(ranks, counts, step="mid", color=_STANDS_FOR["series-1"])
        if min(counts) > 0 and max(counts) / min(counts) > 100:
            _logarithmic(axes, "y", min(counts), max(counts))
        axes.grid(visible=False, axis="x")
        axes.set_xlim(0.4, len(counts) + 0.6)
        axes.set_xlabel("class, the most frequent first")
        axes.set_ylabel("samples")
        _whole_numbers(axes)

    return _svg("classes", label, draw)


def norms(values: Sequence[float], label: str) -> Html:
    """Draw the gradient's norm, pass by pass, and the median."""

    def draw(axes: Axes) -> None:
        passes = range(1, len(values) + 1)
        axes.axhline(sorted(values)[len(values) // 2], color=_MUTED, linewidth=1, linestyle="--")
        axes.plot(passes, values, color=_STANDS_FOR["series-1"], marker="o", markersize=6, linewidth=1.2)
        _scale(axes, "y", list(values))
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
        axes.set_xlabel("pass, each on a batch of its own")
        axes.set_ylabel("norm of the gradient")
        _whole_numbers(axes)

    return _svg("norms", label, draw)


def layers(values: Mapping[str, float], label: str) -> Html:
    """Draw the gradient's norm beside the weights', layer by layer from input to output."""

    def draw(axes: Axes) -> None:
        rows = range(len(values))
        axes.plot(list(values.values()), list(rows), "o", color=_STANDS_FOR["series-1"], markersize=7)
        axes.set_yticks(list(rows), [_shortened(name) for name in values])
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        _logarithmic(axes, "x", min(values.values()) / 1.3, max(values.values()) * 1.3)
        axes.set_xlabel("‖gradient‖ / ‖weights‖")

    return _svg("layers", label, draw, height=max(_HEIGHT, 70 + 17 * len(values)))


# --- axes -----------------------------------------------------------------------------------------


def _series(number: int) -> str:
    return _STANDS_FOR[f"series-{number % SERIES + 1}"]


def _corners(plan: OptimizerPlan, lines: Sequence[Rate], steps: int) -> Iterator[int]:
    """Yield the steps at which the schedule bends, for what joins later, too."""
    begins = [0, *(line.joins.step for line in lines if line.joins is not None and line.joins.step is not None)]
    bends = [
        step + warmup for step in begins for warmup in (0, plan.schedule.warmup_steps - 1, plan.schedule.warmup_steps)
    ]
    if plan.total_steps:
        bends.append(plan.schedule.slope(plan.total_steps)[0])
    yield from (step for step in bends if 0 <= step < steps)


def _scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Make the axis logarithmic where that shows more: positive values that differ by much."""
    if values and min(values) > 0 and max(values) / min(values) > 4:
        _logarithmic(axes, which, min(values), max(values))


def _logarithmic(axes: Axes, which: str, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415  # as in `available`

    getattr(axes, f"set_{which}scale")("log")
    margin = (high / low) ** 0.08
    getattr(axes, f"set_{which}lim")(low / margin, high * margin)
    axis = getattr(axes, f"{which}axis")
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415  # as in `available`

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))


def _shortened(text: str, most: int = 22) -> str:
    """Keep the ends of a long name, which tell more than its middle."""
    text = " ".join(visible(text).split())
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


# --- SVG ------------------------------------------------------------------------------------------


def _svg(name: str, label: str, draw: Callable[[Axes], None], *, height: float = _HEIGHT) -> Html:
    """Plot what `draw` puts on one pair of axes; `label` is for those who do not see it."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415  # as in `available`
    from matplotlib.figure import Figure  # noqa: PLC0415  # not pyplot: it would keep the figure

    with _styled():
        figure: Figure = Figure(figsize=(_WIDTH / 72, height / 72), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        file = io.StringIO()
        # Not savefig, which draws once more beforehand.
        canvas.print_svg(file, metadata={"Date": None, "Creator": None})
    return _inline(name, label, file.getvalue())


@contextmanager
def _styled() -> Iterator[None]:
    """Set our style alone, whatever the user's is; and silence remarks on letters that matplotlib's font lacks."""
    import matplotlib as mpl  # noqa: PLC0415  # as in `available`

    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


def _inline(name: str, label: str, svg: str) -> Html:
    """Turn a whole SVG file into an element of a page: own names, the page's colours and font, no style sheet."""
    root = ET.fromstring(svg)  # noqa: S314  # as above
    for parent in list(root.iter()):
        for child in list(parent):
            # The style sheet would hold for the whole page.
            if child.tag.startswith("{http://www.w3.org/2000/svg}style") or child.tag == f"{_SVG}metadata":
                parent.remove(child)
    for each in root.iter():
        each.tag = each.tag.removeprefix(_SVG)
        if "id" in each.attrib:
            each.set("id", f"{name}-{each.get('id')}")
        if _HREF in each.attrib:
            each.set("href", each.attrib.pop(_HREF).replace("#", f"#{name}-", 1))
        for key, value in each.attrib.items():
            each.set(key, _themed(value).replace("url(#", f"url(#{name}-"))
    inside = "".join(ET.tostring(child, encoding="unicode", short_empty_elements=False) for child in root)
    drawn = Html(re.sub(r">\s+<", "><", inside).strip())
    return element("svg", drawn, viewBox=root.get("viewBox"), role="img", aria_label=label)


def _themed(value: str) -> str:
    """Put the page's variables in place of our colours, and its font in place of matplotlib's."""
    value = re.sub(r"#010[12][0-9a-f]{2}", lambda found: _VARIABLES.get(found.group(), found.group()), value)
    return value.replace("; font-family: 'DejaVu Sans'", "")
