"""Terms that tell samples from each other; one a file."""
