"""A SLURM of one machine for tests: sbatch, srun, sacct and scontrol as submitit calls them, with real processes.

`put_on_path` makes commands of these names, which run this file. The state is in files of one folder.
"""

import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

STATE = "FAKE_SLURM"  # the environment's name for the folder


def put_on_path(folder: Path, environment: dict[str, str]) -> None:
    """Let a process with this environment find the commands."""
    (folder / "bin").mkdir(parents=True)
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        file = folder / "bin" / name
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S {shlex.quote(__file__)} {name} "$@"\n')
        file.chmod(0o755)
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{environment['PATH']}"
    environment[STATE] = str(folder)


def options(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, flags=re.MULTILINE))


def sbatch(state: Path, file: str) -> None:
    """Begin an array of jobs, or one, in the background."""
    number = 7000 + 100 * len(list(state.glob("*.script")))
    (state / f"{number}.script").write_text(Path(file).read_text())
    subprocess.Popen(
        [sys.executable, "-S", __file__, "array", str(number)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(state / "errors").open("a"),
    )
    print(f"Submitted batch job {number}")


def array(state: Path, number: str) -> None:
    """Run all jobs of a script, as many at a time as it says."""
    first, last, at_a_time = (0, -1, 1)
    if found := re.fullmatch(r"(\d+)-(\d+)%(\d+)", options((state / f"{number}.script").read_text()).get("array", "")):
        first, last, at_a_time = map(int, found.groups())
    tasks = [str(task) for task in range(first, last + 1)] or [""]
    for task in tasks:
        (state / f"{number}_{task}.state").write_text("PENDING")
    with ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(lambda task: run(state, number, task), tasks))


def run(state: Path, number: str, task: str) -> None:
    """One job, again for as long as it asks for it."""
    script = state / f"{number}.script"
    per_node = options(script.read_text()).get("ntasks-per-node", "1")
    environment = {
        **os.environ,
        **{"SLURM_JOB_ID": str(int(number) + int(task or 0)), "SLURM_JOB_NAME": "fake", "SLURM_JOB_NUM_NODES": "1"},
        **{"SLURM_NTASKS": per_node, "SLURM_NTASKS_PER_NODE": per_node, "SLURM_NNODES": "1"},
        **{"SLURM_JOB_NODELIST": "127.0.0.1", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0"},
        **({"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task} if task else {}),
    }
    own, again = state / f"{number}_{task}.state", state / f"{number}_{task}.requeue"
    while True:
        own.write_text("RUNNING")
        code = subprocess.run(["bash", str(script)], env=environment, check=False).returncode
        if not again.exists():
            break
        again.unlink()
    own.write_text("FAILED" if code else "COMPLETED")


def srun(state: Path, *words: str) -> int:
    """The processes of a job's step; the worst exit code."""
    given = list(words)
    files = {}
    while given[0].startswith("--"):
        name = given.pop(0)
        if name != "--unbuffered":
            files[name] = given.pop(0)
    processes = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        own = {"SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        names = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID"}
        streams = []
        for name in ("--output", "--error"):
            text = files[name].replace("%t", str(rank))
            for sign, variable in names.items():
                text = text.replace(sign, os.environ.get(variable, ""))
            streams.append(open(text, "a"))  # noqa: SIM115
        processes.append(subprocess.Popen(given, env={**os.environ, **own}, stdout=streams[0], stderr=streams[1]))
    return max(abs(one.wait()) for one in processes)


def sacct(state: Path, *words: str) -> None:
    print("JobID|State|NodeList")
    for file in state.glob("*.state"):
        print(f"{file.stem.rstrip('_')}|{file.read_text()}|127.0.0.1")


def scontrol(state: Path, verb: str, job: str) -> None:
    assert verb == "requeue"
    (state / f"{job if '_' in job else job + '_'}.requeue").touch()


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](Path(os.environ[STATE]), *sys.argv[2:]))
