"""Strategies: which parameters train and when, one a file."""
