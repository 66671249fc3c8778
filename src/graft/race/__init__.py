"""Races: many candidates a little, the better ones longer, the best one whole; plain Python without Hydra or torch."""
