"""Inputs of each modality: what a backbone wants to see, and the transform that makes it so."""
