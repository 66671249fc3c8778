"""Small work in threads: handing over a single small piece takes longer than doing it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parts(
    pool: ThreadPoolExecutor, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], together: int
) -> list[Result]:
    """What `work` makes of the items, of which a thread gets so many `together`, in their order."""
    parts = (items[start : start + together] for start in range(0, len(items), together))
    return [one for part in pool.map(work, parts) for one in part]
