"""Weights as tensors: loaded from files, averaged, interpolated."""
