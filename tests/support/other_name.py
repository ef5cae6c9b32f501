"""`lightning` is `pytorch_lightning`: what a test imports from the one comes from the other.

A pytest plugin, `-p tests.support.other_name`, so that files of laws that are written for `lightning` say the same of
a trainer and modules of `pytorch_lightning`. The real `lightning` is out of reach then.
"""

from __future__ import annotations

import importlib
import sys
import types

# What tests import beside the modules that the package itself loads.
_LATE = ("cli", "tuner.tuning", "utilities.combined_loader")

PACKAGES = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}

for name in PACKAGES.values():
    importlib.import_module(name)
for name in _LATE:
    importlib.import_module(f"pytorch_lightning.{name}")

alias = types.ModuleType("lightning")
alias.__path__ = []
vars(alias).update({name: value for name, value in vars(sys.modules["pytorch_lightning"]).items() if name[:2] != "__"})
sys.modules["lightning"] = alias
for shown, real in PACKAGES.items():
    setattr(alias, shown.rpartition(".")[2], sys.modules[real])
    for name in [name for name in sys.modules if name == real or name.startswith(f"{real}.")]:
        sys.modules[shown + name.removeprefix(real)] = sys.modules[name]
