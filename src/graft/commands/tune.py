"""Look for a learning rate, train nothing."""

import time
from collections.abc import Mapping
from typing import Any

from graft.experiment import assemble
from graft.report import tables
from graft.run import pretrained
from graft.runs import describe, record
from graft.runs.context import run_context
from graft.runs.folder import in_own_folder
from graft.training.lightning import is_rank_zero
from graft.training.tuning import resolve_auto


@in_own_folder
def tune(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run the range test of an experiment and return results without metric and score; `lr_find.*` hold the curve."""
    started, context = time.perf_counter(), run_context()
    experiment = assemble(config, share_data=context.sweep is not None)
    pretrained(experiment, context)
    results = describe.of_setup(experiment, context, resolve_auto(experiment, look=True))
    results |= {"status": record.FINISHED, "metrics": {}, "time": {"total_s": time.perf_counter() - started}}
    if is_rank_zero():
        record.write(results, experiment.folder)
        tables.print_setup(results)
        tables.print_suggestions(results, experiment.folder)
    return results
