"""Reads pipelines from params.yaml, and writes overrides and the active pipelines into it."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from apprentice.config.layout import PARAMS
from apprentice.config.locks import writing_params
from apprentice.config.schema import PipelineConfig, pipeline_model
from apprentice.config.usecases import find_use_case, watched_code
from apprentice.errors import ApprenticeError
from apprentice.records.files import write_text
from apprentice.records.text import redacted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Valid pipeline names. A name becomes part of paths, commands, and identifiers in Prefect, DVC, and MLflow."""
PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
"""Strings to write without quotes. ruamel itself quotes those that YAML would read as another type."""


def read_document(path: Path) -> dict:
    """Return params.yaml as plain values, with merge keys resolved.

    Raises:
        ApprenticeError: the file is missing, not UTF-8, not YAML, has no pipelines, or has one with an invalid name.
    """
    try:
        document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ApprenticeError("is missing", where=path, todo="run from the project's root") from None
    except UnicodeDecodeError as error:
        raise ApprenticeError(f"is not UTF-8: {error.reason}", where=path, todo="save it as UTF-8") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise ApprenticeError(f"is not YAML: {getattr(error, 'problem', error)}", where=where, todo="fix this line") from None
    if not isinstance(document, dict) or not isinstance(document.get("pipelines"), dict):
        raise ApprenticeError("has no mapping `pipelines`", where=path, todo="restore the file: `git checkout -- params.yaml`")
    if not isinstance(document.setdefault("active", {}), dict):
        what = "`active` is not a mapping of pipelines to the code that DVC watches"
        raise ApprenticeError(what, where=path, todo="write `active: {}`; `make run` fills it in")
    if invalid := [name for name in document["pipelines"] if not NAME.fullmatch(str(name))]:
        todo = "start with a letter or digit, and use at most 64 letters, digits, dashes, and underscores"
        raise ApprenticeError(f"{invalid[0]!r} is not a valid pipeline name", where=path, todo=todo)
    return document


def pipeline_names(path: Path = PARAMS) -> list[str]:
    """Return the names of the pipelines, in the order of params.yaml."""
    return list(read_document(path)["pipelines"])


def load_pipeline(name: str, path: Path = PARAMS) -> PipelineConfig:
    """Return the parameters of one pipeline.

    Raises:
        ApprenticeError: params.yaml cannot be read, has no such pipeline, or a key is unknown, missing, or invalid.
    """
    document = read_document(path)
    pipelines = document["pipelines"]
    if name not in pipelines:
        what = f"there is no pipeline {name!r}{_did_you_mean(name, pipelines)}"
        raise ApprenticeError(what, where=path, todo=f"choose one of {', '.join(pipelines)}")
    return _validated(pipelines[name], name, path)


def set_overrides(name: str, overrides: Iterable[str], path: Path = PARAMS) -> list[str]:
    """Write `section.key=value` overrides of one pipeline into params.yaml, and keep its comments.

    Returns:
        One line per changed value, for people.

    Raises:
        ApprenticeError: an override is malformed, or the resulting pipeline is invalid. The file is then unchanged.
    """
    overrides = list(overrides)
    load_pipeline(name, path)
    if not overrides:
        return []
    with _edited(path) as document:
        changes = _overridden(document, name, overrides, path)
    return [redacted(f"{path}: pipelines.{name}.{change}") for change in changes if change]


def check_overrides(name: str, overrides: Iterable[str], path: Path = PARAMS) -> None:
    """Raise the errors that `set_overrides` would raise, without writing."""
    load_pipeline(name, path)
    _overridden(YAML().load(path.read_text(encoding="utf-8")), name, overrides, path)


def _overridden(document: Any, name: str, overrides: Iterable[str], path: Path) -> list[str | None]:
    """Apply the overrides to the document and return what each one changed; None if nothing."""
    changes = [_set(document["pipelines"][name], override) for override in overrides]
    _validated(document["pipelines"][name], name, path)
    return changes


def activate(name: str, path: Path = PARAMS) -> None:
    """Add a pipeline, with the code of its use case, to the active pipelines, which DVC maintains.

    Raises:
        ApprenticeError: params.yaml cannot be read, or has no such pipeline.
    """
    watched = watched_code(load_pipeline(name, path).environment.use, path.parent)
    if read_document(path)["active"].get(name) != watched:
        with _edited(path) as document:
            document.setdefault("active", {})[name] = watched


def check_active(name: str, path: Path = PARAMS) -> None:
    """Reject a pipeline for which DVC watches the wrong code, because DVC would report stale results as up to date.

    Raises:
        ApprenticeError: `active` names the code of another use case.
    """
    known = read_document(path)["active"].get(name)
    if known is not None and known != watched_code(load_pipeline(name, path).environment.use, path.parent):
        todo = f"run `make run PIPELINE={name}`, which corrects the entry"
        raise ApprenticeError(f"the entry does not name the code of {name!r}'s use case", where=f"{path}: active.{name}", todo=todo)


