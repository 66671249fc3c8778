"""Linear probing to convergence: the head is the solution of a convex problem, and its L2 penalty is chosen."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from annotated_types import MinLen

from graft.config.types import Positive
from graft.strategies.frozen import Frozen

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


class Probe(Frozen):
    """Only a linear head learns, at every penalty at once and to the end; the selection rule's metric chooses one.

    There is no rate, schedule, batch or seed that the result depends on. See graft.probe.solver for what is minimised.
    """

    closed_fit = True

    def __init__(self, penalties: Annotated[Sequence[Positive], MinLen(1)] = PENALTIES) -> None:
        super().__init__(train_bn=None)
        self.penalties = sorted(map(float, penalties), reverse=True)

    def settings(self, samples: int, image_side: Callable[[], int | None]) -> dict[str, Any]:
        """One pass over the samples as they are."""
        return {"training.epochs": 1, "data.augment": "none"}
