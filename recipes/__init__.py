"""What one runs: the command line, and small complete trainings to copy."""
