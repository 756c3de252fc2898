"""Infinities and NaN: AppWorld's APIs take them as amounts, and its databases cannot be saved with them."""

import math
from collections.abc import Iterable, Iterator

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import ModelField


def refuse_infinite(routes: Iterable[APIRoute]) -> None:
    """Makes the arguments of routes that change something finite; where one is not, the app answers as for any argument that it cannot take.

    Reading takes infinities as before: they are fair bounds of a search.
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
    """The fields, and what is inside them, that hold a float."""
    for field in fields:
        if field.sub_fields:
            yield from _numbers(field.sub_fields)
        elif isinstance(field.type_, type) and issubclass(field.type_, BaseModel):
            yield from _numbers(field.type_.__fields__.values())
        elif isinstance(field.type_, type) and issubclass(field.type_, float):
            yield field


def _finite(_cls, value: float, _values, _field, _config) -> float:
    """A validator as pydantic calls it."""
    if not math.isfinite(value):
        raise ValueError("ensure this value is a finite number")
    return value
