"""Train, test and record one configuration, or a sweep of them: `python train.py --help` says how."""

import sys

try:
    from graft.cli.main import compose
except ModuleNotFoundError:
    sys.exit("Graft is not installed in this Python. Run `make setup` once, then use .venv/bin/python train.py ...")


def main() -> int:
    """Answer --help, or give the job to Hydra; returns the exit code."""
    return compose(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
