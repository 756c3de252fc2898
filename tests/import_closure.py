"""The modules that a module imports, directly or through others, read from the source without importing anything."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def source_of(module: str) -> Path | None:
    """The file of one of the project's modules; None if the name is no module of its own."""
    path = ROOT / Path(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; what only type checkers import is left out."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def closure(*files: Path, package: str = "apprentice") -> set[Path]:
    """The files, and every file of the package that they import, directly or through others; relative to the project's root."""
    found, pending = set(), list(files)
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        names = {name for name in imported(path) if name.split(".")[0] == package}
        parents = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
        pending += [file for name in parents if (file := source_of(name))]
    return {path.relative_to(ROOT) for path in found}
