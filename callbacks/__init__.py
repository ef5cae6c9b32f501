"""The core as a Lightning callback."""

from optselect.callbacks.auto_optimizer import AutoOptimizer
from optselect.callbacks.workload import LightningWorkload

__all__ = ["AutoOptimizer", "LightningWorkload"]
