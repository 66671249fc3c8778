"""What terms over several sources share: which samples of a batch are of which source, and the loss on each."""

import torch
from torch import Tensor

from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.processes import several, summed
from graft.terms.requirements import check_several_sources


class OverSources(Term):
    """A term that looks at each source's samples apart. Raises GraftError where there is one source."""

    name: str  # of the option, for messages
    domains = ("source",)
    needs_source_labels = True
    needs_inputs = False
    needs_hard_labels = True  # a mixed sample would be of two sources
    needs_several_sources = True

    def check(self, context: TermContext) -> None:
        """GraftError for one source."""
        check_several_sources(context, self.name)

    def prepare(self, context: TermContext) -> None:
        """Take the number of every sample's source, and the objective's loss."""
        self._numbers, self.num_sources = check_several_sources(context, self.name)
        self._loss = context.source_loss

    def groups(self, step: TrainStep) -> dict[int, Tensor]:
        """Places `(n,)` in the source's batch of each source's samples, by its number; one without any is left out."""
        indices = step.batch["source"].indices
        assert indices is not None  # as loaders give it
        numbers = self._numbers[indices.cpu()]
        return {number: (numbers == number).nonzero()[:, 0] for number in numbers.unique().tolist()}

    def loss(self, step: TrainStep, places: Tensor | None = None) -> Tensor:
        """Mean loss of the source's batch as the objective has it, or of those samples `(n,)` of it."""
        labels, logits = step.labels["source"], step.logits["source"]
        assert labels is not None  # only a target can be unlabelled
        assert self._loss is not None  # there is a source
        if places is None:
            return self._loss(logits, labels)
        places = places.to(logits.device)
        return self._loss(logits[places], labels[places])

    def risks(self, step: TrainStep) -> tuple[list[int], Tensor]:
        """The sources in the batches of all processes by number, and the mean loss of each `(S,)`."""
        groups = self.groups(step)
        if several():
            return self.risks_of_processes(step, groups)
        return [*groups], torch.stack([self.loss(step, places) for places in groups.values()])

    def risks_of_processes(self, step: TrainStep, groups: dict[int, Tensor]) -> tuple[list[int], Tensor]:
        """The same from every process's sums and counts; one that lacks a source adds nothing to it."""
        logits = step.logits["source"]
        sums = [logits.sum() * 0] * self.num_sources
        counts = torch.zeros(self.num_sources, device=logits.device)
        for number, places in groups.items():
            sums[number] = self.loss(step, places) * len(places)
            counts[number] = len(places)
        counts, whole = summed(counts), summed(torch.stack(sums))
        present = counts > 0
        return present.nonzero()[:, 0].tolist(), whole[present] / counts[present]
