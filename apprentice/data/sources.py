"""Finds the files of a data set, in a folder or on Hugging Face, and reads them record by record."""

import gzip
import json
import math
import os
import re
import shlex
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from apprentice.errors import ApprenticeError
from apprentice.records.files import local_path

SUFFIXES = ("", ".gz")
CHUNK_BYTES = 1 << 20
GZIP = b"\x1f\x8b"
MAX_DEPTH = 20
"""Maximum nesting of a record. MuSiQue needs three levels; far deeper records would overflow the stack of their
readers."""
FOREIGN = {
    b"PAR1": "Parquet",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}
"""First bytes of a file -> its format, for formats that are not JSONL."""
CONVERSIONS = {
    "Parquet": "import pandas; pandas.read_parquet({file!r}).to_json({out!r}, orient='records', lines=True)",
    "CSV": "import pandas; pandas.read_csv({file!r}, sep=None, engine='python').to_json({out!r}, orient='records', lines=True)",
    "JSON": "import json; open({out!r}, 'w').writelines(json.dumps(row) + '\\n' for row in json.load(open({file!r})))",
}
ENDINGS = {".parquet": "Parquet", ".csv": "CSV", ".tsv": "CSV", ".json": "JSON"}
ADVICE = {
    "UTF-16": "save the file as UTF-8",
    "a Git LFS pointer, not the file itself": "fetch the file with `git lfs pull`",
}
UNUSABLE = "is unusable JSON"
COLUMNS = {"question", "answer", "answers", "text", "title", "id"}
"""Column names that mark a first line that is not JSON as the header of a CSV file."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of data files, and the name under which its files are reported."""

    folder: Path
    label: str

    def shown(self, path: Path) -> str:
        """Return the name of one of the source's files, for messages."""
        return f"{self.label}/{self.within(path)}"

    def within(self, path: Path) -> str:
        """Return the name of a file within the source; bytes that are not UTF-8 are replaced."""
        return os.fsencode(path.relative_to(self.folder)).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Found:
    """The file that matches best, and the other matches."""

    path: Path
    others: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a data file: a JSON object or an error."""

    file: str
    number: int
    """The line that it begins at, from 1."""
    value: dict[str, Any] | None
    error: str | None = None


def open_source(source: str) -> Source:
    """Return the folder that `source` names; download it if it is the id of a Hugging Face data set.

    Raises:
        ApprenticeError: there is no such folder, or the data set cannot be downloaded.
    """
    folder = local_path(source, "data.source")
    if folder.is_dir():
        return Source(folder, source.rstrip("/") or source)
    if folder.exists():
        raise ApprenticeError("is a file, not a folder", where=source, todo="set data.source to the folder that contains the files")
    if source.startswith(("/", ".", "~")) or source.count("/") != 1:
        todo = "set data.source to a folder, or to the id of a Hugging Face data set (owner/name)"
        raise ApprenticeError("there is no such folder", where=source, todo=todo)
    return Source(_downloaded(source), f"hf://datasets/{source}")


def _downloaded(repository: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        name, _, revision = repository.partition("@")
        return Path(snapshot_download(name, revision=revision or None, repo_type="dataset", allow_patterns=["*.jsonl", "*.jsonl.gz"]))
    except (OSError, HfHubHTTPError, HFValidationError, httpx.HTTPError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ApprenticeError(
            f"is not a folder, and cannot be downloaded as a Hugging Face data set ({type(error).__name__}: {reason})",
            where=repository,
            todo="check the spelling and the network, or download the files by hand and set data.source to their folder",
        ) from None


def find_file(source: Source, patterns: tuple[str, ...], holds: str, word: str = "") -> Found:
    """Return the best match, plain or gzipped: the top folder comes before its subfolders, then patterns in order.

    Args:
        patterns: file names, in the order of preference.
        holds: what the file contains, for messages.
        word: must be a separate word of the name, so that `*train*` does not match `constraints.jsonl`.

    Raises:
        ApprenticeError: no file matches, several match equally well, or the match is not a regular file.
    """
    for prefix in ("", "**/"):
        matches = [_matching(source, prefix + pattern, word) for pattern in patterns]
        best = next((paths for paths in matches if paths), None)
        if best is None:
            continue
        if len(best) > 1:
            listed = ", ".join(map(source.within, best))
            raise ApprenticeError(f"{len(best)} files match equally well: {listed}", where=source.label, todo=f"leave one file with {holds} in the folder")
        if not best[0].is_file():
            what = "a folder" if best[0].is_dir() else "not a regular file (a pipe, a device, or a broken link)"
            raise ApprenticeError(f"is {what}", where=source.shown(best[0]), todo=f"put the file with {holds} there")
        others = {path for paths in matches for path in paths if path != best[0]}
        return Found(best[0], tuple(sorted(others)))
    raise _missing(source, patterns, holds)


def has_file(source: Source, patterns: tuple[str, ...]) -> bool:
    """Return whether a file matches one of the patterns."""
    return any(_matching(source, f"**/{pattern}", "") for pattern in patterns)


def _matching(source: Source, pattern: str, word: str) -> list[Path]:
    alone = re.compile(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])")
    found = {path for suffix in SUFFIXES for path in source.folder.glob(pattern + suffix)}
    return sorted(path for path in found if not word or alone.search(path.name))


def _missing(source: Source, patterns: tuple[str, ...], holds: str) -> ApprenticeError:
    expected = " or ".join(f"{pattern}[.gz]" for pattern in patterns)
    for pattern in patterns:
        for ending, kind in ENDINGS.items():
            if found := sorted(source.folder.glob(pattern.removesuffix(".jsonl") + ending)):
                todo = f"convert it to JSONL: {_conversion(kind, found[0])}"
                return ApprenticeError(f"there is no {expected}, only {found[0].name}", where=source.label, todo=todo)
    return ApprenticeError(f"there is no {expected}", where=source.label, todo=f"put the file with {holds} there")


def _conversion(kind: str, path: Path) -> str:
    """Return a command that converts a file to JSONL; into the folder `converted` if the file already ends in
    .jsonl."""
    out = path.with_name(path.name.removesuffix(path.suffix) + ".jsonl")
    if out == path:
        out = path.with_name("converted") / path.name
    code = CONVERSIONS[kind].format(file=str(path), out=str(out))
    folder = f"mkdir -p {shlex.quote(str(out.parent))} && " if out.parent != path.parent else ""
    return f"{folder}.venv/bin/python -c {shlex.quote(code)}"


def read_lines(source: Source, path: Path) -> Iterator[Line]:
    """Yield each record of a JSONL file or JSON document; a record that cannot be parsed carries its error.

    Lines may end with LF, CRLF, or CR. A file that begins with `[`, or with `{` alone on its line, is read as a
    document of several lines: a list of objects, or a sequence of objects.

    Raises:
        ApprenticeError: the file is empty or in another format, its compression is broken, or a document is malformed.
    """
    shown, empty = source.shown(path), True
    try:
        with _opened(path) as file:
            head = file.read(CHUNK_BYTES)
            _reject_other_format(head, path, shown)
            file.seek(0)
            for line in _records(file, head, shown):
                empty = False
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ApprenticeError(f"its compression is broken: {error}", where=shown, todo="download the file again") from None
    except OSError as error:
        todo = "check the permissions of the file and the disk"
        raise ApprenticeError(f"cannot be read: {error.strerror or error}", where=shown, todo=todo) from None
    if empty:
        raise ApprenticeError("is empty", where=shown, todo="write one JSON object per line into it")


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = path.suffix == ".gz" or file.read(len(GZIP)) == GZIP
    return gzip.open(path) if compressed else path.open("rb")


def _reject_other_format(head: bytes, path: Path, shown: str) -> None:
    kind = next((kind for magic, kind in FOREIGN.items() if head.startswith(magic)), None)
    if kind is None and _begins_csv(head):
        kind = "CSV"
    if kind is not None:
        todo = ADVICE.get(kind) or (f"convert it: {_conversion(kind, path)}" if kind in CONVERSIONS else "unpack it")
        raise ApprenticeError(f"is not JSONL but {kind}", where=shown, todo=todo)


def _begins_csv(head: bytes) -> bool:
    first = next(iter(head.decode("utf-8-sig", "replace").strip().splitlines()), "")
    cells = {cell.strip().strip('"').lower() for cell in re.split(r"[,;\t]", first)}
    return not first.startswith(("{", "[")) and bool(cells & COLUMNS) and len(cells) > 1


def _records(file: IO[bytes], head: bytes, shown: str) -> Iterator[Line]:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"[") or re.match(rb"\{\s*[\r\n]", text):
        yield from _document(file.read(), shown)
        return
    lines = file.read().split(b"\r") if b"\r" in head and b"\n" not in head else file
    for number, raw in enumerate(lines, 1):
        if raw.strip():
            yield _parsed(raw, shown, number)


def _parsed(raw: bytes, file: str, number: int) -> Line:
    try:
        value = _DECODER.decode(raw.decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        return Line(file, number, None, f"is not UTF-8 (byte 0x{raw[error.start]:02x} at position {error.start}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Line(file, number, None, f"is not JSON, perhaps truncated: {error.msg} at position {error.pos}")
    except (ValueError, RecursionError) as error:
        return Line(file, number, None, f"{UNUSABLE}: {_reason(error)}")
    return _record(value, file, number)


def _record(value: Any, file: str, number: int) -> Line:
    if not isinstance(value, dict):
        return Line(file, number, None, f"is a JSON {type(value).__name__}, not an object")
    if _deeper(value, MAX_DEPTH):
        return Line(file, number, None, f"{UNUSABLE}: nested more than {MAX_DEPTH} levels deep")
    return Line(file, number, value)


def _document(raw: bytes, file: str) -> Iterator[Line]:
    """Yield the objects of a document, each with the line that it begins at.

    Raises:
        ApprenticeError: the document is malformed, so the start of its next object is unknown.
    """
    raw, place, number = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n"), 0, 1
    try:
        text = raw.decode("utf-8-sig")
        for start, value, error in _values(text):
            number, place = number + text.count("\n", place, start), start
            yield Line(file, number, None, error) if error else _record(value, file, number)
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise ApprenticeError(f"is not UTF-8 (byte 0x{raw[error.start]:02x})", where=f"{file}:{number}", todo="save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        todo = "fix this line, or write one JSON object per line, so that each is checked by itself"
        raise ApprenticeError(f"is not valid JSON: {error.msg}", where=f"{file}:{error.lineno}", todo=todo) from None


def _values(text: str) -> Iterator[tuple[int, Any, str | None]]:
    """Yield (position, value, error) for each value of a list or of a sequence of values."""
    listed = text.lstrip().startswith("[")
    between = re.compile(r"[\s,]*" if listed else r"\s*")
    place = text.index("[") + 1 if listed else 0
    while (place := between.match(text, place).end()) < len(text):
        if listed and text[place] == "]":
            between, listed = re.compile(r"\s*"), False
            place += 1
            continue
        start = place
        try:
            value, place = _DECODER.raw_decode(text, start)
            yield start, value, None
        except json.JSONDecodeError:
            raise
        except RecursionError:
            raise json.JSONDecodeError("it is nested too deeply", text, start) from None
        except ValueError as error:
            _, place = _LENIENT.raw_decode(text, start)
            yield start, None, f"{UNUSABLE}: {_reason(error)}"
    if listed:
        raise json.JSONDecodeError("the list is not closed", text, place)


def _deeper(value: Any, most: int) -> bool:
    """Return whether lists and objects are nested more than `most` levels deep, without recursion."""
    level = [value]
    for _ in range(most):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return any(isinstance(inner, dict | list) for inner in level)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has too many digits" if "integer string" in str(error) else str(error)


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON value")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_repeated_keys, parse_float=_finite, parse_constant=_reject_constant)
_LENIENT = json.JSONDecoder(parse_int=str)
"""Finds the end of a value that the strict decoder rejects."""


def fingerprint(source: Source, path: Path) -> dict[str, Any]:
    """Return the name, SHA-256, and size in bytes of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return {"path": source.shown(path), "sha256": digest.hexdigest(), "bytes": path.stat().st_size}
