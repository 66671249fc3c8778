"""What a tower is: texts to vectors of one size, which learn with a head or stay as they are."""

from collections.abc import Sequence

from torch import Tensor, nn


class Tower(nn.Module):
    """Texts to vectors `(N, size)`.

    A tower that learns is part of the head that it belongs to. One that does not is only asked once, for the vectors
    of the classes, so that a kept model has these and not the tower; it opens nothing before it is asked.
    """

    learns = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, texts: Sequence[str]) -> Tensor:
        """A vector for each text."""
        raise NotImplementedError

    def learned_scale(self) -> float | None:
        """What similarities were multiplied by where the tower learned with another one; None where it did not."""
        return None
