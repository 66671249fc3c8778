"""No choice among a sweep's jobs: the predictions of all of them are averaged."""

from graft.selection.last import Last


class Ensemble(Last):
    """The last epoch's weights in each job; the sweep's summary averages the jobs' test predictions, seed by seed."""

    name = "ensemble"
