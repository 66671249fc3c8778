"""The head of a finished run, for another run that begins with it."""

from pathlib import Path

from torch import nn

from graft.errors import GraftError
from graft.model import folder as folders
from graft.model.place import folder_of

PREFIX = "head."  # of the head's names in a model's weights


def load_head(head: nn.Module, run: str, classes: tuple[str, ...] | None) -> None:
    """Put the weights of a finished run's head into a head for the same `classes`.

    Raises GraftError for a run without a model, of other classes, or with another head.
    """
    folder = folder_of(Path(run))
    description = folders.read(folder)
    learned = None if description.classes is None else tuple(description.classes)
    if learned != classes:
        raise GraftError(
            f"head.weights={run}: that head tells {learned} apart, but the target has {classes}. The names of the "
            "classes and their order must agree: give a run on the same classes, or head.weights=null."
        )
    weights = folders.read_weights(folder / folders.WEIGHTS)
    try:
        head.load_state_dict({name.removeprefix(PREFIX): w for name, w in weights.items() if name.startswith(PREFIX)})
    except RuntimeError:
        keys = " ".join(f"head.{key}={value}" for key, value in description.head.items())
        raise GraftError(
            f"head.weights={run}: that run's head is another one, {keys}. Choose the same head and backbone, or "
            "head.weights=null."
        ) from None
