"""A page on this machine alone that predicts with a run's model: see graft.commands.serve."""
