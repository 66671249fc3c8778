"""Captions: a text of each sample, in a column of the file that names the samples."""

import torch

from graft.data.samples import DomainData, Split, names_of
from graft.data.stream import whole
from graft.errors import GraftError, listed


def captions_of(domain: DomainData, side: str, split_name: str, column: str, key: str) -> list[str]:
    """The texts `(N,)` of a split of `data.<side>`.

    GraftError that names `key`, which asks for the `column`, where there is none, where it does not hold a text of each
    sample, and where nothing could be learned from those of train.
    """
    split: Split = whole(getattr(domain, split_name))
    if not split.columns:
        raise GraftError(
            f"{key}={column}: data.{side} has no columns beside its samples and labels. Captions are a column of a "
            f"file: data/domain@data.{side}=image_file or audio_file, or leave {key} out, and texts are the classes' "
            "names."
        )
    if column not in split.columns:
        raise GraftError(
            f"{key}={column}: data.{side} has no such column. Columns beside samples and labels: "
            f"{', '.join(split.columns)}. Set {key}=<column>."
        )
    texts = ["" if value is None else " ".join(str(value).split()) for value in split.columns[column]]
    if empty := [index for index, text in enumerate(texts) if not text]:
        places = names_of(split, torch.tensor(empty))
        raise GraftError(
            f"{key}={column}: {len(empty):,} of {len(texts):,} {split_name} samples of data.{side} have no text "
            f"({listed(places)}). Write one, or take their rows out of the file."
        )
    if texts and all(text[0] == "[" and text[-1] == "]" for text in texts):
        raise GraftError(
            f"{key}={column}: each value is a list, such as {texts[0][:60]}, and a row has one text. Write a row for "
            f"each (pandas: frame.explode({column!r})); equal files stay in one split."
        )
    if split_name == "train" and len({*texts}) < 2:
        raise GraftError(
            f"{key}={column}: all {len(texts):,} training samples of data.{side} have the text {texts[0]!r}, so "
            f"that nothing tells them apart. Set {key} to another of {', '.join(split.columns)}."
        )
    return texts
