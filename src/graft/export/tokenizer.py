"""What splits texts as a network of texts wants it, as one file."""

import json
from pathlib import Path

from graft.backbones.base import Backbone
from graft.backbones.huggingface import HuggingFaceTokenizer
from graft.backbones.text import TextBackbone
from graft.backbones.vocabulary import PADDING, UNKNOWN, WORD, Vocabulary
from graft.errors import GraftError
from graft.files import write_whole


def content_of(backbone: Backbone) -> dict[str, str]:
    """The file's ending and text; empty where the network takes no texts, also not as a part of a fusion.

    `.tokenizer.json` is what the tokenizers library reads; `.vocabulary.json` says what a word is, and has the words in
    the order of their ids from `first` on. Raises GraftError for a tokenizer that is written in Python.
    """
    backbone = backbone.parts.get("text", backbone)
    if not isinstance(backbone, TextBackbone):
        return {}
    tokenizer = backbone.tokenizer
    if isinstance(tokenizer, Vocabulary):
        content = {"pattern": WORD.pattern, "lowercase": True, "padding": PADDING, "unknown": UNKNOWN, "first": 2}
        return {".vocabulary.json": json.dumps({**content, "words": tokenizer.words}, ensure_ascii=False)}
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    backend = getattr(tokenizer.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise GraftError(
            f"{backbone.name}: its tokenizer is written in Python and has no file that other programs read. "
            "Take a folder with all that it has: format=huggingface"
        )
    return {".tokenizer.json": backend.to_str(pretty=True)}


def write(backbone: Backbone, file: Path) -> list[Path]:
    """Write the tokenizer beside an exported file; what was written."""
    written = []
    for ending, text in content_of(backbone).items():
        written.append(file.with_suffix(ending))
        write_whole(written[-1], text)
    return written
