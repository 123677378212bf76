"""The rules of the house, checked on the source text alone.

Each rule is a function of a `House` (the parsed modules of one package) and returns the violations,
one line each; nothing is imported and nothing is run. `test_architecture.py` applies them to the
project, and to small made-up houses to see that they can fail.
"""

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import attrs

# Modules of `twisted.internet` that hold values and interfaces, but neither reactor nor socket.
_PURE_INTERNET = frozenset({"interfaces", "address", "error", "defer"})
_SOCKET_MODULES = frozenset(
    {"asyncio", "select", "selectors", "socket", "socketserver", "ssl", "OpenSSL"}
)
_REACTOR_PACKAGES = ("twisted.application", "twisted.protocols", "twisted.web")


@attrs.frozen
class Module:
    """One source file.

    :ivar name: dotted, without the package's own name; a package's `__init__` has the package's.
    :ivar isPackage: whether the file is an `__init__`.
    """

    name: str
    isPackage: bool
    source: str = attrs.field(repr=False)
    tree: ast.Module = attrs.field(repr=False, eq=False)


@attrs.frozen
class House:
    """All modules of one package, by name."""

    package: str
    modules: Mapping[str, Module]

    @classmethod
    def read(cls, directory: Path) -> "House":
        """Parse every module under the package's directory."""
        modules = {}
        for path in sorted(directory.rglob("*.py")):
            parts = path.relative_to(directory).with_suffix("").parts
            isPackage = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if isPackage else parts)
            source = path.read_text(encoding="utf-8")
            modules[name] = Module(name, isPackage, source, ast.parse(source, str(path)))
        return cls(directory.name, modules)

    def imports(self, module: Module) -> set[str]:
        """Return every dotted name that the module imports, in any branch or function.

        `from a import b` gives `a.b`, whether b is a module or not; relative names are made whole.
        """
        found: set[str] = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(module, node)
                found.update(f"{base}.{alias.name}" for alias in node.names)
        return found

    def _base(self, module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = [self.package, *filter(None, module.name.split("."))]
        here = here[: len(here) - node.level + module.isPackage]
        return ".".join([*here, *filter(None, [node.module])])

    def neighbours(self, module: Module) -> set[str]:
        """Return the names of the package's own modules that the module imports."""
        found = set()
        for name in self.imports(module):
            parts = name.split(".")
            if parts[0] != self.package:
                continue
            inner = parts[1:]
            while ".".join(inner) not in self.modules:
                inner.pop()
            found.add(".".join(inner))
        return found - {module.name}


def floorOf(name: str, floors: Mapping[str, int]) -> int | None:
    """Return a module's floor: its own entry, else that of the first pattern that fits."""
    if name in floors:
        return floors[name]
    return next((floor for pattern, floor in floors.items() if fnmatchcase(name, pattern)), None)


def floorViolations(
    house: House, floors: Mapping[str, int], sideways: Collection[tuple[str, str]]
) -> list[str]:
    """Return imports that do not go down, and modules without a floor.

    Modules of one sub-package may import each other; so may the pairs in `sideways`.
    """
    problems = []
    for module in house.modules.values():
        own = floorOf(module.name, floors)
        if own is None:
            problems.append(f"{module.name}: has no floor")
            continue
        for other in sorted(house.neighbours(module)):
            floor = floorOf(other, floors)
            if floor is None or floor < own or (module.name, other) in sideways:
                continue
            if floor > own or not _sameRoom(module.name, other):
                problems.append(f"{module.name} (floor {own}) imports {other} (floor {floor})")
    return problems


def _sameRoom(one: str, other: str) -> bool:
    """Tell whether both lie in the same sub-package, or one is the other's package."""
    return one.partition(".")[0] == other.partition(".")[0] and "" not in (one, other)


def cycleViolations(house: House) -> list[str]:
    """Return one line for each module that imports itself by way of others."""
    graph = {name: house.neighbours(module) for name, module in house.modules.items()}
    reachable = {name: _reachable(name, graph) for name in graph}
    return [
        f"{name}: is in a cycle with {', '.join(sorted(_ring(name, reachable)))}"
        for name in sorted(graph)
        if name in reachable[name]
    ]


def _reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return seen


def _ring(name: str, reachable: Mapping[str, set[str]]) -> set[str]:
    return {other for other in reachable[name] if name in reachable[other]} - {name}


def twinViolations(house: House, tests: Path) -> list[str]:
    """Return modules without `test_NAME.py` in the same place under `tests`.

    An `__init__` that only re-exports needs none.
    """
    problems = []
    for module in house.modules.values():
        if module.isPackage and not _hasCode(module):
            continue
        *folders, last = (module.name or "init").split(".")
        twin = Path(*folders, f"test_{last}.py")
        if not (tests / twin).is_file():
            problems.append(f"{module.name or house.package}: has no {tests.name}/{twin}")
    return problems


def _hasCode(module: Module) -> bool:
    codeNodes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, codeNodes) for node in module.tree.body)


