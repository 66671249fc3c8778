"""Small work in threads: handing over a single small piece takes longer than doing it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parts(
    pool: ThreadPoolExecutor, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], together: int
) -> list[Result]:
    """What `work` makes of the items, of which a thread gets so many `together`, in their order."""
    parts = (items[start : start + together] for start in range(0, len(items), together))
    return [one for part in pool.map(work, parts) for one in part]


@contextmanager
def one_thread() -> Iterator[None]:
    """What torch computes inside, this thread does alone: small pieces wait for others longer than they take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
