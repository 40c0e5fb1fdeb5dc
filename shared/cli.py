"""Command lines: one typed settings class per command, read from flags, environment and a TOML file.

A value comes from its flag, else from its environment variable, else from `--config FILE.toml`, else from the
default. pydantic-settings makes the flags from the fields; each value is checked where it enters, so that a
message names the flag, variable or key that the user wrote.
"""

import difflib
import os
import re
import shlex
import sys
import tomllib
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json
from pydantic_settings import CliSettingsSource

from kronos_shared.atomic import why_not_writable
from kronos_shared.errors import KronosError

Command = Callable[[Sequence[str]], int | None]
"""What a command does with its flags; it returns an exit code, or None for 0."""

PROJECT = "kronos-events"
OUR_PACKAGES = ("kronos_service", "kronos_shared")
FINITE = ConfigDict(allow_inf_nan=False)
DATE_FORM = ": write YYYY-MM-DD, such as 2025-06-10"
EXIT_CODES = "0 done, 2 a mistake, 130 interrupted"


class ConfigError(KronosError):
    """A flag, an environment variable or a key of a config file is unknown or has a value that cannot be."""


class Settings(BaseModel):
    """Base of every command's settings: frozen, and checked whenever they are made.

    Raises:
        ConfigError: on construction, with every field that is missing, unknown, mistyped or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, **FINITE)

    aliases: ClassVar[Mapping[str, str]] = {}
    """Earlier names of fields that flags and config files may still use."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Earlier flags, and what to write instead."""
    longer: ClassVar[tuple[str, ...]] = ()
    """Commands whose names begin with this one's: their variables are not misspelt ones of this."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error)) from None

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some fields changed."""
        return type(self)(**dict(self) | changes)


SettingsT = TypeVar("SettingsT", bound=Settings)


def parse(
    settings: type[SettingsT], argv: Sequence[str], *, prog: str, description: str, epilog: str = ""
) -> SettingsT:
    """A command's settings from all its sources; see `parse_given`."""
    return settings(**parse_given(settings, argv, prog=prog, description=description, epilog=epilog))


def parse_given(
    settings: type[Settings], argv: Sequence[str], *, prog: str, description: str, epilog: str = ""
) -> dict[str, Any]:
    """Only the values that a flag, a variable or the `--config` file gives, checked, by field.

    Raises:
        ConfigError: something unknown, mistyped or out of range.
        SystemExit: `--help` was asked for and shown.
    """
    variables = variable_prefix(prog.split()[-1])
    flags = _read_flags(settings, argv, prog, description, _epilog(settings, epilog, variables))
    file = flags.pop("config", None)
    values = _read_file(settings, file) if file else {}
    return values | _read_environment(settings, variables) | flags


def check(settings: type[Settings], name: str, value: Any, shown: str, *, strict: bool = False) -> Any:
    """The value as the field's type, where it is within the field's range.

    Args:
        shown: how the user wrote the name.
        strict: accept no text for a number, as in TOML, which has types of its own.

    Raises:
        ConfigError: the value cannot be one of this field.
    """
    info = settings.model_fields[name]
    if date in (info.annotation, *get_args(info.annotation)) and isinstance(value, str):
        _require_iso(value, shown)
    adapter: TypeAdapter[Any] = TypeAdapter(cast("Any", Annotated[info.annotation, info]), config=FINITE)
    try:
        # In JSON a strict Path or date is text, as it is in TOML.
        return (
            adapter.validate_json(to_json(value), strict=True) if strict else adapter.validate_python(value)
        )
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError("; ".join(_fault(one, shown, strict) for one in faults)) from None


