"""Only the embedding of tokens out of a file (`backbone.share=embedding`), whatever encoder it was learned in."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graft.backbones.base import Backbone
from graft.errors import GraftError
from graft.weights.files import weights_file
from graft.weights.loading import LoadReport, check_finite, read_tensors, tensor_dicts

# How networks call it: Graft's own, BERT's family, GPT's and T5's
ENDINGS = (
    "embedding.weight",
    "word_embeddings.weight",
    "wte.weight",
    "embed_tokens.weight",
    "shared.weight",
    "embed_in.weight",
)
WORDS = "words"  # hashes of a vocabulary's words, beside Graft's own


def embedding_of(backbone: Backbone) -> str:
    """The name of the embedding in the network; GraftError for a backbone without one."""
    if backbone.embedding is None:
        raise GraftError(
            f"backbone.share=embedding: the {backbone.modality} backbone {backbone.name} embeds no tokens. Set "
            "backbone.share=all, or choose a backbone for texts."
        )
    return backbone.embedding


def load_embedding(backbone: Backbone, weights: str) -> LoadReport:
    """Load the embedding of `pretrained` weights, a package, a file or a run; all else stays random.

    Of two vocabularies of words the vectors of the words that both have are taken over, of a tokenizer all or none.
    Raises GraftError where there is none, or one that does not fit.
    """
    own = f"{embedding_of(backbone)}.weight"
    source, content = (
        backbone.own_weights() if weights == "pretrained" else (weights, read_tensors(weights_file(weights)))
    )
    network = backbone.network.state_dict()
    vectors, words = vectors_in(content, source)
    width = network[own].shape[1]
    if vectors.shape[1] != width:
        raise GraftError(
            f"backbone.share=embedding with backbone.weights={source}: its vectors have {vectors.shape[1]} values, "
            f"and this network's {width}. Set backbone.embedding_size={vectors.shape[1]}, or take a network of that "
            "width."
        )
    if WORDS in network:
        taken, adapted = of_words(network[own], network[WORDS], vectors, words, source)
    elif words is not None or vectors.shape != network[own].shape:
        raise GraftError(
            f"backbone.share=embedding with backbone.weights={source}: its {len(vectors):,} vectors belong to other "
            f"tokens than this network's {len(network[own]):,}. Take the same tokenizer on both sides "
            "(backbone.tokenizer), or a vocabulary of words on both."
        )
    else:
        taken, adapted = vectors, ""
    check_finite(source, backbone, {own: taken}, None)
    backbone.network.load_state_dict({**network, own: taken})
    missing = [name for name in network if name not in (own, WORDS)]
    report = LoadReport(source, 1, len(missing) + 1, missing)
    report.adapted += [adapted] if adapted else []
    return report


def vectors_in(content: Mapping[str, Any], source: str) -> tuple[Tensor, Tensor | None]:
    """A file's embedding `(V, D)`, and the hashes `(V,)` of its words, where they are words; the first one counts."""
    for tensors in tensor_dicts(content):
        for ending in ENDINGS:
            for name, value in tensors.items():
                prefix = name.removesuffix(ending)
                if prefix != name and (not prefix or prefix.endswith(".")) and value.ndim == 2 and of_encoder(name):
                    words = tensors.get(f"{prefix}{WORDS}")
                    return value, words if words is not None and len(words) == len(value) else None
    raise GraftError(
        f"backbone.share=embedding with backbone.weights={source}: it has no embedding of tokens (a tensor whose name "
        f"ends in {', '.join(ENDINGS)}). Give the folder of a run with a backbone for texts, or backbone.share=all."
    )


def of_encoder(name: str) -> bool:
    """Whether a tensor is of what reads, and of no head that writes."""
    return not name.startswith(("head.", "heads.", "decoder.", "model.decoder."))


def of_words(own: Tensor, own_words: Tensor, vectors: Tensor, words: Tensor | None, source: str) -> tuple[Tensor, str]:
    """This vocabulary's embedding `(V, D)` with the vectors of the words that both have, and a line on how many."""
    if words is None:
        raise GraftError(
            f"backbone.share=embedding with backbone.weights={source}: its vectors are of a tokenizer's tokens, and "
            "this network's of words. Set backbone.tokenizer to that tokenizer."
        )
    indices = {word: index for index, word in enumerate(words.tolist())}
    pairs = [(index, indices[word]) for index, word in enumerate(own_words.tolist()) if word in indices]
    taken = own.detach().clone()
    to, of = torch.tensor(pairs).unbind(1)  # padding and unknown are in every vocabulary
    taken[to] = vectors[of].to(taken)
    return taken, f"vectors of {len(pairs) - 2:,} of {len(own) - 2:,} words: the others are new to the source"
