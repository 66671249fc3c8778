"""Training from random weights for as many floating-point operations as transfer takes with its pretraining."""

from graft.strategies.scratch import Scratch


class ScratchMatched(Scratch):
    """Everything trains, from random initialisation, in as many but longer epochs (`data.epoch`).

    So that validation chooses among as many checkpoints as it does for transfer.
    """

    matches_flops = True
