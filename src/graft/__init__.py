"""Graft: transfer learning experiments with PyTorch Lightning and Hydra."""
