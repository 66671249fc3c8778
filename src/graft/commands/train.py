"""Train, test and record one configuration, or with -m a sweep of them."""

from graft.run import train

__all__ = ["train"]
