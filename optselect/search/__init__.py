"""Which trial comes next, how it is run, and what is chosen in the end."""
