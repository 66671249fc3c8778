"""A SLURM job that is about to be ended puts itself back into the queue: `sbatch --signal=USR1@120`, `resume=auto`."""

import os
import signal
import subprocess
import sys

from graft.errors import first_line


def requeue(signum: int) -> None:
    """After SIGUSR1 in a SLURM job, ask SLURM to run the job again, and say what came of it."""
    if signum != getattr(signal, "SIGUSR1", None) or not (job := job_id()):
        return
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        error = first_line(done.stderr or f"exit code {done.returncode}") if done.returncode else ""
    except OSError as failed:
        error = first_line(failed)
    outcome = f"could not be requeued ({' '.join(command)}: {error})" if error else "is requeued and goes on then"
    print(f"SLURM job {job} {outcome}.", file=sys.stderr)


def job_id() -> str:
    """This job's as scontrol takes it; empty outside of SLURM."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
