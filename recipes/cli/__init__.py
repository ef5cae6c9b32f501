"""The command line: `optselect fit`, `tune`, `worker`, `profile`, and the questions that need no training."""

from optselect.recipes.cli.commands import main

__all__ = ["main"]