def _require_iso(text: str, shown: str) -> None:
    """pydantic would take a number for seconds since 1970."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            date.fromisoformat(text)
            return
    except ValueError:
        pass
    raise ConfigError(f"{shown} must be a valid date, got {text}{DATE_FORM}")


def variable_prefix(command: str) -> str:
    """How the environment variables of a command begin: `KRONOS_EVENT_LORA_`."""
    return f"KRONOS_{command.replace('-', '_').upper()}_"


def flag(name: str) -> str:
    """The flag of a field: `--run-dir` of `run_dir`."""
    return "--" + name.replace("_", "-")


def command_line(program: str, command: str, flags: Mapping[str, object]) -> str:
    """A command as it is typed in a shell; flags by their fields' names, without those that are None.

    A list gives one flag several values, and True is a flag without any.
    """
    words = []
    for name, value in flags.items():
        if value is not None:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [flag(name), *map(str, values)]
    return f"{program} {command} {shlex.join(words)}".rstrip()


def require_writable(directory: Path, shown: str) -> None:
    """Check that results can be written to a directory, which need not exist yet, before they are made.

    Raises:
        ConfigError: they cannot.
    """
    if why := why_not_writable(directory):
        raise ConfigError(f"{shown} cannot be written to: {why}")


def run_command(program: str, commands: Mapping[str, Command], argv: Sequence[str] | None) -> int:
    """Run the command that `argv` (default: the process's) names first, with the rest of it.

    Returns its exit code (0 on success), 2 with one line on stderr for a mistake the user can fix, or 130
    when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_overview(program, commands))
        return 0 if argv else 2
    try:
        if argv[0] not in commands:
            if argv[0].startswith("-"):
                raise ConfigError(f"a command comes before {argv[0]}: one of {', '.join(commands)}")
            advice = did_you_mean(argv[0], commands)
            raise ConfigError(f"unknown command {argv[0]!r}{advice}; there are {', '.join(commands)}")
        return commands[argv[0]](argv[1:]) or 0
    except KronosError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Around the imports of a command that needs an optional part of the package.

    Raises:
        ConfigError: it is not installed; the line says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(OUR_PACKAGES):
            raise
        raise ConfigError(f"{error.name} is not installed: pip install '{PROJECT}[{extra}]'") from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean X?` for the nearest of the known words, or for the one that the word is a part of, or
    nothing where none is near. Case and leading dashes do not count.
    """
    bare = {one.lstrip("-").lower(): one for one in known}
    given = word.lstrip("-").lower()
    parts = [name for name in bare if len(given) > 2 and given in name]
    near = difflib.get_close_matches(given, bare, n=1) or (parts if len(parts) == 1 else [])
    return f", did you mean {bare[near[0]]}?" if near else ""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def _read_flags(
    settings: type[Settings], argv: Sequence[str], prog: str, description: str, epilog: str
) -> dict[str, Any]:
    parser = _Parser(
        prog=prog,
        usage="%(prog)s [flags]",
        description=description,
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if settings.model_fields:
        parser.add_argument(
            "--config", metavar="FILE.toml", default=SUPPRESS, help="read settings from this file; flags win"
        )
    CliSettingsSource(
        cast("Any", settings),
        root_parser=parser,
        add_argument_method=_add_flag,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
    )
    given, unknown = parser.parse_known_args([_current(settings, word) for word in argv])
    if unknown:
        word = unknown[0].partition("=")[0]  # what follows may be a secret
        what = "unknown flag" if word.startswith("-") else "expected a flag, got"
        raise ConfigError(f"{what} {word}{_advice(settings, word, _flags(settings))} (see {prog} --help)")
    flags = vars(given)
    file = {"config": Path(flags.pop("config"))} if "config" in flags else {}
    return file | {name: check(settings, name, value, flag(name)) for name, value in flags.items()}


def _add_flag(parser: ArgumentParser, *names: str, **keywords: Any) -> None:
    """argparse's own, but a flag of several values takes one or more at once and may also be repeated."""
    metavar = keywords.get("metavar", "")
    if metavar.startswith("tuple["):
        metavar = metavar.removeprefix("tuple[").removesuffix(",...]")
        keywords |= {"action": "extend", "nargs": "+", "metavar": (metavar, "{..}")}
    if metavar.startswith("{Path,"):  # a directory, or what else names a place (adapter_location)
        keywords["metavar"] = "PLACE"
    elif metavar and not metavar.startswith("{"):
        keywords["metavar"] = metavar.upper()
    keywords["help"] = re.sub(r"\(default: (null|\(\))\)$", "(default: none)", keywords["help"])
    parser.add_argument(*names, **keywords)


def _current(settings: type[Settings], word: str) -> str:
    """The word of a command line, with the flag's current name."""
    name, equals, value = word.partition("=")
    for old, new in settings.aliases.items():
        if name == flag(old):
            return flag(new) + equals + value
    return word


def _flags(settings: type[Settings]) -> list[str]:
    """Every flag that a command takes."""
    switches = [name for name, info in settings.model_fields.items() if info.annotation is bool]
    negated = ["--no-" + flag(name).removeprefix("--") for name in switches]
    return [*map(flag, settings.model_fields), *negated, "--config", "--help"]


def _advice(settings: type[Settings], word: str, known: Iterable[str]) -> str:
    """What to write instead: a flag that is renamed in one command may be unknown to another."""
    renamed = settings.renamed.get(word.lstrip("-").replace("-", "_"), "")
    is_ours = renamed.partition(" ")[0] in _flags(settings)
    return f", which is now {renamed}" if is_ours else did_you_mean(word, known)


def _read_environment(settings: type[Settings], prefix: str) -> dict[str, Any]:
    values = {}
    others = tuple(map(variable_prefix, settings.longer))
    for variable, text in os.environ.items():
        if variable.startswith(prefix) and not variable.startswith(others):
            name = variable.removeprefix(prefix).lower()
            if name not in settings.model_fields:
                known = [prefix + field.upper() for field in settings.model_fields]
                raise ConfigError(f"unknown environment variable {variable}{did_you_mean(variable, known)}")
            several = get_origin(settings.model_fields[name].annotation) is tuple
            values[name] = check(settings, name, shlex.split(text) if several else text, variable)
    return values


def _read_file(settings: type[Settings], path: Path) -> dict[str, Any]:
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
        name = settings.aliases.get(name, name)
        if name not in settings.model_fields:
            raise ConfigError(f"{path}: unknown key {key}{_advice(settings, name, settings.model_fields)}")
        values[name] = check(settings, name, value, f"{path}: {key}", strict=True)
    return values


def _sentence(settings: type[Settings], error: ValidationError) -> str:
    """All faults of a construction in one line; what is missing comes first."""
    faults = error.errors(include_url=False)
    missing = [flag(str(one["loc"][0])) for one in faults if one["type"] == "missing"]
    sentences = [f"required: {', '.join(missing)}"] if missing else []
    for one in faults:
        name = str(one["loc"][0]) if one["loc"] else ""
        if one["type"] == "extra_forbidden":
            sentences.append(f"unknown setting {name}{did_you_mean(name, settings.model_fields)}")
        elif one["type"] != "missing":
            sentences.append(_fault(one, flag(name), strict=False))
    return "; ".join(sentences)


def _fault(error: ErrorDetails, shown: str, strict: bool) -> str:
    """What is wrong with one value, in pydantic's words: what was expected, and what came."""
    if error["type"] == "value_error":  # a rule of ours, which names its flags itself
        return str(error["ctx"]["error"])
    words = error["msg"] if error["type"] == "literal_error" else error["msg"].partition(", ")[0]
    expected = re.sub(r"^\w+ (should|is)", "must", words)
    near = ""
    if error["type"] == "literal_error":
        near = did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    elif error["type"].startswith("date_"):
        expected, near = "must be a valid date", DATE_FORM
    got = repr(error["input"]) if strict or error["input"] in ("", None) else str(error["input"])
    return f"{shown} {expected}, got {got}{near}"


def _epilog(settings: type[Settings], text: str, variables: str) -> str:
    """What a command says of itself, and of the environment and exit codes where it does not."""
    paragraphs = [text.strip("\n")]
    if settings.model_fields:
        example = variables + next(iter(settings.model_fields)).upper()
        paragraphs.append(
            f"environment: {example}=... and so on give what no flag gives, ahead of --config;\n"
            "  blanks separate several values"
        )
    if "exit code" not in text:
        paragraphs.append(f"exit code: {EXIT_CODES}")
    return "\n\n".join(filter(None, paragraphs))


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    lines = [f"  {name:<12} {command.__doc__}" for name, command in commands.items()]
    return "\n".join([f"usage: {program} COMMAND [--help] [flags]", "", "commands:", *lines, ""])
