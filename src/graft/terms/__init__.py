"""Terms: additions to the objective, one a file."""
