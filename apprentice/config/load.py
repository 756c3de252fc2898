"""Reads a pipeline from params.yaml, and writes into it: overrides, and which pipelines are active."""

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
"""A pipeline's name: it is part of paths, of commands and of what Prefect, DVC and MLflow store."""
PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
"""Texts written without quotes, unless YAML reads them as something else; ruamel quotes those itself."""


def read_document(path: Path) -> dict:
    """The whole of params.yaml as plain values.

    Raises:
        ApprenticeError: it is missing, is no UTF-8, is no YAML, holds no pipelines, or one whose name could be taken for something else.
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
        raise ApprenticeError(f"is not YAML: {getattr(error, 'problem', error)}", where=where) from None
    if not isinstance(document, dict) or not isinstance(document.get("pipelines"), dict):
        raise ApprenticeError("has no `pipelines`", where=path)
    if not isinstance(document.setdefault("active", {}), dict):
        raise ApprenticeError(
            "`active` is not a mapping of pipelines to the code that DVC watches", where=path, todo="write `active: {}`; `make run` fills it in"
        )
    if strange := [name for name in document["pipelines"] if not NAME.fullmatch(str(name))]:
        raise ApprenticeError(f"a pipeline cannot be called {strange[0]!r}", where=path, todo="use at most 64 letters, digits, dashes and underscores")
    return document


def pipeline_names(path: Path = PARAMS) -> list[str]:
    """The pipelines of params.yaml, in its order."""
    return list(read_document(path)["pipelines"])


def load_pipeline(name: str, path: Path = PARAMS) -> PipelineConfig:
    """The parameters of one pipeline.

    Raises:
        ApprenticeError: params.yaml cannot be read, has no such pipeline, or a key is unknown, missing or wrong.
    """
    document = read_document(path)
    pipelines = document["pipelines"]
    if name not in pipelines:
        raise ApprenticeError(f"no pipeline {name!r}{_did_you_mean(name, pipelines)}", where=path, todo=f"choose one of {', '.join(pipelines)}")
    return _validated(pipelines[name], name, path)


def set_overrides(name: str, overrides: Iterable[str], path: Path = PARAMS) -> list[str]:
    """Writes `section.key=value` overrides of one pipeline into params.yaml; comments stay.

    Returns:
        One line a changed value, for people.

    Raises:
        ApprenticeError: an override is malformed, or the result is no valid pipeline (the file is then unchanged).
    """
    overrides = list(overrides)
    load_pipeline(name, path)
    if not overrides:
        return []
    with _edited(path) as document:
        changes = _overridden(document, name, overrides, path)
    return [redacted(f"{path}: pipelines.{name}.{change}") for change in changes if change]


def check_overrides(name: str, overrides: Iterable[str], path: Path = PARAMS) -> None:
    """Raises what `set_overrides` would, and writes nothing."""
    load_pipeline(name, path)
    _overridden(YAML().load(path.read_text(encoding="utf-8")), name, overrides, path)


def _overridden(document: Any, name: str, overrides: Iterable[str], path: Path) -> list[str | None]:
    """Applies the overrides to the document; what each changed."""
    changes = [_set(document["pipelines"][name], override) for override in overrides]
    _validated(document["pipelines"][name], name, path)
    return changes


def activate(name: str, path: Path = PARAMS) -> None:
    """Adds a pipeline to those that DVC knows, with the code of its use case that DVC watches.

    Raises:
        ApprenticeError: params.yaml cannot be read, or has no such pipeline.
    """
    watched = watched_code(load_pipeline(name, path).environment.use, path.parent)
    if read_document(path)["active"].get(name) != watched:
        with _edited(path) as document:
            document.setdefault("active", {})[name] = watched


def check_active(name: str, path: Path = PARAMS) -> None:
    """Refuses a pipeline for which DVC watches the code of another use case: its results would seem up to date when they are not.

    Raises:
        ApprenticeError: with the command that mends it.
    """
    known = read_document(path)["active"].get(name)
    if known is not None and known != watched_code(load_pipeline(name, path).environment.use, path.parent):
        todo = f"run `make run PIPELINE={name}`, which corrects it"
        raise ApprenticeError(f"DVC does not watch the code of the use case of {name!r}", where=f"{path}: active.{name}", todo=todo)


@contextmanager
def _edited(path: Path) -> Iterator[Any]:
    """Yields the document with its comments, and writes it back where the block changed it and ended well.

    Raises:
        ApprenticeError: the text to write does not parse back to the same values, or a stage runs (the file is then unchanged).
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
                raise ApprenticeError("another process has just changed it", where=path, todo="run again")
            write_text(path, after)


def _check_written(text: str, document: Any, path: Path) -> None:
    try:
        same = YAML(typ="safe").load(text) == _plain(document)
    except YAMLError:
        same = False
    if not same:
        raise ApprenticeError("the changed file would not read back as the same values", where=path, todo="put the value into the file by hand, in quotes")


def _plain(node: Any) -> Any:
    """The document as dicts and lists, with the keys that `<<` merges in."""
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
            raise ApprenticeError(redacted(f"no section {section!r} in {dotted!r}{_did_you_mean(section, known)}"), where=redacted(override))
        node = node[section]
    if not isinstance(node, Mapping) or key not in node:
        known = node if isinstance(node, Mapping) else ()
        raise ApprenticeError(redacted(f"no parameter {dotted!r}{_did_you_mean(key, known)}"), where=redacted(override))
    before, after = node[key], _scalar(text)
    if before == after:
        return None
    node[key] = DoubleQuotedScalarString(after) if isinstance(after, str) and not PLAIN.fullmatch(after) else after
    return f"{dotted}: {before} -> {after}"


def _scalar(text: str) -> Any:
    """The number, truth value, null or quoted text that an override's value spells in YAML; any other value is text as it stands."""
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
    """The model of a pipeline with its use case's sections; the plain one where the use case is missing, so that validation says so."""
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
    """The keys that lead to an error, and the keys known beside the last one."""
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
