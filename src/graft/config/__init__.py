"""The check of a composed config: what keys may hold, and what they cannot be meant together with."""

from graft.config.check import check, plain, written
from graft.config.text import leaves, shown, suggestion

__all__ = ["check", "leaves", "plain", "shown", "suggestion", "written"]
