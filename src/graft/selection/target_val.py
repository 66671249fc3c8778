"""The checkpoint with the best validation metric of the target."""

from graft.selection.base import ValidationMetric


class TargetValidation(ValidationMetric):
    """The best target validation metric; uses target labels, so it is an oracle where the target is unlabelled."""

    name = "target_val"
    domains = ("target",)
