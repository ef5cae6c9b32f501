"""Check on one CUDA device what the tests check on CPUs: `make gpu-check`, a line for each check.

Ends with 0 when all hold, 1 when one does not, and 3 where there is no CUDA device and so nothing was checked.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping

import torch

from tests.gpu.checks import CHECKS, Differs, Place, in_a_folder

NOTHING_CHECKED = 3


def run(device: str, checks: Mapping[str, Callable[[Place], str]] = CHECKS) -> int:
    """Run the checks on `device` and print a line for each; return 1 when one does not hold."""
    wrong = 0
    for name, check in checks.items():
        begun = time.monotonic()
        try:
            said, holds = in_a_folder(check, device), True
        except Differs as error:
            said, holds = str(error), False
        except Exception:  # noqa: BLE001  # whatever it is, the other checks are still to be run
            said, holds = traceback.format_exc(), False
        wrong += not holds
        print(f"{'ok    ' if holds else 'WRONG '} {name} ({time.monotonic() - begun:.0f} s): {said}", flush=True)
    print(f"{len(checks) - wrong} of {len(checks)} hold on {device}")
    return int(wrong > 0)


def main() -> int:
    """Run all checks on the CUDA device, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(CHECKS)}; none: all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: the same functions without one")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in CHECKS]:
        parser.error(f"no check is called {unknown[0]!r}; there are: {', '.join(CHECKS)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: nothing was checked")
        return NOTHING_CHECKED
    # Or else cuBLAS adds up in an order of its own each time; read when the device is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if arguments.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    return run(arguments.device, {name: CHECKS[name] for name in arguments.names or CHECKS})


if __name__ == "__main__":
    sys.exit(main())
