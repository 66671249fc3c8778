"""Folders of runs and sweeps: the names of their files, whose they are, and who works in them."""
