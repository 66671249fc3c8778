"""Terms as a config asks for them, and the views of samples that they need."""

from collections.abc import Mapping
from typing import Any

from graft.backbones.base import Backbone
from graft.build import build
from graft.data.module import TransferDataModule
from graft.data.views import TEACHER, augment_of_view
from graft.errors import GraftError
from graft.terms.base import Term


def build_terms(config: Mapping[str, Any]) -> dict[str, Term]:
    """The terms that a config's `term` names; one of weight 0 is left out."""
    return {name: build(settings) for name, settings in (config.get("term") or {}).items() if settings.get("weight", 1)}


def check_unmixed(terms: Mapping[str, Term], training: Mapping[str, Any]) -> None:
    """GraftError for MixUp or CutMix beside a term that needs views, which are of samples that are not mixed."""
    for name, term in terms.items():
        for key in ("mixup_alpha", "cutmix_alpha") if term.views else ():
            if training[key] is not None:
                raise GraftError(
                    f"training.{key}={training[key]} with term.{name}: its views are of samples that are not "
                    f"mixed. Set training.{key}=null, or leave the term out."
                )


def choose_views(
    data: TransferDataModule, terms: Mapping[str, Term], backbone: Backbone, *, mixes: bool = False
) -> None:
    """Let training batches hold the views that terms ask for, of the terms' domains; `mixes`: batches are changed."""
    views: dict[str, tuple[str, ...]] = {}
    for name, term in terms.items():
        term.choose_inputs(backbone, fixed=data.augment == "none" and not mixes)
        data.teacher_spec = term.teacher_spec or data.teacher_spec
        for view in term.views:
            spec = term.teacher_spec if view == TEACHER else backbone.input_spec
            assert spec is not None
            try:
                spec.transform(augment_of_view(view, data.modality, data.augment))
            except GraftError as error:
                raise GraftError(f"term.{name} needs {view} views of its samples: {error}") from error
        for domain in term.domains or data.train_domains:
            views[domain] = tuple(dict.fromkeys([*views.get(domain, ()), *term.views]))
    data.views = views
