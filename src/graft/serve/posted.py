"""What was posted, read into memory; what a network cannot take is refused before it is decoded."""

import io
import json
import warnings
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from graft.data.readers import images, recordings
from graft.errors import first_line, printable

DRAINED = 10  # times the limit is read of a body that is too large: browsers send everything before they read
MOST_FIELDS = 10_000
MOST_PIXELS = 50_000_000
LONGEST = 600  # seconds of a recording
MOST_SOUND = 2**26  # samples of a recording, in all channels
FILES, TEXT, ROW = ("image", "audio"), "text", "row."
YES = ("on", "true", "1")


@dataclass(frozen=True)
class Posted:
    """An input: a file's bytes, a text, or a row as a mapping, what it is called, and whether to explain."""

    name: str
    content: Any
    explain: bool = False
    values: Mapping[str, str] = field(default_factory=dict)  # of the form, without files


async def read(request: Request, modality: str, limit: int) -> Posted:
    """What a form or a JSON object holds for a model of a modality. HTTPException says what is wrong with it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_of(request, limit)
    if kind == "multipart/form-data":
        return await from_form(request, body, modality)
    if kind == "application/json" and modality not in FILES:
        return from_json(body, modality)
    wanted = "multipart/form-data" if modality in FILES else "multipart/form-data or application/json"
    raise HTTPException(415, f"Content-Type is {kind!r}, and {wanted} is wanted.")


async def body_of(request: Request, limit: int) -> bytes:
    """The request's body; HTTPException for one of more than `limit` bytes."""
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            body += chunk
        elif size > DRAINED * limit:
            break
    if size > limit:
        raise HTTPException(413, f"That is too large: {limit / 1e6:g} MB at most (limit_mb).")
    return bytes(body)


class InMemory(MultiPartParser):
    """Files of any size stay in memory."""

    spool_max_size = 0  # of a SpooledTemporaryFile: never written to the disk
    max_file_size = 0  # its name in starlette before 0.45


async def from_form(request: Request, body: bytes, modality: str) -> Posted:
    """The `file`, `text` or `row.<column>` of a form, and `explain`."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = InMemory(request.headers, stream(), max_files=1, max_fields=MOST_FIELDS)
    parser.max_part_size = max(len(body), 1)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The form cannot be read: {error.message}") from None
    values = {name: value for name, value in form.items() if isinstance(value, str)}
    file = form.get("file")
    name, content = ("", b"") if file is None or isinstance(file, str) else (file.filename, await file.read())
    await form.close()
    explain = values.get("explain", "") in YES
    if modality in FILES:
        if not content:
            raise HTTPException(422, "Choose a file.")
        return Posted(printable(name or "file"), content, explain, values)
    if modality == "text":
        return Posted(TEXT, given_text(values.get(TEXT)), explain, values)
    row = {name.removeprefix(ROW): value for name, value in values.items() if name.startswith(ROW)}
    return Posted("row", given_row(row), explain, values)


def from_json(body: bytes, modality: str) -> Posted:
    """The `text` or `row` of a JSON object, and `explain`."""
    try:
        found = json.loads(body)
        json.dumps(found, ensure_ascii=False).encode()  # halves of a surrogate pair are no text
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The JSON cannot be read: {first_line(error)}.") from None
    if not isinstance(found, dict):
        raise HTTPException(422, f"A JSON object is wanted, and this is {type(found).__name__}.")
    explain = found.get("explain", False)
    if not isinstance(explain, bool):
        raise HTTPException(422, "`explain` is true or false.")
    if modality == "text":
        return Posted(TEXT, given_text(found.get(TEXT)), explain)
    return Posted("row", given_row(found.get("row")), explain)


def given_text(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise HTTPException(422, "`text` is empty: give a text.")
    return value


def given_row(value: Any) -> dict[str, Any]:
    """Plain values by column."""
    if not isinstance(value, dict) or not value:
        raise HTTPException(422, "`row` is empty: give a value for each column.")
    for name, one in value.items():
        if not isinstance(one, str | int | float | None):
            raise HTTPException(422, f"`row`: {name!r} is {type(one).__name__}, and a text or a number is wanted.")
    return value


def check_file(posted: Posted, modality: str) -> None:
    """HTTPException for a file that is no image or recording, or would take too much memory once it is decoded."""
    try:
        problem = image_problem(posted.content) if modality == "image" else sound_problem(posted.content)
    except Exception as error:  # whatever a decoder raises is about this file
        what = "an image" if modality == "image" else "sound"
        raise HTTPException(415, f"{posted.name} cannot be read as {what} ({images.detail(error)}).") from None
    if problem:
        raise HTTPException(422, f"{posted.name}: {problem}.")


def image_problem(content: bytes) -> str:
    """Why an image is not decoded, from its header; raises what its decoder raises."""
    too_large = f"it has more than {MOST_PIXELS:,} pixels"
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content)) as image:
                if image.format in images.NOT_READ:
                    return f"{image.format} files are not read"
                return too_large if image.width * image.height > MOST_PIXELS else ""
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            return too_large
        except Image.UnidentifiedImageError:
            if (opened := images.tiff_of(content)) is None:
                raise
            with opened as tiff:
                return too_large if tiff.pages[0].size > MOST_PIXELS else ""


def sound_problem(content: bytes) -> str:
    """Why a recording is not used; raises what its decoder raises."""
    with recordings.imported_soundfile().SoundFile(io.BytesIO(content)) as sound:
        if sound.frames > LONGEST * sound.samplerate or sound.frames * sound.channels > MOST_SOUND:
            return f"it is too long, {sound.frames / sound.samplerate:,.0f} seconds; {LONGEST} at most"
    return recordings.sound_problem(content)
