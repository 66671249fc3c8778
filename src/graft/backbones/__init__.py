"""Backbones: networks that turn images into features `(B, D)`, with their stages and pretrained weights."""
