"""Hydra's hook around each job of a sweep: when it began and ended, and what memory the process holds."""

import json
import time
from pathlib import Path
from typing import Any

import psutil
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class JobLog(Callback):
    """Appends a line of JSON a job to `file`."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the begin of the sweep."""
        self.sweep_began, self.sweep_began_cpu = time.perf_counter(), time.process_time()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the begin of a job."""
        self.began, self.began_cpu = time.perf_counter(), time.process_time()

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Note the job."""
        noted = {
            "folder": config.hydra.runtime.output_dir,
            "sweep_began": self.sweep_began,
            "began": self.began,
            "ended": time.perf_counter(),
            "sweep_began_cpu": self.sweep_began_cpu,
            "began_cpu": self.began_cpu,
            "ended_cpu": time.process_time(),
            "memory_mb": psutil.Process().memory_info().rss / 2**20,
        }
        with self.file.open("a") as file:
            file.write(json.dumps(noted) + "\n")
