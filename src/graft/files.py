"""Files and folders as a user names them."""

import os
from pathlib import Path


def user_path(name: str | Path) -> Path:
    """A path with `~` for the home folder; the name of a user that does not exist stays as it is written."""
    return Path(os.path.expanduser(name))
