"""From features to predictions; one head a file."""
