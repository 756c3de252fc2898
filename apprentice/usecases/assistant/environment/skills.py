"""Functions that the agent keeps for later tasks.

The agent writes `@keep` above a function with a docstring. In a later task of the scenario the function is defined, and
the first message lists it. (Wang et al. 2025, "Reinforcement Learning for Self-Improving Agent with Skill Library".)
"""

import ast
import builtins
import textwrap
from collections.abc import Sequence

from apprentice.records import Skill

DECORATOR = "keep"
LINE = 200
"""Maximum length of a function's line in the first message, in which several must fit; longer ones are not kept."""
LOG_IN = "log_in"
"""Name of the function that the expert keeps."""
KNOWN = {"apis", *dir(builtins)}
"""Names that every world defines."""
TAKEN = KNOWN | set(
    "ApiCollection Counter Date DateTime In Iterator Out Requester Time MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY "
    "builtins calendar datetime deepcopy defaultdict display get_ipython itertools json math pendulum random re reduce requester".split()
)
"""Names that a kept function may not have, because it would change the meaning of later code."""
NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


def skills_of(code: str, scenario: str) -> list[Skill]:
    """Return the functions under `@keep` at the top level of a block.

    A function is ignored unless it has a short description, a free name, and constants as defaults.
    """
    try:
        body = ast.parse(code).body
        skills = [_skill(node, scenario) for node in body if isinstance(node, ast.FunctionDef) and _is_kept(node)]
    except NOT_PYTHON:
        return []
    return [skill for skill in skills if len(_line(skill)) <= LINE]


def _is_kept(function: ast.FunctionDef) -> bool:
    marks = [mark.id if isinstance(mark, ast.Name) else "" for mark in function.decorator_list]
    defaults = [*function.args.defaults, *filter(None, function.args.kw_defaults)]
    described = bool((ast.get_docstring(function) or "").strip())
    return marks == [DECORATOR] and described and _is_free(function.name) and all(isinstance(value, ast.Constant) for value in defaults)


def _is_free(name: str) -> bool:
    return name not in TAKEN and name != DECORATOR and not name.startswith("_")


def _skill(function: ast.FunctionDef, scenario: str) -> Skill:
    """Return the function without its mark and without annotations, whose names another world may not know."""
    function.decorator_list, function.returns = [], None
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    description = ast.get_docstring(function).splitlines()[0]
    return Skill(
        scenario=scenario, name=function.name, signature=f"{function.name}({ast.unparse(function.args)})", description=description, code=ast.unparse(function)
    )


def prelude(skills: Sequence[Skill]) -> str:
    """Return the first block of a world, which defines the mark and the available functions."""
    return "\n\n".join([f"def {DECORATOR}(function):\n    return function", *(skill.code for skill in skills)])


def notice(skills: Sequence[Skill]) -> str:
    """Return the lines about kept functions in the first message."""
    lines = [f"Put @{DECORATOR} above a function with a docstring, and it is there in my later tasks."]
    if skills:
        lines += ["Functions you kept, ready to be called:", *map(_line, skills)]
    return "\n".join(lines)


def _line(skill: Skill) -> str:
    return f"{skill.signature}: {skill.description}"


def with_skills(plan: Sequence[str], available: Sequence[Skill]) -> list[str]:
    """Return an expert's blocks such that the log-in is a kept function.

    The block that logs in defines the function and calls it, or only calls it if it is available.
    """
    place = next((index for index, block in enumerate(plan) if ".login(" in block), None)
    if place is None or not (function := _as_function(plan[place], plan[place + 1 :])):
        return list(plan)
    definition, call = function
    kept = skills_of(definition, scenario=LOG_IN)[0]
    known = any((skill.name, skill.code) == (kept.name, kept.code) for skill in available)
    return [*plan[:place], call if known else f"{definition}\n\n{call}", *plan[place + 1 :]]


def _as_function(block: str, later: Sequence[str]) -> tuple[str, str] | None:
    """Split a block into a kept function made of its leading assignments, and a call with the rest of the block.

    Returns:
        The definition and the call; None if the assignments need names from elsewhere.
    """
    body = ast.parse(block).body
    head = body[: next((index for index, node in enumerate(body) if not isinstance(node, ast.Assign)), len(body))]
    if not head or _names(head, ast.Load) - _names(head, ast.Store) - KNOWN:
        return None
    lines, end = block.splitlines(), head[-1].end_lineno
    rest = lines[end:]
    read = _names([*body[len(head) :], *(node for other in later for node in ast.parse(other).body)], ast.Load)
    given = ", ".join(target.id for node in head for target in node.targets if isinstance(target, ast.Name) and target.id in read)
    code = textwrap.indent("\n".join(lines[:end]), "    ")
    definition = f'@{DECORATOR}\ndef {LOG_IN}():\n    """Logs me in; gives {given}."""\n{code}\n    return {given}'
    return definition, "\n".join([f"{given} = {LOG_IN}()", *rest])


def _names(nodes: Sequence[ast.stmt], context: type[ast.expr_context]) -> set[str]:
    """Return the names that statements read or write."""
    return {node.id for top in nodes for node in ast.walk(top) if isinstance(node, ast.Name) and isinstance(node.ctx, context)}
