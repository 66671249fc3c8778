"""Recall of captions: whether a held-out sample finds its text among all, and a text its sample, in the first k."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graft.data.captions import captions_of
from graft.data.samples import group_numbers
from graft.experiment import Experiment
from graft.heads.class_names import ClassNamesHead
from graft.terms.base import Term
from graft.terms.setup import build_terms
from graft.training.evaluation import outputs_of
from graft.training.fitting import Fitting

FIRST = (1, 5, 10)  # k of what is found first, as papers report it
TEXT, SAMPLE = "text", "sample"  # what is found: the text of a sample, the sample of a text
AT_ONCE = 512  # queries, so that a large test split does not fill the memory


def of_captions(experiment: Experiment, fitting: Fitting) -> dict[str, Any]:
    """For `results.json`: recall on the test split of each domain whose captions a term or pretraining learned from."""
    return {
        domain: recalls_of(experiment, fitting, domain, column)
        for domain, column in columns_of(experiment).items()
        if isinstance(experiment.module.head(domain), ClassNamesHead)
    }


def columns_of(experiment: Experiment) -> dict[str, str]:
    """The column of captions of each domain that has one."""
    terms: list[Term] = list(experiment.module.terms.values())
    if experiment.pretrained is not None:
        terms += build_terms(experiment.config["pretrain"]).values()
    return {term.domains[0]: term.text for term in terms if term.text is not None}


@torch.no_grad()
def recalls_of(experiment: Experiment, fitting: Fitting, domain: str, column: str) -> dict[str, Any]:
    """Both directions among samples and texts, each once: of copies of a sample the texts of all are right."""
    module, data = experiment.module, experiment.data
    outputs = outputs_of(fitting.trainer, module, data.eval_loader(domain, "test"))
    assert outputs.features is not None  # a head of names takes them
    split, tested = data.domains[domain].test, outputs.indices.tolist()
    captions = captions_of(data.domains[domain], domain, "test", column, "term.clip.text")
    texts = [captions[index] for index in tested]
    samples = group_numbers(index if split.contents is None else split.contents[index] for index in tested)
    first = {number: place for place, number in reversed([*enumerate(samples.tolist())])}
    names = list(dict.fromkeys(texts))
    right = torch.zeros(len(first), len(names), dtype=torch.bool)
    right[samples, group_numbers(texts)] = True
    head = copy.deepcopy(module.head(domain)).cpu().eval()
    assert isinstance(head, ClassNamesHead)
    of_samples = head.embed(outputs.features[[first[number] for number in range(len(first))]])
    of_texts = torch.cat([head.vectors_of(names[i : i + AT_ONCE]) for i in range(0, len(names), AT_ONCE)])
    return {
        "column": column,
        "samples": len(of_samples),
        "texts": len(of_texts),
        TEXT: recalls(of_samples, of_texts, right),
        SAMPLE: recalls(of_texts, of_samples, right.T),
    }


def recalls(queries: Tensor, found: Tensor, right: Tensor) -> dict[str, dict[str, float]]:
    """By k, the share of queries `(Q, E)` that have one of `right` `(Q, F)` among the k nearest of `(F, E)`; chance's.

    A wrong one that is as near as the right one comes first, so that a network that says the same of all finds nothing.
    """
    ranks = []
    for begin in range(0, len(queries), AT_ONCE):
        scores, own = queries[begin : begin + AT_ONCE] @ found.T, right[begin : begin + AT_ONCE]
        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        ranks.append((~(scores < best) & ~own).sum(1))
    rank, numbers = torch.cat(ranks), right.sum(1).tolist()
    return {
        "recall": {str(k): float((rank < k).double().mean()) for k in FIRST},
        "chance": {str(k): sum(chance(len(found), n, k) for n in numbers) / len(numbers) for k in FIRST},
    }


def chance(among: int, right: int, first: int) -> float:
    """How probable one of `right` of `among` is in the first k of a random order."""
    return 1 - math.comb(among - right, first) / math.comb(among, first) if first < among else 1.0


def metrics_of(found: Mapping[str, Any]) -> dict[str, float]:
    """Its recalls under the names of metrics."""
    return {
        f"test/{domain}/{direction}_recall_at_{k}": value
        for domain, one in found.items()
        for direction in (TEXT, SAMPLE)
        for k, value in one[direction]["recall"].items()
    }
