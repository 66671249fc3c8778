"""What the keys that a sweep varies are for: repeats, tuned keys, settings, and arms, which are all others."""

REPEATS = ("seed", "data.split_seed", "data.fold")
TUNED = ("optimizer", "scheduler", "rates", "training", "strategy.", "data.batch_size", "data.augment")
SETTINGS = ("experiment", "data", "task", "backbone")
WEIGHTS = "backbone.weights"  # a part of the backbone that is an arm: null is training from scratch


def role(key: str) -> str:
    """tuned, setting or arm: what a varied key that repeats nothing is for."""
    if key.startswith(TUNED):
        return "tuned"
    return "setting" if key.startswith(SETTINGS) and key != WEIGHTS else "arm"
