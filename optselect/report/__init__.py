"""A plan explained to a person, and the tables of what there is to choose from."""

from optselect.plan import OptimizerPlan
from optselect.report.explanation import headline
from optselect.report.markdown import as_markdown
from optselect.report.text import as_text

__all__ = ["explain", "headline"]


def explain(plan: OptimizerPlan, *, markdown: bool = False) -> str:
    """Why this optimizer: the choice, its reasons and cost, and all that it rests on.

    Plain text is at most 100 columns wide.
    """
    return as_markdown(plan) if markdown else as_text(plan)
