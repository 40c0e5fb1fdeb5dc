"""Command-line flags and config files from one dataclass per command.

A command's settings are a frozen, keyword-only dataclass whose fields are made by `option`. Flags,
`--help` and the keys of `--config FILE.toml` all come from those fields, so there is one place for each
default. A flag beats the file, the file beats the default.
"""

import argparse
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from datetime import date
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from kronos_shared.errors import KronosError


class ConfigError(KronosError):
    """A flag or a key of a config file is unknown, of the wrong type, or out of range."""


class Settings(Protocol):
    """Any dataclass whose fields come from `option`."""

    __dataclass_fields__: typing.ClassVar[dict[str, Field[Any]]]


SettingsT = TypeVar("SettingsT", bound=Settings)


def option(default: Any = MISSING, *, help: str, choices: Sequence[str] = ()) -> Any:
    """A dataclass field with the help text of its flag; without a default the flag is required."""
    return field(default=default, metadata={"help": help, "choices": tuple(choices)})


def same(settings: type[Settings], name: str) -> Any:
    """The option of that name in another command's settings: one place for its default and help text."""
    other = settings.__dataclass_fields__[name]
    return field(default=other.default, metadata=dict(other.metadata))


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message unless the condition holds (for `__post_init__` range checks)."""
    if not condition:
        raise ConfigError(message)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def parse(settings: type[SettingsT], argv: Sequence[str], *, prog: str, description: str) -> SettingsT:
    """Build a command's settings from its flags and an optional `--config` TOML file.

    Raises:
        ConfigError: unknown flag or key, wrong type, missing required value, or a range check of the
        settings.
    """
    values = parse_given(settings, argv, prog=prog, description=description)
    missing = [item.name for item in fields(settings) if item.default is MISSING and item.name not in values]
    if missing:
        raise ConfigError(f"required: {', '.join(map(flag, missing))} (see {prog} --help)")
    return settings(**values)


def parse_given(
    settings: type[SettingsT], argv: Sequence[str], *, prog: str, description: str
) -> dict[str, Any]:
    """Only the values that flags or the `--config` file name, by field.

    Raises:
        ConfigError: unknown flag or key, or wrong type.
    """
    parser = _Parser(
        prog=prog,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="read settings from this file; flags win"
    )
    hints = typing.get_type_hints(settings)
    for item in fields(settings):
        _add_flag(parser, item, _base_type(hints[item.name]))
    flags: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(parser.parse_args(argv)).items()
    }
    config_file = flags.pop("config", None)
    return (_read_config(config_file, settings) if config_file else {}) | flags


def restore(settings: type[SettingsT], stored: Mapping[str, Any]) -> SettingsT:
    """Settings from what JSON made of them: dates and paths as text, tuples as lists.

    Raises:
        ConfigError: a name that is no field, or a value out of range.
    """
    hints = typing.get_type_hints(settings)
    unknown = sorted(set(stored) - {item.name for item in fields(settings)})
    if unknown:
        raise ConfigError(f"unknown settings {', '.join(unknown)}: written by another version")
    return settings(**{name: _from_json(value, _base_type(hints[name])) for name, value in stored.items()})


def _from_json(value: Any, kind: type) -> Any:
    if value is None or type(value) is kind:
        return value
    if _element(kind) is not kind:
        return tuple(_from_json(one, _element(kind)) for one in value)
    return _converter(kind)(value)


def _add_flag(parser: argparse.ArgumentParser, item: Field[Any], kind: type) -> None:
    default = "required" if item.default is MISSING else f"default: {_shown(item.default)}"
    text = f"{item.metadata['help']} ({default})".replace("%", "%%")
    if kind is bool:
        parser.add_argument(flag(item.name), action=argparse.BooleanOptionalAction, help=text)
        return
    choices = item.metadata["choices"] or None
    metavar = None if choices else _element(kind).__name__.upper()
    # Of several values, a flag takes one or more, and may be repeated.
    several: dict[str, Any] = {"action": "extend", "nargs": "+"} if _element(kind) is not kind else {}
    parser.add_argument(
        flag(item.name),
        type=_converter(_element(kind)),
        choices=choices,
        metavar=metavar,
        help=text,
        **several,
    )


def _read_config(path: Path, settings: type[Settings]) -> dict[str, Any]:
    hints = typing.get_type_hints(settings)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}") from None
    except OSError as error:
        raise ConfigError(f"cannot read config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "see --help for the keys there are"
            raise ConfigError(f"{path}: unknown key {key!r}; {advice}")
        values[name] = _from_toml(path, key, value, _base_type(hints[name]))
        choices = settings.__dataclass_fields__[name].metadata["choices"]
        if choices and values[name] not in choices:
            raise ConfigError(f"{path}: {key} must be one of {', '.join(choices)}, got {value!r}")
    return values


def _from_toml(path: Path, key: str, value: Any, kind: type) -> Any:
    if _element(kind) is not kind:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {key} must be a list, got {value!r}")
        return tuple(_from_toml(path, key, one, _element(kind)) for one in value)
    if (kind, type(value)) in ((float, int), (Path, str)):
        return kind(value)
    if type(value) is not kind:
        raise ConfigError(f"{path}: {key} must be {kind.__name__}, got {value!r}")
    return value


def _converter(kind: type) -> Any:
    return date.fromisoformat if kind is date else kind


def _base_type(hint: Any) -> type:
    """The T of `T` or `T | None`."""
    if isinstance(hint, types.UnionType):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return typing.cast(type, hint)


def _element(kind: type) -> type:
    """The T of `tuple[T, ...]`; any other type is its own element."""
    return typing.cast(type, typing.get_args(kind)[0]) if typing.get_origin(kind) is tuple else kind


def flag(name: str) -> str:
    """The flag of a field: `--run-dir` of `run_dir`."""
    return "--" + name.replace("_", "-")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value in (None, ()) else str(value)
