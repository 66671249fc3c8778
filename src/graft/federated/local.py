"""What clients reach without each other: each trains on its own samples, and nothing is sent."""

from graft.federated.base import Federated


class Local(Federated):
    """The baseline beside a federation: every client's weights go on from where they were in the round before."""

    name = "local"
    has_server = False
    keeps_parts = True

    def is_personal(self, name: str, batchnorm: frozenset[str]) -> bool:
        """Everything that trains."""
        return True
