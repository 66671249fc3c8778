"""Images: their spec and transform, geometry, augmentation, decoding."""
