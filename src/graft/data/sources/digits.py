"""scikit-learn's 1797 real handwritten digits, 8x8 pixels, which come with the package: no download."""

import functools
from dataclasses import replace

import torch

from graft.data.domain import Domain, DomainData, Split, content_groups, sha256
from graft.data.splits import stratified_split
from graft.inputs.sequence import Sequences, described

TEST, VAL = 500, 297  # samples; the other 1000 are the pool that a label budget draws from


class Digits(Domain):
    """Real digits 0-9; the test and validation splits depend on the split seed alone, never on a budget."""

    def load(self, split_seed: int) -> DomainData:
        """Split 1000/297/500, stratified."""
        images, labels = self._arrays
        whole = Split(images, labels, self.fingerprint)
        groups = content_groups(image.numpy().tobytes() for image in images)
        indices = stratified_split(labels, {"test": TEST, "val": VAL}, split_seed, groups)
        return DomainData(
            name="digits",
            train=whole.subset(indices["train"]),
            val=whole.subset(indices["val"]),
            test=whole.subset(indices["test"]),
            classes=tuple("0123456789"),
            channels=1,
            fingerprint=self.fingerprint,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of images and labels."""
        return sha256(array.numpy().tobytes() for array in self._arrays)

    @functools.cached_property
    def _arrays(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images uint8 `(1797, 1, 8, 8)`, scaled from ink counts 0..16 to 0..255, and labels int64 `(1797,)`."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).float().mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        return images, torch.from_numpy(digits.target).long()


class DigitRows(Digits):
    """The same digits as sequences: 8 rows of 8 pixels, from top to bottom."""

    def load(self, split_seed: int) -> DomainData:
        """Split as the images are, then standardised by the training split."""
        data = super().load(split_seed)
        splits = {"train": data.train, "val": data.val, "test": data.test}

        def rows(split: Split) -> Split:
            images = split.inputs[:, 0].float()
            return Split(Sequences(images, torch.full((len(images),), 8)), split.labels, split.fingerprint)

        return replace(
            data, name="digit_rows", channels=None, **described({name: rows(split) for name, split in splits.items()})
        )
