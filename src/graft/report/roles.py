"""What the keys that a sweep varies are for: repeats, tuned keys, settings, or what is compared."""

REPEATS = ("seed", "data.split_seed")
TUNED = ("optimizer", "scheduler", "rates", "training", "strategy.", "data.batch_size", "data.augment")
SETTINGS = ("experiment", "data", "task", "backbone")
WEIGHTS = "backbone.weights"  # a part of the backbone that is an arm: null is training from scratch


def role(key: str) -> str:
    """tuned, setting or arm: what a varied key is for."""
    if key.startswith(TUNED):
        return "tuned"
    return "setting" if key.startswith(SETTINGS) and key != WEIGHTS else "arm"
