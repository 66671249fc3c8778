"""The data module of one folder of domains: some of them are the source, another one is the target."""

from collections.abc import Sequence
from typing import Any

from graft.data.join import check_same_classes
from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.files import user_path


class DomainsDataModule(TransferDataModule):
    """Source and target are domains of one folder, which `data.source` and `data.target` find by these names."""

    def __init__(
        self,
        *,
        root: str | None = None,
        sources: Sequence[str] | None = None,
        target_domain: str | None = None,
        **settings: Any,
    ) -> None:
        """`sources` null: all domains that are there but the target. The config's check refuses the others' null."""
        super().__init__(**settings)
        self.root = root
        self.sources = sources
        self.target_domain = target_domain

    def load(self) -> None:
        """Read both sides; GraftError where there is no such folder, and for a class that only one side has."""
        if not user_path(str(self.root)).is_dir():
            raise GraftError(
                f"data.root={self.root}: no such folder. Give one that holds a folder for each domain, of one "
                "sub-folder per class: data.root=/path/to/pacs"
            )
        super().load()
        advice = " If one side is to lack some of the other's: data.label_sets=partial, or open with task=open_set."
        names = {"target": str(self.target_domain), "source": "+".join(self.domains["source"].sources)}
        check_same_classes({names[side]: self.classes(side) for side in names}, "data.target_domain", advice)
