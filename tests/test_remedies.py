"""A flag that a message names is one of the command that prints the message, or of one that it names.

From the function of each command on, every function, class and constant that it may reach is read; the
messages are their texts, and the pages they fill.
"""

import ast
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from kronos_service.finetune import commands as finetune
from kronos_service.finetune.event_conditioned.config import RENAMED_FLAGS
from kronos_service.inference import commands as inference
from kronos_shared.cli import Settings, flag, run_command

PACKAGES = ("kronos_service", "kronos_shared")
COMMANDS = {
    name: (entry.__name__, module.__name__)
    for module in (finetune, inference)
    for name, entry in module.COMMANDS.items()
}
"""Command -> its function and that one's module."""
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
EVERYWHERE = {"--config", "--help"}
OTHER_PROGRAMS = {"--logdir"}
"""Flags of TensorBoard."""
OF_ALL_COMMANDS = {"COMMANDS", "_about", "RENAMED_FLAGS"}
"""They name commands and flags, and say nothing; what is said of a renamed flag is tested below."""


class Place(NamedTuple):
    """A name at the top of a module."""

    module: str
    name: str


@cache
def _file(module: str) -> Path | None:
    spec = find_spec(module)
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None, module
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _statements(module: str) -> Mapping[str, list[ast.stmt]]:
    """What makes each name at the top of a module."""
    made: dict[str, list[ast.stmt]] = {}
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                made.setdefault(ast.unparse(target), []).append(node)
    return made


def _imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, Place]]:
    """Names that imports of ours bind: to a name of a module, or to a module (an empty name)."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES):
            for one in node.names:
                inner = f"{node.module}.{one.name}"
                is_module = one.name not in _statements(str(node.module)) and _is_module(inner)
                place = Place(inner, "") if is_module else Place(str(node.module), one.name)
                yield one.asname or one.name, place


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@cache
def _bound(module: str) -> Mapping[str, Place]:
    """What the imports of a module bind, wherever they stand in it."""
    return dict(_imports(ast.walk(_tree(module))))


def _uses(place: Place) -> Iterator[Place]:
    """The places that the code of one names."""
    bound, own = dict(_bound(place.module)), _statements(place.module)
    for statement in own.get(place.name, []):
        bound |= dict(_imports(ast.walk(statement)))  # each function may bind a name anew
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and str(node.value).endswith(".html"):
                called = re.findall(r"(\w+)\.(\w+)\(", "\n".join(_pages(place, str(node.value))))
                yield from (Place(bound[one].module, name) for one, name in called if one in bound)
            elif isinstance(node, ast.Name):
                if node.id in own:
                    yield Place(place.module, node.id)
                elif node.id in bound and bound[node.id].name:
                    yield bound[node.id]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                target = bound.get(node.value.id)
                if target and not target.name:
                    yield Place(target.module, node.attr)


def reached(command: str) -> set[Place]:
    """All that the function of a command may run. A class is reached as a whole."""
    function, module = COMMANDS[command]
    found: set[Place] = set()
    ahead = [Place(module, function)]
    while ahead:
        place = ahead.pop()
        if place in found or place.name in OF_ALL_COMMANDS or _is_another_commands_settings(place, command):
            continue
        found.add(place)
        ahead += _uses(_home(place))
    return {_home(place) for place in found}


def _home(place: Place) -> Place:
    """Where a name is made, which a module may pass on."""
    while place.name not in _statements(place.module) and place.name in _bound(place.module):
        place = _bound(place.module)[place.name]
    return place


@cache
def _settings(command: str) -> type[Settings]:
    """The settings that the function of a command parses."""
    function, module = COMMANDS[command]
    (node,) = _statements(module)[function]
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("parse", "parse_given", "_settings"):
            found: type[Settings] = getattr(importlib.import_module(module), ast.unparse(call.args[0]))
            return found
    raise AssertionError(f"{command} parses no settings")


def _is_another_commands_settings(place: Place, command: str) -> bool:
    """Settings check what they are given: they speak to the commands whose flags they are."""
    # A module that `commands` does not import holds no settings, and may be slow to import.
    made = getattr(sys.modules.get(place.module), place.name, None)
    if not (isinstance(made, type) and issubclass(made, Settings)):
        return False
    return not issubclass(_settings(command), made)


def _flags(command: str) -> set[str]:
    settings = _settings(command)
    switches = [name for name, field in settings.model_fields.items() if field.annotation is bool]
    return {flag(name) for name in settings.model_fields} | {flag(f"no_{name}") for name in switches}


def _texts(place: Place) -> Iterator[str]:
    """The texts of a place, one for each string however it is put together, and of the pages it names."""
    for statement in _statements(place.module).get(place.name, []):
        inside: set[int] = set()
        for node in ast.walk(statement):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                inside.add(id(node.value))  # a docstring
            elif isinstance(node, ast.List):
                inside |= {id(word) for word in node.elts}  # the words of another program's command line
            elif isinstance(node, ast.JoinedStr):
                inside |= {id(part) for part in node.values}
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                yield from _pages(place, node.value) if node.value.endswith(".html") else [node.value]


def _pages(place: Place, name: str) -> Iterator[str]:
    file = _file(place.module)
    assert file is not None
    page = file.with_name(name)
    if page.exists():
        yield from page.read_text(encoding="utf-8").splitlines()


def messages(command: str) -> Iterator[tuple[Place, str]]:
    """Every text of more than one word that names a flag, and where it stands."""
    for place in sorted(reached(command)):
        yield from ((place, text) for text in _texts(place) if " " in text and FLAG.search(text))


def unknown_flags(command: str, text: str) -> set[str]:
    """Flags in a message that neither the command has nor one that the message names."""
    named = [other for other in COMMANDS if re.search(rf"(?<!\w){other}(?!\w)", text)]
    return set(FLAG.findall(text)) - _flags(command).union(EVERYWHERE, OTHER_PROGRAMS, *map(_flags, named))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_that_a_message_names_are_those_of_the_command_that_prints_it(command: str) -> None:
    found = list(messages(command))
    assert found
    wrong = {f"{where.module}: {text}": unknown_flags(command, text) for where, text in found}
    assert {text: flags for text, flags in wrong.items() if flags} == {}


@pytest.mark.parametrize("command", COMMANDS)
def test_advice_on_an_earlier_flag_names_one_that_the_command_has(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = finetune if command in finetune.COMMANDS else inference
    for old in RENAMED_FLAGS:
        if old in _settings(command).aliases or flag(old) in _flags(command):
            continue
        assert run_command("kronos", module.COMMANDS, [command, flag(old)]) == 2
        said = capsys.readouterr().err
        assert f"unknown flag {flag(old)}" in said
        assert set(FLAG.findall(said)) <= _flags(command) | EVERYWHERE | {flag(old)}