@contextmanager
def _edited(path: Path) -> Iterator[Any]:
    """Yield the document with its comments, and write it back if the block changes it and raises nothing.

    Raises:
        ApprenticeError: the new text does not parse to the same values, or a stage is running. The file is then
            unchanged.
    """
    yaml = YAML()
    yaml.width = 160
    yaml.preserve_quotes = True
    found = path.read_text(encoding="utf-8")
    document = yaml.load(found)
    before = _dumped(yaml, document)
    yield document
    after = _dumped(yaml, document)
    if after != before:
        _check_written(after, document, path)
        with writing_params(path.parent):
            if path.read_text(encoding="utf-8") != found:
                raise ApprenticeError("another process changed the file at the same time", where=path, todo="run again")
            write_text(path, after)


def _check_written(text: str, document: Any, path: Path) -> None:
    try:
        same = YAML(typ="safe").load(text) == _plain(document)
    except YAMLError:
        same = False
    if not same:
        what = "the override was not written, because the file would not parse to the same values"
        raise ApprenticeError(what, where=path, todo="write the value into the file by hand, in quotes")


def _plain(node: Any) -> Any:
    """Return the document as dicts and lists, with merge keys resolved."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list) else node


def _dumped(yaml: YAML, document: Any) -> str:
    text = StringIO()
    yaml.dump(document, text)
    return text.getvalue()


def _set(node: Any, override: str) -> str | None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ApprenticeError(f"{redacted(override)!r} is not an override", todo="write section.key=value, such as train.learning_rate=1e-5")
    *sections, key = dotted.split(".")
    for section in sections:
        if not isinstance(node, Mapping) or section not in node:
            known = node if isinstance(node, Mapping) else ()
            raise ApprenticeError(redacted(f"there is no section {section!r}{_did_you_mean(section, known)}"), where=redacted(override))
        node = node[section]
    if not isinstance(node, Mapping) or key not in node:
        known = node if isinstance(node, Mapping) else ()
        raise ApprenticeError(redacted(f"there is no parameter {dotted!r}{_did_you_mean(key, known)}"), where=redacted(override))
    before, after = node[key], _scalar(text)
    if before == after:
        return None
    node[key] = DoubleQuotedScalarString(after) if isinstance(after, str) and not PLAIN.fullmatch(after) else after
    return f"{dotted}: {before} -> {after}"


def _scalar(text: str) -> Any:
    """Parse an override's value as a YAML number, boolean, null, or quoted string; any other value is a plain
    string."""
    if _is_number(text) and not _is_integer(text):
        return float(text)
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        return text
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return value if quoted or ("#" not in text and isinstance(value, bool | int | float | None)) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_integer(text: str) -> bool:
    return text.lstrip("+-").isdigit()


def _validated(values: Any, name: str, path: Path) -> PipelineConfig:
    model = _model(values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(detail, model) for detail in error.errors())
        raise ApprenticeError(f"pipeline {name!r}: {problems}", where=path) from None


def _model(values: Any) -> type[PipelineConfig]:
    """Return the model with the sections of the use case; without a use case, the plain model, whose validation reports
    it."""
    environment = values.get("environment") if isinstance(values, Mapping) else None
    use = environment.get("use") if isinstance(environment, Mapping) else None
    if not isinstance(use, str):
        return PipelineConfig
    found = find_use_case(use)
    return pipeline_model(found.environment_config, found.data_config)


def _problem(detail: Mapping[str, Any], model: type[PipelineConfig]) -> str:
    keys, known = _place(detail["loc"], model)
    place = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        return f"unknown parameter {place!r}{_did_you_mean(keys[-1], known)}"
    if detail["type"] == "missing":
        return f"parameter {place!r} is missing"
    said = str(detail["ctx"]["error"]) if detail["type"] == "value_error" else detail["msg"]
    given = "" if isinstance(detail["input"], Mapping) else f", not {detail['input']!r}"
    return redacted(f"{place}: {said[0].lower()}{said[1:]}{given}")


def _place(location: Iterable[Any], model: type[BaseModel]) -> tuple[list[str], list[str]]:
    """Return the path of keys to an error, and the valid keys at its last level."""
    keys, known, section = [], [], model
    for part in map(str, location):
        fields = {field.alias or name: field for name, field in section.model_fields.items()} if section else {}
        keys.append(part)
        known, field = list(fields), fields.get(part)
        section = field.annotation if field and _is_section(field.annotation) else None
    return keys, known


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
