"""The last checkpoint."""

from graft.selection.base import SelectionRule


class Last(SelectionRule):
    """The last epoch's weights: nothing is selected."""

    name = "last"
    uses_target_labels = False
