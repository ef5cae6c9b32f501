"""What is known about optimizers, as data: how each is built, what it can train, where to start.

    >>> from optselect import catalogue
    >>> catalogue.names("adam*")
    ('adam', 'adamw', 'adamax')

A package adds its own through an entry point that resolves to an `OptimizerSpec` or a sequence of them:

    [project.entry-points."optselect.optimizers"]
    mine = "my_package.catalogue:SPECS"

`optselect.testing.check_optimizer` checks each fact of a spec by running it.
"""

from optselect.catalogue.registry import ENTRY_POINT_GROUP, CatalogueWarning, get, names, register
from optselect.catalogue.spec import PARTNER_LR_RATIO, OptimizerSpec, StepCost, slots

__all__ = [
    "ENTRY_POINT_GROUP",
    "PARTNER_LR_RATIO",
    "CatalogueWarning",
    "OptimizerSpec",
    "StepCost",
    "get",
    "names",
    "register",
    "slots",
]
