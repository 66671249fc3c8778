"""Regularizers: weights or features against their pretrained value."""
