"""Written texts on a run's page: beside those that were to be written, the nearest and the farthest ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from graft.report.page import Section
from graft.report.samples import Sample, content_of

SHOWN = 6  # of the nearest texts, of those in the middle and of the farthest


def are_in(found: Mapping[str, Any]) -> bool:
    """Whether test predictions, as `model.predictions.read` gives them, are texts and no classes."""
    return found["classes"] is None and bool(found["label"]) and isinstance(found["label"][0], str)


def section(found: Mapping[str, Any], *, content: bool, contents: Mapping[str, Mapping[str, str]]) -> Section:
    """Texts from the nearest to the farthest, with what they are of where `content` says that it may be shown."""
    scores = [overlap(*pair) for pair in zip(found["label"], found["prediction"], strict=True)]
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    middle = max(0, len(order) // 2 - SHOWN // 2)
    rows = dict.fromkeys([*order[:SHOWN], *order[middle : middle + SHOWN], *order[-SHOWN:]])
    shown = []
    for row in rows:
        known: dict[str, Any] = dict(contents.get(str(row)) or content_of(found["sample"][row])) if content else {}
        label, text = (found["label"][row], found["prediction"][row]) if content else ("a text", "a text")
        shown.append(Sample(found["sample"][row], label, text, f"common words {scores[row]:.2f}", **known))
    line = (
        f"Of {len(scores):,} test texts the nearest, those in the middle and the farthest, by the F1 of the words that "
        "are in both."
    )
    return Section("Written texts", samples=shown, lines=[line])


def overlap(label: str, text: str) -> float:
    """F1 `[0, 1]` of the words of two texts, as sets."""
    left, right = words(label), words(text)
    return 2 * len(left & right) / (len(left) + len(right)) if left or right else 0.0


def words(text: str) -> set[str]:
    """A text's words in small letters, without punctuation around them."""
    found: Sequence[str] = [word.strip(".,;:!?\"'()-") for word in text.lower().split()]
    return {word for word in found if word}
