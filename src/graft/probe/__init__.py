"""The linear probe: fitted on frozen features to convergence, at all penalties at once."""
