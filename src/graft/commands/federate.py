"""Train with clients on other machines: `graft federate server ...` and, at each, `graft federate client ...`."""

from graft.run import train

__all__ = ["train"]
