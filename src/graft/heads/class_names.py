"""A head whose rows come from the classes' names, so that it knows classes of which it has seen no sample."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn

from graft.config.types import Auto, Positive
from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.towers.base import Tower

NAME = "{}"  # what a template has in the place of the name
SCALE = 1 / 0.07  # of similarities, where none was learned: CLIP's at its start
LARGEST = math.log(100)  # of the logarithm, as in CLIP
ROWS = "rows"


def projected(features: int, size: int) -> nn.Module:
    """Features `(B, D)` to `(B, size)`: centred, as cosines of what a ReLU puts out are near 1, then a linear layer."""
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, size))


class ClassNamesHead(nn.Module):
    """Cosines of features `(B, D)`, projected, with the vectors of the classes' names, times a learned scale.

    A name's vector is the mean of those of its templates, each of length 1 (Radford et al., ICML 2021). A tower that
    learns is part of the head and asked in every step; else the vectors are rows `(K, E)` that learn with the head,
    from what the tower gave.
    """

    names_classes = True  # its rows are known from names alone

    def __init__(
        self,
        context: HeadContext,
        tower: Tower,
        templates: Annotated[Sequence[str], MinLen(1)] = (NAME,),
        names: Mapping[str, str] | None = None,
        projection: Literal["linear", "none"] = "linear",
        scale: Auto | Positive = "auto",
    ) -> None:
        """`names` are what classes are called where the data call them otherwise. GraftError for numbers, for
        tasks without an output a class, and for sizes that cannot be compared.
        """
        super().__init__()
        if context.class_names is None:
            raise GraftError("head=class_names: the target has numbers and no classes. Use head=linear.")
        if context.num_outputs != len(context.class_names):
            raise GraftError(
                f"head=class_names: this task has {context.num_outputs} outputs for the classes "
                f"{', '.join(context.class_names)}, and names are compared one by one. Use task=multiclass."
            )
        if wrong := [template for template in templates if NAME not in template]:
            raise GraftError(f"head.templates: {wrong[0]!r} has no {NAME} in the place of the name, as '{NAME}.' has.")
        if projection == "none" and tower.size != context.feature_size:
            raise GraftError(
                f"head.projection=none: features have {context.feature_size} numbers, head.tower gives {tower.size}. "
                f"Set head.tower.size={context.feature_size} for a tower of that size, or head.projection=linear."
            )
        self.classes = context.class_names
        self.names = {str(name): str(called) for name, called in (names or {}).items()}  # YAML reads 0 as a number
        called = [self.names.get(name, name).replace("_", " ") for name in self.classes]
        self.texts = tuple(tuple(template.replace(NAME, name) for template in templates) for name in called)
        size = tower.size
        self.project = projected(context.feature_size, size) if projection == "linear" else nn.Identity()
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE if scale == "auto" else scale)))
        self.asks_scale = scale == "auto"
        if tower.learns:
            self.tower: nn.Module | None = tower
        else:
            self.tower = None
            self.rows = nn.Parameter(torch.zeros(len(self.classes), size))
        self._fixed = (tower,)  # in a tuple, so that one that does not learn is no part of this module

    @property
    def learns_names(self) -> bool:
        """Whether vectors of names are found by what has to learn first."""
        return self.tower is not None or not isinstance(self.project, nn.Identity)

    @torch.no_grad()
    def ask_tower(self) -> None:
        """Take the rows, and the scale, from a tower that does not learn; nothing to do with one that does."""
        if self.tower is not None:
            return
        (tower,) = self._fixed
        self.rows.copy_(self.vectors_by(tower, self.texts))
        if self.asks_scale and (learned := tower.learned_scale()) is not None:
            self.log_scale.fill_(math.log(learned))

    @staticmethod
    def vectors_by(tower: nn.Module, texts: Sequence[Sequence[str]]) -> Tensor:
        """Vectors `(N, E)` of length 1, each the mean of those of a class's texts."""
        flat = [text for one in texts for text in one]
        each = F.normalize(tower(flat), dim=1).unflatten(0, (len(texts), -1))
        return F.normalize(each.mean(1), dim=1)

    def vectors(self, classes: Sequence[int] | None = None) -> Tensor:
        """Vectors `(K, E)` of length 1 of the classes' names, or of some classes."""
        if self.tower is None:
            return F.normalize(self.rows if classes is None else self.rows[[*classes]], dim=1)
        return self.vectors_by(self.tower, self.texts if classes is None else [self.texts[one] for one in classes])

    def vectors_of(self, texts: Sequence[str]) -> Tensor:
        """Vectors `(N, E)` of length 1 of any texts, such as captions, as they are; `ask_tower` says what it is for."""
        (tower,) = self._fixed
        return F.normalize(tower(texts), dim=1)

    def embed(self, features: Tensor) -> Tensor:
        """Vectors `(B, E)` of length 1 of features `(B, D)`."""
        return F.normalize(self.project(features), dim=1)

    @property
    def scale(self) -> Tensor:
        """What similarities are multiplied by."""
        return self.log_scale.clamp(max=LARGEST).exp()

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(B, K)` of features `(B, D)`."""
        return self.scale * self.embed(features) @ self.vectors().T

    def with_learned(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This head's state with what such a head learned on classes of other names, whose rows stay behind."""
        own = {ROWS: self.rows.detach()} if self.tower is None else {}
        return own | {name: value for name, value in learned.items() if name != ROWS}


def hold(module: nn.Module) -> None:
    """Make buffers of all parameters in place: they are kept and loaded as before, and never learn."""
    for part in module.modules():
        for name, value in [*part.named_parameters(recurse=False)]:
            delattr(part, name)
            part.register_buffer(name, value.detach())
