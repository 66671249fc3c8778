"""Which checkpoint is tested; one rule a file."""
