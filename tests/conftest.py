"""Settings that every test shares."""

import os

# One thread, set before torch is first imported: tiny tensors gain nothing from more, and the order of a
# reduction, hence its last bits, would depend on how many cores the machine has.
os.environ["OMP_NUM_THREADS"] = "1"

# Explanations are as wide as the terminal, whichever the tests happen to run in.
os.environ["COLUMNS"] = "100"

# Needs an environment of its own, and many seconds a package: make test-packages names the folder.
collect_ignore = ["packages"]
