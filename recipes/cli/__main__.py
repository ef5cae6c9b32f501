"""`python -m optselect.recipes.cli`, where the command `optselect` is not on the path."""

import sys

from optselect.recipes.cli.commands import main

sys.exit(main())
