"""What each parameter of a model is for: its kind, role, depth and place."""
