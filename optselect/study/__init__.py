"""The trials of one search, kept so that a killed search goes on."""
