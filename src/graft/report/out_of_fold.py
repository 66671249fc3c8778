"""A cross-validation's predictions in one file: every sample once a repeat, by a model that did not see it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from graft.files import written_whole
from graft.model.predictions import CLASSES
from graft.report.cross_validation import configuration, out_of_fold
from graft.report.study import Study
from graft.runs.folder import PREDICTIONS, SweepFolder

if TYPE_CHECKING:
    import pyarrow


def write(study: Study, folder: Path) -> Path | None:
    """Write the predictions of all jobs of which no fold is missing into the sweep's folder; None without any.

    A run's columns, and before them the configuration, whether the page's score is of it, repeat, fold and seed. Data
    sets of different classes make no file.
    """
    from pyarrow import concat_tables, parquet

    tables = [*of_jobs(study)]
    classes = {json.dumps(json.loads(table.schema.metadata[CLASSES.encode()]).get("target")) for table in tables}
    if len(classes) != 1:
        return None
    file = folder / PREDICTIONS
    with (owner := SweepFolder(folder)).owned(adopt=True):
        owner.add([PREDICTIONS])
        with written_whole(file) as opened:
            parquet.write_table(concat_tables(tables, promote_options="permissive"), opened, compression="zstd")
    return file


def of_jobs(study: Study) -> Iterator["pyarrow.Table"]:
    """The table of each job whose predictions were kept."""
    import pyarrow
    from pyarrow import compute, parquet

    scored = {job.folder for setting in study.settings for job in (setting.procedure or setting.arms[0]).best.jobs}
    for row in study.rows:
        name = configuration(row, study.varied)
        for job in (job for jobs in out_of_fold(row) for job in jobs if (job.path / PREDICTIONS).is_file()):
            assert job.results is not None
            table = parquet.read_table(job.path / PREDICTIONS)
            table = table.filter(compute.equal(table["domain"], "target"))
            seeds, rows = job.results["seeds"], len(table)
            columns = {
                "configuration": pyarrow.array([name] * rows, pyarrow.string()),
                "scored": pyarrow.array([job.folder in scored] * rows),
                "repeat": pyarrow.array([seeds["split"]] * rows, pyarrow.int64()),
                "fold": pyarrow.array([job.results["evaluation"]["fold"]] * rows, pyarrow.int64()),
                "seed": pyarrow.array([seeds["train"]] * rows, pyarrow.int64()),
            }
            for place, (column, values) in enumerate(columns.items()):
                table = table.add_column(place, column, values)
            yield table
