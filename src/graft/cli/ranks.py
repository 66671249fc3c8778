"""The processes that torchrun or srun started for one run: the first decides about folder and resume, all follow.

Each composes the config by itself, so that each would name a folder of its own. They meet at MASTER_ADDR:MASTER_PORT,
where they train together later: this needs no shared disk, and nothing of an earlier launch is left there. Processes
that Lightning starts itself come later and get the folder in their command line.
"""

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from graft.errors import GraftError, first_line

if TYPE_CHECKING:
    from torch.distributed import TCPStore

LIMIT = timedelta(minutes=10)  # for the first process to decide
END_S = 60.0  # for the others to hear that there is nothing to do, where the first one's end closes the store
NO_SRUN = ("bash", "interactive")  # names of SLURM jobs in which Lightning sees no srun


class Ranks:
    """This process among those of its launch, and what was decided; alone where nothing launched it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.launcher, self.rank, self.size = "", 0, 1
        names = {"torchrun": ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE")}
        if environment.get("SLURM_JOB_NAME") not in NO_SRUN:  # a batch script without srun has no step
            names["srun"] = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS")
        for launcher, needed in names.items():
            if all(name in environment for name in needed):
                self.launcher, self.rank, self.size = launcher, *(int(environment[name]) for name in needed[1:])
                break
        per_node = environment.get("SLURM_NTASKS_PER_NODE", "") if self.launcher == "srun" else ""
        self.per_node = int(per_node) if per_node.isdigit() else 0  # 0: it does not matter, or is not known
        attempt = environment.get("TORCHELASTIC_RESTART_COUNT", environment.get("SLURM_STEP_ID", ""))
        self.key = f"graft/{environment.get('SLURM_JOB_ID', '')}/{attempt}"
        self.hosts = self.rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        self.decided: dict[str, Any] | None = None
        self._store: TCPStore | None = None  # kept: the process group meets at the same one

    def check(self, trainer: Mapping[str, Any]) -> None:
        """GraftError where Lightning would not train with the processes that were started."""
        if self.launcher == "srun" and self.size > 1 and not self.per_node:
            raise GraftError(
                f"srun started {self.size} processes by --ntasks, from which Lightning cannot tell how many a machine "
                "has. Give srun or sbatch --nodes=<machines> --ntasks-per-node=<processes on each> instead."
            )
        devices, nodes = trainer["devices"], trainer["num_nodes"]
        number = len(devices) if isinstance(devices, list) else devices
        if not self.launcher or not isinstance(number, int) or number < 1:
            return
        if number * nodes != self.size or self.per_node not in (0, number):
            each = f", {self.per_node} on each machine" if self.per_node else ""
            raise GraftError(
                f"`trainer.devices={devices}` times `trainer.num_nodes={nodes}` is {number * nodes}, but the processes "
                f"that {self.launcher} started are {self.size}{each}. Choose trainer=ddp (for one process cpu or gpu), "
                "trainer.devices=<processes on each machine> and trainer.num_nodes=<machines>."
            )

    def decide(self, **decision: Any) -> None:
        """In the first process: give the others `folder` and `resume` of the run, or the `exit_code` to end with.

        GraftError where the processes cannot meet.
        """
        if self.size == 1 or self.rank or self.decided:
            return
        self.decided = decision
        try:
            store = self._connected()
            store.set(self.key, json.dumps(decision))
        except RuntimeError as error:  # torch's errors of its store
            raise GraftError(
                f"The processes that {self.launcher} started cannot meet: {first_line(error)}. Choose another port in "
                "the environment: MASTER_PORT=<port>"
            ) from None
        if "exit_code" in decision and self.hosts:
            deadline = time.monotonic() + END_S
            while store.add(f"{self.key}/heard", 0) < self.size - 1 and time.monotonic() < deadline:
                time.sleep(0.05)

    def follow(self) -> dict[str, Any]:
        """What the first process decided, for the others; the end where it says nothing, which is printed."""
        if self.decided is None:
            try:
                store = self._connected()
                self.decided = json.loads(store.get(self.key))
                store.add(f"{self.key}/heard", 1)
            except RuntimeError as error:
                self.decided = {"exit_code": 1}
                print(
                    f"Process {self.rank} of {self.size} heard nothing from the first one: {first_line(error)}. "
                    f"Did one {self.launcher} start them all?",
                    file=sys.stderr,
                )
        return self.decided

    def end(self, code: int) -> int:
        """The exit code of this process: its own, or the first one's where that did not let the run begin."""
        if self.size == 1:
            return code
        if self.rank == 0:
            with suppress(GraftError):
                self.decide(exit_code=code)
            return code
        return self.follow().get("exit_code", code)

    def _connected(self) -> "TCPStore":
        if self._store is None:
            from torch.distributed import TCPStore

            address, port = meeting_place()
            self._store = TCPStore(
                address, port, is_master=self.hosts, timeout=LIMIT, wait_for_workers=False, multi_tenant=True
            )
        return self._store


def meeting_place() -> tuple[str, int]:
    """Where the processes meet: as torchrun says, under srun as Lightning's SLURMEnvironment does, which is slow to
    import.
    """
    nodes = os.environ.get("SLURM_NODELIST", "127.0.0.1")
    first = re.split("[, ]", re.sub(r"\[([^],-]*)[^]]*\]", r"\1", nodes))[0]
    port = int(os.environ.get("SLURM_JOB_ID", "0")[-4:]) + 15000
    return os.environ.setdefault("MASTER_ADDR", first), int(os.environ.setdefault("MASTER_PORT", str(port)))


RANKS = Ranks(os.environ)
