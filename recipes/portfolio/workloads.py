"""What is recorded: small trainings in fifteen families.

Each differs from the others of its family in data, size or model. None is a task of `optselect bench`, though some
share their data: whoever is judged there is judged without the family it is of.
"""

from __future__ import annotations

from collections.abc import Mapping

from optselect.recipes.bench.task import Task
from optselect.recipes.portfolio.assorted import ASSORTED
from optselect.recipes.portfolio.sequential import SEQUENTIAL
from optselect.recipes.portfolio.tabular import TABULAR
from optselect.recipes.portfolio.vision import VISION

WORKLOADS: Mapping[str, Task] = {each.name: each for each in (*TABULAR, *VISION, *SEQUENTIAL, *ASSORTED)}

# Recorded at four and sixteen times their length, too: what a training's length does to the best rate.
LONGER = (
    "satellite",
    "friedman",
    "zipf",
    "texture-noisy",
    "sonar",
    "claims",
    "digits-plain",
    "digits-norm",
    "digits-token",
    "adding",
    "rhythms",
    "brackets",
    "chain",
    "motifs",
    "word-bags",
    "tastes",
    "triangles",
    "digits-code",
    "digits-draws",
    "oscillator",
    "trends",
    "views",
    "other-letters",
)
