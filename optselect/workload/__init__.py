"""A training that can be borrowed for trials and comes back as it was."""
