"""The pages under reference/, made from conf/ and the annotations while MkDocs builds; nothing of them is committed."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "src"))

from graft.cli import help as config_help  # noqa: E402
from graft.config.describe import describe_rows  # noqa: E402

CONF = PROJECT / "conf"


def on_files(files: Any, config: Any) -> Any:
    """MkDocs asks for the pages of the site."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Markdown of every generated page by its name."""
    return {"experiments": "\n".join(experiments()), "config": "\n".join(groups())}


def experiments() -> Iterator[str]:
    """Every experiment with its description, commands and what to expect: the comment at the head of its file."""
    yield "# Experiments\n\nEach is a file in `conf/experiment/`, a short list of differences from `conf/train.yaml`.\n"
    for name, file in config_help.options_in("experiment", [CONF]).items():
        head, commands, rest = header(file)
        yield f"## {name}\n\n{escaped(head)}.\n"
        if commands:
            yield "\n".join(["```sh", *commands, "```", ""])
        if rest:
            yield f"{escaped(rest)}\n"


def header(file: Path) -> tuple[str, list[str], str]:
    """Description, commands and further text of an experiment's first comment."""
    comment = re.match(r"(?:#[^\n]*\n)+", file.read_text())
    lines = [line.removeprefix("#") for line in (comment[0] if comment else "").splitlines()]
    lines = [line for line in lines if not line.startswith(" @package")]
    commands = [line.strip() for line in lines if line.startswith("   ")]
    text = [line.strip() for line in lines if line.strip() and not line.startswith("   ")]
    return text[0] if text else "", commands, " ".join(text[1:])


def groups() -> Iterator[str]:
    """Every group with its options and their keys, and before them the keys that belong to no group."""
    names = config_help.group_names([CONF])
    names = [one for name in names for one in (name, *(f"{name}/{b}" for b in config_help.below_group(name, [CONF])))]
    defaults = config_help.default_options(CONF)
    yield (
        "# Groups and keys\n\nMade from `conf/` and the annotations of the code, as `python train.py --help <group>` "
        "is. A key with a plus sign stands in no file: add it as it is written, `+strategy.train_bn=true`.\n"
    )
    yield "## Keys without a group\n"
    yield from table(".", "train")
    for group in names:
        if group == "experiment":
            continue
        yield f"## {group}\n"
        if group == "data/domain":
            yield "Chosen for either side: `data/domain@data.target=...`, `data/domain@data.source=...`.\n"
        for option, file in config_help.options_in(group, [CONF]).items():
            default = " (default)" if option in defaults.get(group, ()) else ""
            yield f"### {group}={option}\n\n{escaped(config_help.description(file)).removesuffix('.')}.{default}\n"
            yield from table(group, option)


def table(group: str, option: str) -> Iterator[str]:
    """The keys of an option as a table; nothing where it has none."""
    others, rows = describe_rows(group, option, [CONF])
    if others:
        choices = ", ".join(f"`{other}`" for other in others).replace("'", "")
        yield f"Chosen with it, unless you choose others: {choices}.\n"
    if rows:
        yield "| key and default | may be | note |\n|---|---|---|"
        yield from (f"| {code(key)} | {escaped(may)} | {escaped(comment)} |" for key, may, comment in rows)
        yield ""


def code(text: str) -> str:
    """A key in a table's cell."""
    return f"`{text}`".replace("|", "\\|")


def escaped(text: str) -> str:
    """Text in which Markdown and HTML find nothing."""
    return re.sub(r"([|*_\[\]`])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
