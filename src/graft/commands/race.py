"""Choose strategy, rate and more on validation inside of a budget, and test the winner once.

`graft race experiment=... [budget=0.4 | budget_s=600] [space=<a name in conf/race or a yaml>]`; lists of values in the
command are raced too: `strategy=frozen,full optimizer.lr=1e-4,1e-3`.
"""

from graft.cli.race import run

__all__ = ["run"]
