"""Rejects infinities and NaN: AppWorld's APIs accept them as amounts, but its databases cannot be saved with them."""

import math
from collections.abc import Iterable, Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import ModelField


def require_finite(routes: Iterable[APIRoute]) -> None:
    """Require finite arguments in routes that change something; the app answers others as any invalid argument.

    Routes that only read still accept infinities, which are legitimate bounds of a search.
    """
    for route in routes:
        if isinstance(route, APIRoute) and route.methods != {"GET"}:
            for field in _numbers(_arguments(route.dependant)):
                if _finite not in field.validators:
                    field.validators = [*field.validators, _finite]


def _arguments(dependant: Dependant) -> Iterator[ModelField]:
    yield from (*dependant.path_params, *dependant.query_params, *dependant.body_params)
    for needed in dependant.dependencies:
        yield from _arguments(needed)


def _numbers(fields: Iterable[ModelField]) -> Iterator[ModelField]:
    """Yield the fields that hold a float, nested ones included."""
    for field in fields:
        if field.sub_fields:
            yield from _numbers(field.sub_fields)
        elif isinstance(field.type_, type) and issubclass(field.type_, BaseModel):
            yield from _numbers(field.type_.__fields__.values())
        elif isinstance(field.type_, type) and issubclass(field.type_, float):
            yield field


def _finite(_cls, value: float, _values, _field, _config) -> float:
    """Validate one value; pydantic calls this function."""
    if not math.isfinite(value):
        raise ValueError("ensure this value is a finite number")
    return value
