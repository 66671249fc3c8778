"""Train, test and record one configuration, or a sweep of them: `python train.py --help` says how."""

import sys
from pathlib import Path

try:
    from graft.cli import help as cli
except ModuleNotFoundError:
    sys.exit("Graft is not installed in this Python. Run `make setup` once, then use .venv/bin/python train.py ...")

CONF = Path(__file__).resolve().parent / "conf"


def main() -> int:
    """Answer --help from the config files, or give the job to Hydra; returns the exit code."""
    if cli.asks_for_help(sys.argv[1:]):
        return cli.show_help(sys.argv[1:], CONF)

    import hydra

    from graft.cli.hydra_versions import MAIN
    from graft.cli.job import run_job

    app = hydra.main(**MAIN, config_path=str(CONF), config_name="train")(run_job)
    return cli.launch(app, CONF)


if __name__ == "__main__":
    sys.exit(main())
