"""What is deployed: a run's `model/` folder, which predicts without data, Hydra or the run's environment."""
