"""What anybody would try first on data of a modality."""
