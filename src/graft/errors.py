"""What Graft raises on purpose."""


class GraftError(Exception):
    """A user's mistake; the message is whole: the key or file, the value, what is allowed and the next command."""


class FolderRefused(GraftError):
    """A folder that is not Graft's to write to, or in which another process works; nothing in it was changed."""


class LaunchRefused(BaseException):
    """A command that does not begin. No Exception: Hydra makes a warning of those that its callbacks raise."""


class Diverged(Exception):
    """Training met values that are not finite and stopped; the message is whole: what, where, and what to do."""


class Interrupted(Exception):
    """Training was stopped with Ctrl-C after saving what was reached; the message names the checkpoint."""
