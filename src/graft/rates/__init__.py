"""Rates: how fast each part trains, one way a file; they compose with every strategy."""
