"""Single faults in a module's source: the operators are mutmut's, with two that it lacks.

Not mutated: annotations, decorators, imports, `__all__`, docstrings, the wording of errors and log lines, and
what only a type checker reads. Nor is `strict` of zip: an assertion, which nothing reaches while it holds.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

SKIPPED: Final = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise, cst.FormattedString)
LOGGERS: Final = m.Name("log") | m.Name("logger") | m.Name("_log")
LITERAL: Final = m.Subscript(value=m.Name("Literal"))
LOG_LINE: Final = m.Call(func=m.Attribute(value=LOGGERS))
FOR_TYPES: Final = m.Call(func=m.OneOf(m.Name("cast"), m.Name("TypeVar"), m.Name("NewType")))
EXPORTS: Final = m.Assign(targets=[m.AssignTarget(m.Name("__all__"))])
STRICT: Final = m.Arg(keyword=m.Name("strict"))
CONDITION: Final = m.Name() | m.Attribute() | m.Call() | m.Subscript()


@dataclass(frozen=True, eq=False)
class Mutant:
    """One fault: `was` and `becomes` are the statement's changed lines, `lines` where it stands."""

    path: str
    scope: str
    lines: tuple[int, int]
    was: str
    becomes: str
    source: str

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{self.path}\n{self.source}".encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Fault:
    """A node of a module and what replaces it; `render` makes the mutant, which takes a while."""

    module: "Module"
    node: cst.CSTNode
    new: cst.CSTNode
    scope: str
    lines: tuple[int, int]

    def render(self) -> Mutant:
        tree = cst.ensure_type(self.module.tree.deep_replace(self.node, self.new), cst.Module)
        source = tree.code
        before, after = self.module.source.splitlines(), source.splitlines()
        head = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
        most = min(len(before), len(after)) - head
        tail = next((n for n in range(most) if before[-1 - n] != after[-1 - n]), most)
        was, becomes = (
            "\n".join(line.strip() for line in lines[head : len(lines) - tail]) for lines in (before, after)
        )
        return Mutant(self.module.path, self.scope, self.lines, was, becomes, source)


class Module:
    """A source file and all its faults, in the order of the text."""

    def __init__(self, root: Path, path: str) -> None:
        self.path = path
        self.source = (root / path).read_text(encoding="utf-8")
        wrapper = MetadataWrapper(cst.parse_module(self.source), unsafe_skip_copy=True)
        self.tree = wrapper.module
        collector = _Collector(self)
        wrapper.visit(collector)
        self.faults: Sequence[Fault] = collector.faults


class _Collector(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = module
        self.faults: list[Fault] = []
        self.scopes: list[str] = []
        self.functions = 0
        self.statements: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.BaseStatement | cst.Decorator | cst.ExceptHandler):
            self.statements.append(node)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.scopes.append(node.name.value)
            self.functions += isinstance(node, cst.FunctionDef)
        for new in _removed(node):
            self._add(node, new)
        if _skipped(node):
            return False
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                if not self.functions and operator.__name__ == "operator_assignment":
                    continue  # mostly an alias of a type
                for new in operator(node):
                    if not _without_strict(node, new):
                        self._add(node, new)
                    if operator.__name__ == "operator_string":
                        break  # the two other cases of letters are the same fault
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self.statements and self.statements[-1] is original_node:
            self.statements.pop()
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self.scopes.pop()
            self.functions -= isinstance(original_node, cst.FunctionDef)

    def _add(self, node: cst.CSTNode, new: cst.CSTNode) -> None:
        self.faults.append(Fault(self.module, node, new, ".".join(self.scopes), self._lines(node)))

    def _lines(self, node: cst.CSTNode) -> tuple[int, int]:
        """The lines whose run shows that the fault was reached: the statement's, or of a block its head's."""
        statement = self.statements[-1]
        place = self.get_metadata(PositionProvider, statement)
        if isinstance(statement, cst.SimpleStatementLine):
            return place.start.line, place.end.line
        own = self.get_metadata(PositionProvider, node, place)
        return place.start.line, max(place.start.line, own.end.line)


def _skipped(node: cst.CSTNode) -> bool:
    if isinstance(node, SKIPPED) or m.matches(node, LOG_LINE | FOR_TYPES | STRICT | LITERAL | EXPORTS):
        return True
    if isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString):
        return True
    if m.matches(node, m.If(test=m.Name("TYPE_CHECKING"))):
        return True
    return m.matches(node, m.Call(func=m.Name("len") | m.Name("isinstance")))  # mutmut's own exceptions


def _without_strict(node: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Whether the fault is that zip's argument `strict` is another one, or missing."""
    strict = [arg for arg in getattr(node, "args", ()) if m.matches(arg, STRICT)]
    return bool(strict) and strict[0] not in getattr(new, "args", ())


def _removed(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A call for its effect, or a guard's raise, does not happen."""
    if m.matches(node, m.Raise() | m.Expr(value=m.Call() | m.Await())) and not m.matches(
        node, m.Expr(value=LOG_LINE)
    ):
        yield cst.Pass()


def _negated(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """A condition that is no comparison says the opposite."""
    if m.matches(node.test, CONDITION):
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), node.test))


OPERATORS: Final[Sequence[tuple[Any, Callable[[Any], Any]]]] = (*mutation_operators, (cst.If, _negated))
