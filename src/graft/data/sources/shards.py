"""Your own data as shards: tar files as WebDataset has them, of which those to train on are read as a stream."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from graft.data.folds import Fold
from graft.data.readers.images import ImageFiles, extensions, look_into_content
from graft.data.readers.labelled_shards import ShardsDomain
from graft.data.readers.recordings import EXTENSIONS, SoundFiles, content_problem, require_soundfile
from graft.data.readers.texts import Texts, not_readable
from graft.data.samples import DomainData, Split
from graft.inputs.text import TextTransform, TokenLists


class ImageShards(ShardsDomain):
    """Shards of image files with their classes."""

    modality = "image"
    noun = "images"
    endings = frozenset(one.lstrip(".") for one in extensions())

    def __init__(self, root: str, channels: Literal[1, 3] = 3, **settings: Any) -> None:
        """`channels`: 3 for colour, 1 for grey."""
        super().__init__(root, **settings)
        self.channels = channels

    def problem(self, content: bytes) -> str:
        """Why an image cannot be decoded."""
        return look_into_content(content, self.channels).problem

    def inputs(self, contents: Sequence[bytes]) -> ImageFiles:
        """Images."""
        return ImageFiles(contents, self.channels)

    def reading(self) -> Mapping[str, Any]:
        """Channels."""
        return {"channels": self.channels, "pixel_range": None}

    def fields(self, first: Split) -> dict[str, Any]:
        """Channels."""
        return {"channels": self.channels}


class AudioShards(ShardsDomain):
    """Shards of sound files with their classes."""

    modality = "audio"
    noun = "recordings"
    endings = frozenset(one.lstrip(".") for one in EXTENSIONS)

    def load(self, split_seed: int, fold: Fold | None = None) -> DomainData:
        """As all shards, with the library that reads sound files."""
        require_soundfile(self.key)
        return super().load(split_seed, fold)

    def problem(self, content: bytes) -> str:
        """Why a recording cannot be decoded."""
        return content_problem(content)

    def inputs(self, contents: Sequence[bytes]) -> SoundFiles:
        """Recordings."""
        return SoundFiles(contents)


class TextShards(ShardsDomain):
    """Shards of texts with their classes."""

    modality = "text"
    noun = "texts"
    endings = frozenset({"txt"})

    def problem(self, content: bytes) -> str:
        """Why a text cannot be read."""
        text = content.decode("utf-8", "surrogateescape")
        if not text.strip():
            return "its text is empty"
        return f"it {unreadable}" if (unreadable := not_readable(text, "utf-8", "")) else ""

    def inputs(self, contents: Sequence[bytes]) -> Texts:
        """Texts."""
        return Texts([content.decode("utf-8", "replace").strip() for content in contents])

    def prepared(self, transform: TextTransform, split: Split) -> TokenLists:
        """Token ids."""
        return transform.of_batch(split)

    def fields(self, first: Split) -> dict[str, Any]:
        """A vocabulary is made of the first texts' words."""
        return {"backbone_arguments": {"texts": first.inputs}}
