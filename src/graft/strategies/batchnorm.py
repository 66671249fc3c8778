"""`strategy.train_bn=auto`: whether a pretrained network's BatchNorm trains, by how long and on what a run trains.

With few steps, BatchNorm that stays as it was pretrained was better on every data set tried: docs/strategies.md has the
figures.
"""

FEW_STEPS = 1000  # that train; 950 is the longest run that was measured


def trains_batchnorm(steps: int, *, pretrained: bool, plain: bool) -> bool | None:
    """False: it stays as pretrained. None: it trains with its stage.

    A new network needs its statistics. `plain` is training on the target's labels alone: where the source trains,
    labels are missing, clients are averaged or a term works on BatchNorm, nothing was compared.
    """
    return False if pretrained and plain and steps <= FEW_STEPS else None
