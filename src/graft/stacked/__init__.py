"""Jobs of a sweep that train a head on the same frozen features, trained as one: `hydra/launcher=stacked`."""
