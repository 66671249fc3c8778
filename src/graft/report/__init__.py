"""What a run shows people: tables before and after, pictures in the run folder."""
