"""What a sweep is about to do, handed to its jobs through the environment: they may run in other processes."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import prod

VARIABLE = "GRAFT_SWEEP_PLAN"


@dataclass(frozen=True)
class SweepPlan:
    """How many jobs a sweep has (None: its sweeper decides as it goes), which keys they vary, and when it began."""

    jobs: int | None
    varied: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)  # seconds since the epoch

    def write(self) -> None:
        """For this process and those that it starts."""
        os.environ[VARIABLE] = json.dumps(asdict(self))

    def label(self, overrides: Sequence[str]) -> str:
        """The overrides by which a job differs from the others, all of them where that is not known."""
        own = [one for one in overrides if one.lstrip("+~").partition("=")[0].partition("@")[0] in self.varied]
        return " ".join(own or overrides)


def read_plan() -> SweepPlan | None:
    """The plan of the sweep that this job belongs to, None outside of one."""
    text = os.environ.get(VARIABLE)
    return SweepPlan(**json.loads(text)) if text else None


def forget_plan() -> None:
    """The sweep is over."""
    os.environ.pop(VARIABLE, None)


def plan_of(overrides: Sequence[str], *, is_grid: bool) -> SweepPlan:
    """The plan of Hydra's overrides, of which those with several values make a grid where the sweeper tries all.

    Of several for one key the last counts, as a sweep that an experiment brings and the command line changes.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    last = {one.get_key_element(): one for one in parsed}
    swept = [one for one in last.values() if one.is_sweep_override()]
    jobs = prod(len(list(one.sweep_string_iterator())) for one in swept) if is_grid else None
    return SweepPlan(jobs, [one.key_or_group for one in swept])
