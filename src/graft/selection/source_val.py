"""The checkpoint with the best validation metric of the source."""

from graft.selection.base import ValidationMetric


class SourceValidation(ValidationMetric):
    """The best source validation metric: no target label is used."""

    name = "source_val"
    domains = ("source",)
    uses_target_labels = False
