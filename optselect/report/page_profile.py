"""The section of a page that shows what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from optselect.profile.text import described
from optselect.profile.values import Profile
from optselect.report import figures
from optselect.report.markup import Html, element
from optselect.report.pieces import figure, table

_LAYERS = 24
_CLASSES = 100


def profile_section(profile: Profile) -> Iterator[Html]:
    """Show what was measured, in words and in pictures."""
    facts = [(element("dt", title), element("dd", ", ".join(parts))) for title, parts in described(profile)]
    words = element("article", element("h3", "In words"), element("dl", *facts, class_="facts"), class_="card")
    yield element("div", words, *_pictures(profile), class_="grid")


def _pictures(profile: Profile) -> Iterator[Html]:
    counts, gradient = profile.data.class_counts, profile.gradient
    if counts:
        listed = counts[:_CLASSES]
        more = f", of {len(counts):,} the first {len(listed)}" if len(counts) > len(listed) else ""
        yield figure(
            "Classes",
            f"Samples of each class among the {profile.data.rows_read:,} that were read.",
            lambda: figures.classes(
                counts,
                f"{len(counts):,} classes; the most frequent has {counts[0]:,} samples, the rarest {counts[-1]:,}",
            ),
            table(
                f"Samples by class{more}",
                ("rank", "samples"),
                [(str(rank), f"{count:,}") for rank, count in enumerate(listed, start=1)],
                numbers=(0, 1),
            ),
        )
    if gradient.norms:
        yield figure(
            "Gradient, pass by pass",
            "Its norm over all parameters at the initial weights. Dashed: the median.",
            lambda: figures.norms(
                gradient.norms,
                f"{len(gradient.norms)} gradient norms from {min(gradient.norms):.3g} to {max(gradient.norms):.3g}",
            ),
            table(
                "Norm of the gradient by pass",
                ("pass", "norm"),
                [(str(number), f"{norm:.4g}") for number, norm in enumerate(gradient.norms, start=1)],
                numbers=(0, 1),
            ),
        )
    relative = {name: value for name, value in gradient.relative_norms.items() if value > 0}
    if relative:
        evenly = {round(each * (len(relative) - 1) / max(_LAYERS - 1, 1)) for each in range(_LAYERS)}
        drawn = {name: value for number, (name, value) in enumerate(relative.items()) if number in evenly}
        some = f" {len(drawn)} of {len(relative)} are drawn." if len(drawn) < len(relative) else ""
        yield figure(
            "Gradient, layer by layer",
            f"Its norm as a share of the weights', from input to output.{some}",
            lambda: figures.layers(
                drawn,
                f"Gradient norm over weight norm in {len(drawn)} layers, "
                f"from {min(drawn.values()):.3g} to {max(drawn.values()):.3g}",
            ),
            table(
                "Gradient norm over weight norm",
                ("parameter", "share"),
                [(name, f"{value:.3g}") for name, value in gradient.relative_norms.items()],
                numbers=(1,),
            ),
        )
