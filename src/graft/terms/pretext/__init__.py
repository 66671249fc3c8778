"""Terms that learn from inputs alone, without telling samples from each other; one a file."""
