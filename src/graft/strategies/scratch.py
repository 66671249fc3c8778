"""Training from random weights: the baseline that says whether transfer helps."""

from graft.strategies.full import Full


class Scratch(Full):
    """Everything trains, from random initialisation."""

    pretrained = False
    needs_pretrained = False

    def __init__(self) -> None:
        super().__init__()
