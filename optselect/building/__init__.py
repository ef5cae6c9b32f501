"""A configuration and a model become parameter groups, and these an optimizer with its scheduler."""
