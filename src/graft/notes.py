"""Lines that a process prints once."""

import functools

from pytorch_lightning.utilities.rank_zero import rank_zero_only


@functools.cache
@rank_zero_only
def say_once(line: str) -> None:
    """Print a line, unless this process has printed it already."""
    print(line, flush=True)
