"""`metrics.csv` in the run folder."""

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from graft.files import write_whole


class MetricsFile(Logger):
    """`metrics.csv` in the run folder: a row each time something is logged, columns `epoch`, `step` and metric names.

    Lightning's CSVLogger deletes what an earlier part of a resumed run wrote. Here a run that goes on, or starts again
    in its folder, only replaces the rows from its first step on.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._file: TextIO | None = None
        self._columns: list[str] = ["epoch", "step"]

    @property
    def name(self) -> str:
        """Needed by Lightning; the folder says it all."""
        return ""

    @property
    def version(self) -> str:
        """Needed by Lightning; the folder says it all."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has its config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        row = {**metrics, "step": step or 0}
        if self._file is None:
            self._write(self._rows_to_keep(row), row)
        elif not row.keys() <= set(self._columns):
            self._file.close()
            self._write(self._read(), row)
        assert self._file is not None  # `_write` has opened it
        csv.DictWriter(self._file, self._columns).writerow(row)

    @rank_zero_only
    def save(self) -> None:
        """Hand buffered rows to the system; Lightning calls this after each row."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Close the file; a later row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rows_to_keep(self, row: Mapping[str, Any]) -> list[dict[str, str]]:
        # A test comes after training whatever its step says: it replaces an earlier test and nothing else.
        testing = any(key.startswith("test/") for key in row)
        rows = self._read() if self.path.exists() else []
        return [old for old in rows if (not _is_test(old) if testing else int(old["step"]) < row["step"])]

    def _read(self) -> list[dict[str, str]]:
        with self.path.open(newline="", errors="replace") as file:
            reader = csv.DictReader(line.replace("\0", "") for line in file)
            rows: list[dict[str, str]] = []
            with suppress(csv.Error):  # of bytes that are no table, which a machine may leave as well
                rows.extend(row for row in reader if is_whole(row))
        return rows

    def _write(self, rows: Sequence[Mapping[str, Any]], coming: Mapping[str, Any]) -> None:
        columns = dict.fromkeys(["epoch", "step"])
        for row in (*rows[:1], coming):
            columns |= dict.fromkeys(row)
        self._columns = list(columns)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, text.getvalue())
        self._file = self.path.open("a", newline="")


def is_whole(row: Mapping[Any, Any]) -> bool:
    """Whether a row was written to its end; a machine that stops may leave half of the last one."""
    return None not in row and None not in row.values() and str(row.get("step", "")).isdigit()


def _is_test(row: Mapping[str, str]) -> bool:
    return any(key.startswith("test/") and value for key, value in row.items())