def globalReactorViolations(house: House, allowed: Collection[str]) -> list[str]:
    """Return modules that name the global reactor without being allowed to."""
    return [
        f"{module.name}: imports the global reactor"
        for module in house.modules.values()
        if module.name not in allowed and _namesReactor(house, module)
    ]


def _namesReactor(house: House, module: Module) -> bool:
    attributes = (n for n in ast.walk(module.tree) if isinstance(n, ast.Attribute))
    return any(
        name.startswith("twisted.internet.reactor") for name in house.imports(module)
    ) or any(ast.unparse(node) == "twisted.internet.reactor" for node in attributes)


def purityViolations(house: House, pure: Iterable[str]) -> list[str]:
    """Return imports of reactors, transports or sockets by modules that must know none.

    :param pure: patterns of module names.
    """
    patterns = list(pure)
    return [
        f"{module.name}: imports {name}"
        for module in house.modules.values()
        if any(fnmatchcase(module.name, pattern) for pattern in patterns)
        for name in sorted(house.imports(module))
        if _touchesNetwork(name)
    ]


def _touchesNetwork(name: str) -> bool:
    parts = name.split(".")
    if parts[0] in _SOCKET_MODULES or name.startswith(_REACTOR_PACKAGES):
        return True
    return parts[:2] == ["twisted", "internet"] and (
        len(parts) < 3 or parts[2] not in _PURE_INTERNET
    )


def wordViolations(house: House, name: str, forbidden: Collection[str]) -> list[str]:
    """Return the forbidden words that a module's code uses in names, imports or constants.

    Comments and docstrings may use them.
    """
    module = house.modules[name]
    used: set[str] = set()
    for text in _texts(module.tree, _docstrings(module.tree)):
        used.update(_words(text))
    return [f"{name}: names {word}" for word in sorted(used & set(forbidden))]


def _docstrings(tree: ast.Module) -> set[int]:
    """Return the ids of the constants that are statements of their own."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _texts(tree: ast.Module, skipped: Collection[int]) -> Iterator[str]:
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        for _, value in ast.iter_fields(node):
            if isinstance(value, bytes):
                yield value.decode("latin-1")
            elif isinstance(value, str):
                yield value


def _words(text: str) -> set[str]:
    """Split identifiers and prose: `parseIMAPLine`, `imap_line` and `an IMAP line` hold imap."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", text)
    joined = re.findall(r"[A-Za-z0-9]+", text)
    return {part.lower() for part in (*parts, *joined)}


def sizeViolations(house: House, functionLimit: int, fileLimit: int) -> list[str]:
    """Return functions and files with more lines than allowed; a function's docstring counts."""
    problems = []
    for module in house.modules.values():
        lines = module.source.count("\n")
        if lines > fileLimit:
            problems.append(f"{module.name}: has {lines} lines")
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > functionLimit:
                    problems.append(f"{module.name}: {node.name} has {length} lines")
    return problems
