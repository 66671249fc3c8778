"""Terms that learn from unlabelled samples."""
