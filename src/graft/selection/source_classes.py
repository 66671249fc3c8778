"""What rules need that judge by source labels: the same classes on both sides."""

from typing import TYPE_CHECKING

from graft.errors import GraftError
from graft.selection.base import SelectionRule

if TYPE_CHECKING:
    from graft.data.module import TransferDataModule


def check_same_classes(rule: SelectionRule, data: "TransferDataModule") -> None:
    """GraftError where source and target have other classes."""
    if not data.same_classes:
        raise GraftError(
            f"selection={rule.name}: it compares predicted classes of the target with labels of the source, but the "
            "two have other classes. Use selection=source_val, entropy or last."
        )
