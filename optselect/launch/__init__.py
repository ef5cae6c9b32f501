"""Starting the workers of one search, and stopping them together."""
