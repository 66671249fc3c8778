"""Audio: its spec and transform, mel spectrograms, augmentation."""
