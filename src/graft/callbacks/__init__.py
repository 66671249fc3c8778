"""What Graft hooks into the Trainer: one bar, a clean Ctrl-C, and the cost of a fit."""
