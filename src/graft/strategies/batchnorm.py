"""`strategy.train_bn=auto`: whether a pretrained network's BatchNorm trains, by how long and on what a run trains.

With few steps, BatchNorm that stays as it was pretrained was better on every data set tried: docs/strategies.md has the
figures.
"""

FEW_STEPS = 1000  # that train; 950 is the longest run that was measured


def trains_batchnorm(steps: int, pretrained: bool, several_domains: bool) -> bool | None:
    """False: it stays as pretrained. None: it trains with its stage.

    A new network needs its statistics, and where two domains train they are how each comes to its own.
    """
    keeps = pretrained and not several_domains and steps <= FEW_STEPS
    return False if keeps else None
