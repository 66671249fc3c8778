"""What predicting costs: latency, memory and size of runs and exported files, side by side with their scores."""
