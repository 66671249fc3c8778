"""`evaluation=kfold folds=5` as the sweep that it is: a job for each fold of the target's samples."""

import difflib
from collections.abc import Sequence

from graft.errors import GraftError

EVALUATIONS = ("kfold", "repeated", "nested", "leave_one_group_out")
BY_GROUP = "leave_one_group_out"
REPEATING = ("repeated", "nested")  # which may go through all folds several times
FOLDS, REPEATS, MOST = 5, {"repeated": 3, "nested": 1}, 1000
KEY = "data.evaluation"


def written_out(words: Sequence[str]) -> list[str]:
    """The words with `evaluation=kfold folds=5` as the keys that it sets; GraftError for what cannot be meant.

    How many folds `leave_one_group_out` has is in the data, see graft.cli.folds.
    """
    given = {name: word for word in words if (name := word.partition("=")[0]) in ("evaluation", "folds", "repeats")}
    if not given:
        return list(words)
    if "evaluation" not in given:
        word = next(iter(given.values()))
        raise GraftError(f"`{word}` belongs to a cross-validation: evaluation=kfold {word}")
    evaluation = given["evaluation"].partition("=")[2]
    if evaluation not in EVALUATIONS:
        close = difflib.get_close_matches(evaluation, EVALUATIONS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise GraftError(f"`evaluation={evaluation}`: must be {' or '.join(EVALUATIONS)}{hint}")
    keys = {KEY: evaluation}
    if evaluation in REPEATING and ("repeats" in given or REPEATS[evaluation] > 1):
        repeats = number(given.pop("repeats", f"repeats={REPEATS[evaluation]}"), least=1)
        keys["data.split_seed"] = ",".join(map(str, range(repeats)))
    if evaluation != BY_GROUP:
        folds = number(given.pop("folds", f"folds={FOLDS}"), least=2)
        keys |= {"data.folds": str(folds), "data.fold": ",".join(map(str, range(folds)))}
    if left := [word for name, word in given.items() if name != "evaluation"]:
        why = "a fold is a group" if left[0].startswith("folds=") else "evaluation=repeated repeats all folds"
        raise GraftError(f"`{left[0]}` with `evaluation={evaluation}`: {why}; leave it out")
    kept = [word for word in words if word.partition("=")[0] not in ("evaluation", "folds", "repeats")]
    if other := next((word for word in kept if word.partition("=")[0] in {*keys, "data.folds", "data.fold"}), None):
        raise GraftError(f"`{given['evaluation']}` with `{other}`: both set {other.partition('=')[0]}; leave one out")
    if not {"-m", "--multirun"} & {*kept}:
        kept.insert(0, "-m")
    after = next(place for place, word in enumerate(kept, start=1) if word in ("-m", "--multirun"))
    return [*kept[:after], *(f"{key}={value}" for key, value in keys.items()), *kept[after:]]


def number(word: str, least: int) -> int:
    """The number in `folds=5`; GraftError for what is none or out of range."""
    name, _, text = word.partition("=")
    if not text.isdecimal() or not least <= int(text) <= MOST:
        raise GraftError(f"`{word}`: how many, from {least} to {MOST}, such as {name}=5")
    return int(text)
