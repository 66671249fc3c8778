"""What was posted, read into memory; what a network cannot take is refused before it is decoded."""

import base64
import io
import json
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
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
FILES, TEXT, TABLE, ROW = ("image", "audio"), "text", "table", "row."
SAMPLE = "sample"  # what one of several modalities is called
YES = ("on", "true", "1")


@dataclass(frozen=True)
class Posted:
    """An input: a file's bytes, a text, or a row as a mapping, what it is called, and whether to explain.

    Of a fusion it is a mapping of such inputs by part, None for one that the sample lacks.
    """

    name: str
    content: Any
    explain: bool = False
    values: Mapping[str, str] = field(default_factory=dict)  # of the form, without files


async def read(request: Request, parts: Sequence[str], fused: bool, limit: int) -> Posted:
    """What a form or a JSON object holds for a model of one modality, or for one that is a fusion of these `parts`.

    HTTPException says what is wrong with it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_of(request, limit)
    file_alone = not fused and parts[0] in FILES  # which a form sends as it is
    if kind == "multipart/form-data":
        return await from_form(request, body, parts, fused)
    if kind == "application/json" and not file_alone:
        return from_json(body, parts, fused)
    wanted = "multipart/form-data" if file_alone else "multipart/form-data or application/json"
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


async def from_form(request: Request, body: bytes, parts: Sequence[str], fused: bool) -> Posted:
    """The `file`, `text` or `row.<column>` of a form, and `explain`; files of a fusion are named by their parts."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    files = [part for part in parts if part in FILES]
    parser = InMemory(request.headers, stream(), max_files=max(len(files), 1), max_fields=MOST_FIELDS)
    parser.max_part_size = max(len(body), 1)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The form cannot be read: {error.message}") from None
    values = {name: value for name, value in form.items() if isinstance(value, str)}
    named = {name: file for name, file in form.items() if not isinstance(file, str)}
    found = {name: (printable(file.filename or name), await file.read()) for name, file in named.items()}
    await form.close()
    explain = values.get("explain", "") in YES
    row = {name.removeprefix(ROW): value for name, value in values.items() if name.startswith(ROW)}
    if fused:
        content: dict[str, Any] = {name: found.get(name, ("", b""))[1] or None for name in files}
        content |= {TEXT: values.get(TEXT, "").strip() or None} if TEXT in parts else {}
        content |= {TABLE: given_row(row)} if TABLE in parts else {}
        return Posted(SAMPLE, content, explain, values)
    if files:
        name, file = found.get("file", ("", b""))
        if not file:
            raise HTTPException(422, "Choose a file.")
        return Posted(name, file, explain, values)
    if TEXT in parts:
        return Posted(TEXT, given_text(values.get(TEXT)), explain, values)
    return Posted("row", given_row(row), explain, values)


def from_json(body: bytes, parts: Sequence[str], fused: bool) -> Posted:
    """The `text` or `row` of a JSON object, and `explain`; of a fusion a field for each part, files in base64."""
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
    if fused:
        return Posted(SAMPLE, {part: of_part(part, found) for part in parts}, explain)
    if TEXT in parts:
        return Posted(TEXT, given_text(found.get(TEXT)), explain)
    return Posted("row", given_row(found.get("row")), explain)


def of_part(part: str, found: Mapping[str, Any]) -> Any:
    """A part of a sample out of a JSON object; None where that says null, as of a sample that lacks it."""
    if part == TABLE:
        return given_row(found.get("row"))
    if part not in found:
        what = "a text" if part == TEXT else "a file in base64"
        raise HTTPException(422, f"`{part}` is not there: give {what}, or null where the sample has none.")
    value = found[part]
    if value is None:
        return None
    if part == TEXT:
        return given_text(value)
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        raise HTTPException(422, f"`{part}` is no base64: give the bytes of a file in base64, or null.") from None


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


def check_file(name: str, content: bytes, modality: str) -> None:
    """HTTPException for a file that is no image or recording, or would take too much memory once it is decoded."""
    try:
        problem = image_problem(content) if modality == "image" else sound_problem(content)
    except Exception as error:  # whatever a decoder raises is about this file
        what = "an image" if modality == "image" else "sound"
        raise HTTPException(415, f"{name} cannot be read as {what} ({images.detail(error)}).") from None
    if problem:
        raise HTTPException(422, f"{name}: {problem}.")


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
