"""`compare=transfer` on a command line: one word for a sweep that compares transfer with training from scratch."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graft.errors import GraftError
from graft.locations import CONF, ROOT
from graft.weights.files import HERE

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

WORD, OTHERS = "compare", "others"
SCRATCH, MATCHED = "scratch", "scratch_matched"
TRANSFERS = ("frozen", "full")
FURTHER = ("lp_ft", "gradual")  # strategies beside those, unless `others=` names some
FACTORS = (0.2, 1.0, 5.0, 25.0)  # of the experiment's learning rate: for each strategy, so that all have equal chances
SEEDS = 5


def compared(words: Sequence[str]) -> list[str]:
    """The words with `compare=transfer` written out as a sweep, which is printed; GraftError for what it cannot be."""
    given = dict(word.partition("=")[::2] for word in words if not word.startswith("-"))
    if WORD not in given:
        if OTHERS in given:
            raise GraftError(f"`{OTHERS}={given[OTHERS]}`: it names strategies of {WORD}=transfer, which is not there")
        return list(words)
    if given[WORD] != "transfer":
        raise GraftError(f"`{WORD}={given[WORD]}`: what can be compared is {WORD}=transfer")
    if "strategy" in given:
        raise GraftError(
            f"`{WORD}=transfer` with `strategy={given['strategy']}`: it compares {SCRATCH}, {MATCHED}, "
            f"{', '.join(TRANSFERS)} and others; name those with {OTHERS}=lp_ft,lora"
        )
    rest = [word for word in words if word.partition("=")[0] not in (WORD, OTHERS)]
    config = composed(rest)
    if (weights := config.backbone.weights) is None:
        raise GraftError(
            f"`{WORD}=transfer` with `backbone.weights=null`: there is nothing to transfer; give pretrained weights "
            "(backbone.weights=source, imagenet, ...) or another experiment"
        )
    from_source = weights in HERE
    others = given.get(OTHERS, ",".join(FURTHER)).strip("[]").split(",")
    arms = list(dict.fromkeys([SCRATCH, *([MATCHED] if from_source else []), *TRANSFERS, *filter(None, others)]))
    added = [f"strategy={','.join(arms)}"]
    if "optimizer.lr" not in given and config.optimizer.lr not in ("auto", "default"):
        added.append(f"optimizer.lr={','.join(f'{factor * config.optimizer.lr:.4g}' for factor in FACTORS)}")
    if not {"seed", "seeds"} & set(given):
        added.append(f"seeds={SEEDS}")
    if from_source and "pretrain.seed" not in given:
        added.append("pretrain.seed=${seed}")
    print(f"{WORD}=transfer: {' '.join(added)}")
    print(f"Each of the {len(arms)} strategies is tried with the same learning rates and seeds.")
    if not from_source:
        print(f"Without {MATCHED}: pretraining's FLOPs are not known (backbone.weights={weights}).")
    elif "pretrain.seed" not in given:
        print("Pretraining runs once a seed, so that intervals hold its variation; pretrain.seed=0 shares one.")
    return added + rest


def composed(words: Sequence[str]) -> "DictConfig":
    """The config of a sweep's first job; GraftError for a mistake."""
    import yaml
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from graft import paths as paths  # registers resolvers
    from graft.cli.help import config_folders
    from graft.cli.hydra_versions import VERSION_BASE
    from graft.cli.launch import explain

    os.environ.setdefault("GRAFT_ROOT", str(ROOT))
    overrides = [word for word in words if "=" in word and not word.startswith(("-", "seeds=", "splits="))]
    try:
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            loader: Any = GlobalHydra.instance().config_loader()
            for folder in config_folders(list(words), CONF)[:-1]:
                loader.get_search_path().prepend("command-line", f"file://{folder.absolute()}", anchor="schema")
            loader.repository.initialize_sources(loader.get_search_path())
            parsed = OverridesParser.create().parse_overrides(overrides)
            return compose("train", overrides=[first_of(one) for one in parsed])
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise GraftError(explain(error, CONF)) from None


def first_of(override: "Override") -> str:
    """An override with the first of its values."""
    if not override.is_sweep_override():
        return str(override.input_line)
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
