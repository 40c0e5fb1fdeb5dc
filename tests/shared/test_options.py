"""Flags and config files from one dataclass."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from kronos_shared.options import ConfigError, option, parse, require


@dataclass(frozen=True, kw_only=True)
class Example:
    out: Path = option(help="where to write")
    rate: float = option(0.5, help="a rate of 100 % of something")
    count: int = option(0, help="a count")
    note: str | None = option(None, help="a note")
    mode: str = option("slow", choices=("slow", "fast"), help="a mode")
    since: date = option(date(2024, 1, 1), help="a day")
    loud: bool = option(False, help="say more")
    files: tuple[Path, ...] = option((), help="some files")

    def __post_init__(self) -> None:
        require(self.count >= 0, f"count must not be negative, got {self.count}")


def read(*argv: str) -> Example:
    return parse(Example, argv, prog="example", description="An example.")


def test_defaults_flags_and_file_in_that_order_of_strength(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('out = "a"\nrate = 2\ncount = 7\nsince = 2025-05-01\nloud = true\n')
    got = read("--config", str(file), "--count", "0", "--no-loud")
    assert got == Example(out=Path("a"), rate=2.0, count=0, since=date(2025, 5, 1), loud=False)


def test_a_falsy_flag_is_not_mistaken_for_an_absent_one() -> None:
    assert read("--out", "x", "--rate", "0").rate == 0.0


def test_a_flag_of_several_values_takes_many_at_once_repeated_or_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('out = "x"\nfiles = ["c.csv", "d.csv"]\n')
    assert read("--config", str(file)).files == (Path("c.csv"), Path("d.csv"))
    flags = ("--config", str(file), "--files", "a.csv", "b.csv", "--files", "e.csv")
    assert read(*flags).files == (Path("a.csv"), Path("b.csv"), Path("e.csv"))
    assert read("--out", "x").files == ()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "required: --out"),
        (("--out", "x", "--cuont", "1"), "--cuont"),
        (("--out", "x", "--count", "many"), "--count"),
        (("--out", "x", "--count", "-1"), "count must not be negative, got -1"),
        (("--out", "x", "--mode", "odd"), "--mode"),
        (("--out", "x", "--since", "yesterday"), "--since"),
        (("--out", "x", "--files"), "--files"),
        (("--config", "nowhere.toml"), "no config file nowhere.toml"),
        (("--config", "."), "cannot read config file .: Is a directory"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(*argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('out = "a"\nrtae = 1.0', "unknown key 'rtae'; did you mean 'rate'"),
        ('out = "a"\ncount = "3"', "count must be int, got '3'"),
        ('out = "a"\nloud = 1', "loud must be bool, got 1"),
        ('out = "a"\nfiles = "b"', "files must be a list, got 'b'"),
        ('out = "a"\nfiles = [true]', "files must be Path, got True"),
        ("out = 5", "out must be Path, got 5"),
        ('out = "a"\nrate = "0.5"', "rate must be float, got '0.5'"),
        ('out = "a"\nmode = "odd"', "mode must be one of slow, fast, got 'odd'"),
        ("out = ", "not valid TOML"),
    ],
)
def test_a_wrong_config_file_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read("--config", str(file))


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        read("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0
    assert "a rate of 100 % of something (default: 0.5)" in shown
    assert "where to write (required)" in shown
    assert "--loud, --no-loud" in shown
    assert "--files PATH [PATH ...] some files (default: none)" in shown
