"""What a trained network does with its data, looked at after the run: neighbours, features, change, attribution."""
