"""Where the config files are: in a clone beside src/, in an installed wheel inside of the package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CLONE = PACKAGE.parents[1]
IN_CLONE = (CLONE / "conf" / "train.yaml").is_file()
CONF = (CLONE if IN_CLONE else PACKAGE) / "conf"
ROOT = CLONE if IN_CLONE else Path.cwd()  # what `paths.root` is, under which runs and caches go
