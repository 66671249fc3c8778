"""The head of a finished run, for another run that begins with it, on the same classes or on more."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from graft.errors import GraftError
from graft.heads.base import takes_local
from graft.heads.class_names import ClassNamesHead
from graft.model import folder as folders
from graft.model.folder import Description
from graft.model.place import folder_of
from graft.registry import TARGET

PREFIX = "head."  # of the head's names in a model's weights


@dataclass(frozen=True)
class LearnedHead:
    """A finished run's head: its classes, and its weights by their names in it."""

    run: str  # as `head.weights` names it
    description: Description
    weights: Mapping[str, Tensor]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Those that it tells apart; None where it predicts numbers."""
        return None if self.description.classes is None else tuple(self.description.classes)

    def fill(self, head: nn.Module, classes: tuple[str, ...] | None) -> None:
        """Put the weights into a head for the same `classes`; of others where it knows them by their names.

        GraftError for other classes else, and for a head of another kind.
        """
        if isinstance(head, ClassNamesHead) and not (self.classes == classes and self._has_all_of(head)):
            with self._same_kind():
                head.load_state_dict(head.with_learned(self.weights))
            return
        if self.classes != classes:
            raise GraftError(
                f"head.weights={self.run}: that head tells {self.classes} apart, but the target has {classes}. The "
                "names of the classes and their order must agree: give a run on the same classes, head.grow=true to "
                "add the target's classes to that run's, or head.weights=null."
            )
        with self._same_kind():
            head.load_state_dict(self.weights)

    def fill_rows(self, head: nn.Module) -> None:
        """Put the weights into a head with more outputs, of which the first ones become this head's.

        What has one row for each output keeps the further rows that the head was made with. Raises GraftError for a
        head of another kind.
        """
        rows, tensors = len(self.description.classes or ()), dict(self.weights)
        for name, own in head.state_dict().items():
            old = self.weights.get(name)
            if old is not None and old.ndim and len(old) == rows < len(own) and old.shape[1:] == own.shape[1:]:
                tensors[name] = own.clone()
                tensors[name][:rows] = old
        with self._same_kind():
            head.load_state_dict(tensors)

    def check_can_grow(self, settings: Mapping[str, Any], task: Mapping[str, Any]) -> None:
        """Raise GraftError where the head of `settings`, for a `task`, cannot begin with this one's rows."""
        key, own = f"head.grow=true with head.weights={self.run}", self.description
        if own.task[TARGET] != task[TARGET] or not self.classes:
            raise GraftError(
                f"{key}: that run's task is {word(own.task)}, and this one's {word(task)}. Only a run of "
                "task=multiclass has a head that grows: give another run, or head.grow=false head.weights=null."
            )
        if own.head[TARGET] != settings[TARGET]:
            raise GraftError(
                f"{key}: that run's head is a {word(own.head)}, and this one's a {word(settings)}. Choose the same "
                "head, or head.grow=false head.weights=null."
            )
        if own.strategy is not None:
            raise GraftError(
                f"{key}: that run's backbone has parts which strategy={own.strategy[TARGET].split('.')[-2]} added and "
                "which this one's lacks. Give a run of a strategy that adds none or merges them: full, frozen, lora."
            )
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise GraftError(f"{key}: that run has two classes {twice[0]!r}, of which one name can mean either.")

    def _has_all_of(self, head: nn.Module) -> bool:
        return self.weights.keys() == head.state_dict().keys()

    @contextmanager
    def _same_kind(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            keys = " ".join(f"head.{key}={value}" for key, value in self.description.head.items())
            raise GraftError(
                f"head.weights={self.run}: that run's head is another one, {keys}. Choose the same head and backbone, "
                "or head.weights=null."
            ) from None


def read_head(run: str) -> LearnedHead:
    """The head of a run's folder; GraftError where no model is kept there."""
    folder = folder_of(Path(run))
    weights = folders.read_weights(folder / folders.WEIGHTS)
    own = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    return LearnedHead(run, folders.read(folder), own)


class FirstOutputs(nn.Module):
    """The first `count` outputs `(B, count)` of a head: of one that has grown, the head that it was."""

    def __init__(self, head: nn.Module, count: int) -> None:
        super().__init__()
        self.head = head
        self.count = count
        self.takes = "local" if takes_local(head) else "features"

    def forward(self, seen: Any) -> Tensor:
        """Logits of the first classes."""
        return self.head(seen)[:, : self.count]


def word(settings: Mapping[str, Any]) -> str:
    """The class that a part's settings name, without its module."""
    return str(settings[TARGET]).rpartition(".")[2]
