"""Views: further augmented versions of a training batch's samples, which terms ask for by name.

`weak` is the run's training augmentation drawn again, or the modality's light one where the run has none; `strong` is
the modality's strongest. Text, tables and sequences have no augmentation, so there is no such view of them.

`teacher` is the training inputs themselves in the form that another network takes, such as another size or other
tokens; what is random is drawn alike.
"""

from graft.data.samples import Modality
from graft.errors import GraftError

LIGHT = {"image": "light", "audio": "light"}
STRONG = {"image": "randaugment", "audio": "specaugment"}
TEACHER = "teacher"
VIEWS = ("weak", "strong", TEACHER)


def augment_of_view(view: str, modality: Modality, augment: str) -> str:
    """The augmentation that makes a view, where training has `augment`.

    Raises GraftError for another view and for a modality without augmentation.
    """
    if view not in VIEWS:
        raise GraftError(f"views={view!r} is not known. Allowed: {', '.join(VIEWS)}.")
    if view == TEACHER:
        return augment
    if modality not in LIGHT:
        raise GraftError(
            f"there are no {view} views of {modality} data, which have no augmentation. "
            f"Leave the term out, or use it with {' or '.join(LIGHT)} data."
        )
    if view == "strong":
        return STRONG[modality]
    return LIGHT[modality] if augment == "none" else augment
