"""Several domains, each read and split by itself, as one side of a transfer: its sources."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch.utils.data import ConcatDataset

from graft.data.samples import DomainData, Report, Split, rows_of, sha256
from graft.data.stream import whole
from graft.errors import GraftError

FITTED = ("table", "sequence", "multimodal")  # modalities that are scaled by each domain's own training split


def joined(domains: Mapping[str, DomainData], key: str, *, equal: bool = False) -> DomainData:
    """One domain of all samples; every split holds which source each sample is of.

    `equal` lets training draw every source equally often. Raises GraftError that names `key` for domains that differ
    in classes or channels, and for data that are scaled domain by domain.
    """
    first, *others = domains.values()
    check_alike(domains, key)
    backbone_arguments = dict(first.backbone_arguments)
    if "texts" in backbone_arguments:  # a vocabulary is made of
        backbone_arguments["texts"] = ConcatDataset([one.backbone_arguments["texts"] for one in domains.values()])
    return replace(
        first,
        name=" + ".join(domains),
        train=joined_split([whole(one.train) for one in domains.values()]),
        val=joined_split([one.val for one in domains.values()]),
        test=joined_split([one.test for one in domains.values()]),
        fingerprint=sha256([*(one.fingerprint.encode() for one in domains.values()), str(equal).encode()]),
        backbone_arguments=backbone_arguments,
        notes=tuple(f"{name}: {note}" for name, one in domains.items() for note in notes_of(one)),
        report=joined_report([one.report for one in domains.values()]) if others else first.report,
        sources=tuple(domains),
        equal_sources=equal,
    )


def joined_split(splits: Sequence[Split]) -> Split:
    """The samples of all, one after the other."""
    labels = [one.labels for one in splits if one.labels is not None]
    places = [place for one in splits for place in one.places or ()]
    sizes = torch.tensor([len(one) for one in splits])
    columns = {
        name: [value for one in splits for value in one.columns[name]]
        for name in splits[0].columns
        if all(name in one.columns for one in splits)
    }
    return Split(
        ConcatDataset([one.inputs for one in splits]),  # type: ignore[misc]  # what gives samples by index
        torch.cat(labels) if labels else None,
        splits[0].fingerprint if len(splits) == 1 else sha256(one.fingerprint.encode() for one in splits),
        places if len(places) == sizes.sum() else None,
        torch.arange(len(splits)).repeat_interleave(sizes),
        columns,
    )


def with_validation(data: DomainData) -> DomainData:
    """The same domain whose validation samples train as well, and nothing validates."""
    train, val = whole(data.train), data.val
    both = joined_split([train, val])
    groups = None if train.groups is None or val.groups is None else torch.cat([train.groups, val.groups])
    sources = None if train.sources is None or val.sources is None else torch.cat([train.sources, val.sources])
    first, second = rows_of(train), rows_of(val)
    inputs = first.joined(second) if hasattr(first, "joined") else both.inputs  # of a table one table
    return replace(
        data,
        train=replace(both, inputs=inputs, sources=sources, groups=groups),
        val=val.subset(torch.arange(0)),
        notes=(*data.notes, f"{len(val):,} validation samples train as well (data.refit)"),
    )


def notes_of(data: DomainData) -> Iterator[str]:
    """A source's sizes, and what else a reader should know of it."""
    if data.report is not None:
        yield data.report.sentence()
    yield from data.notes


def joined_report(reports: Sequence[Report | None]) -> Report | None:
    """What became of everything in all of them; None where one has no report."""
    known = [one for one in reports if one is not None]
    if len(known) < len(reports):
        return None
    return replace(
        known[0],
        found=sum(one.found for one in known),
        used=dict(sum((Counter(one.used) for one in known), Counter())),
        left_out=dict(sum((Counter(one.left_out) for one in known), Counter())),
        skipped=tuple(skipped for one in known for skipped in one.skipped),
        split="; ".join(dict.fromkeys(one.split for one in known)) + " of each source",
    )


def check_alike(domains: Mapping[str, DomainData], key: str) -> None:
    """Raise GraftError for domains that cannot be one."""
    (name, first), *others = domains.items()
    if first.modality in FITTED:
        raise GraftError(
            f"{key}: several sources cannot be {first.modality} data, which are scaled by the training split of each. "
            "Put all rows in one file."
        )
    check_same_classes({name: one.classes for name, one in domains.items()}, key)
    for other, data in others:
        if data.channels != first.channels:
            raise GraftError(
                f"{key}: the images of {name} have {first.channels} channels and those of {other} {data.channels}. "
                "Several sources need one number: 3 (colour) or 1 (grey)."
            )


def check_same_classes(classes: Mapping[str, tuple[str, ...] | None], key: str, advice: str = "") -> None:
    """Raise GraftError where domains, by name, do not all have the same classes; it says which is missing where."""
    if len(set(classes.values())) == 1:
        return
    every = list(dict.fromkeys(word for one in classes.values() for word in one or ()))
    missing = [
        f"{name} has no {', '.join(lost)}"
        for name, one in classes.items()
        if (lost := [word for word in every if word not in (one or ())])
    ]
    raise GraftError(
        f"{key}: the domains have different classes: {'; '.join(missing) or 'their orders differ'}. Give all the same "
        f"classes, or leave a domain out.{advice}"
    )
