"""One settings class per command: where its values come from, and what each mistake says."""

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import ClassVar, Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from kronos_shared.cli import (
    ConfigError,
    Settings,
    command_line,
    did_you_mean,
    needs,
    parse,
    parse_given,
    require_writable,
    run_command,
)


class Example(Settings):
    aliases: ClassVar = {"number": "count"}
    renamed: ClassVar = {"pace": "--mode", "hush": "--no-loud"}

    out: Path
    """where to write"""
    rate: float = 0.5
    """a rate of 100 % of something"""
    count: int = Field(default=0, ge=0)
    """a count"""
    note: str | None = None
    """a note"""
    mode: Literal["slow", "even", "fast"] = "slow"
    """a mode"""
    since: date = date(2024, 1, 1)
    """a day"""
    loud: bool = False
    """say more"""
    files: tuple[Path, ...] = ()
    """some files"""
    seeds: tuple[int, ...] = Field(default=(0, 1), min_length=1)
    """some seeds"""

    @model_validator(mode="after")
    def _quiet_when_slow(self) -> Self:
        if self.loud and self.rate > 9:
            raise ConfigError("--loud needs a --rate of at most 9")
        return self


def read(*argv: str) -> Example:
    return parse(Example, argv, prog="program example", description="An example.")


def test_flags_beat_the_environment_the_file_and_the_defaults_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.toml"
    file.write_text('out = "a"\nrate = 2\ncount = 7\nsince = 2025-05-01\nloud = true\n')
    monkeypatch.setenv("KRONOS_EXAMPLE_COUNT", "8")
    monkeypatch.setenv("KRONOS_EXAMPLE_RATE", "3.5")
    got = read("--config", str(file), "--count", "0", "--no-loud")
    assert got == Example(out=Path("a"), rate=3.5, count=0, since=date(2025, 5, 1), loud=False)
    assert got.mode == "slow"


def test_only_what_is_given_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_EXAMPLE_SEEDS", "3 4")
    given = parse_given(Example, ["--number", "1"], prog="program example", description="")
    assert given == {"count": 1, "seeds": (3, 4)}


def test_a_falsy_flag_is_not_mistaken_for_an_absent_one() -> None:
    assert read("--out", "x", "--rate", "0").rate == 0.0


def test_a_flag_of_several_values_takes_many_at_once_repeated_or_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('out = "x"\nfiles = ["c.csv", "d.csv"]\n')
    assert read("--config", str(file)).files == (Path("c.csv"), Path("d.csv"))
    flags = ("--config", str(file), "--files", "a,1.csv", "[b].csv", "--files", "e.csv")
    assert read(*flags).files == (Path("a,1.csv"), Path("[b].csv"), Path("e.csv"))
    assert read("--out", "x").files == ()


def test_an_earlier_name_means_the_same_as_a_flag_and_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('out = "x"\nnumber = 3\n')
    assert read("--config", str(file)).count == 3
    assert read("--out", "x", "--number=4").count == 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "required: --out"),
        (("--out", "x", "--cuont", "1"), "unknown flag --cuont, did you mean --count?"),
        (("--out", "x", "--pace=slow"), "unknown flag --pace, which is now --mode"),
        (("--out", "x", "--count", "many"), "--count must be a valid integer, got many"),
        (("--out", "x", "--count", "-1"), "--count must be greater than or equal to 0, got -1"),
        (("--out", "x", "--rate", "nan"), "--rate must be a finite number, got nan"),
        (("--out", "x", "--mode", "odd"), "--mode must be 'slow', 'even' or 'fast', got odd"),
        (("--out", "x", "--since", "yesterday"), "--since must be a valid date, got yesterday: write YYYY"),
        (("--out", "x", "--files"), "--files: expected at least one argument"),
        (("--out", "x", "--loud", "--rate", "10"), "--loud needs a --rate of at most 9"),
        (("--config", "nowhere.toml"), "no config file nowhere.toml"),
        (("--config", "."), "cannot read config file .: Is a directory"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(*argv)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_value_of_an_unknown_flag_is_not_repeated() -> None:
    """It may be a secret."""
    for argv in (["--api-key", "secret"], ["--api-key=secret"]):
        with pytest.raises(ConfigError, match="unknown flag --api-key") as refused:
            read("--out", "x", *argv)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("COUNT", "-1", "KRONOS_EXAMPLE_COUNT must be greater than or equal to 0, got -1"),
        ("LOUD", "maybe", "KRONOS_EXAMPLE_LOUD must be a valid boolean, got maybe"),
        (
            "CUONT",
            "1",
            "unknown environment variable KRONOS_EXAMPLE_CUONT, did you mean KRONOS_EXAMPLE_COUNT?",
        ),
    ],
)
def test_a_wrong_variable_is_refused_by_name(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"KRONOS_EXAMPLE_{variable}", value)
    with pytest.raises(ConfigError) as refused:
        read("--out", "x")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('out = "a"\nrtae = 1.0', "unknown key rtae, did you mean rate?"),
        ('out = "a"\nhush = true', "unknown key hush, which is now --no-loud"),
        ('out = "a"\ncount = "3"', "count must be a valid integer, got '3'"),
        ('out = "a"\nloud = 1', "loud must be a valid boolean, got 1"),
        ('out = "a"\nfiles = "b"', "files must be a valid array, got 'b'"),
        ('out = "a"\nfiles = [true]', "files must be a valid string, got True"),
        ('out = "a"\nseeds = []', "seeds must have at least 1 item after validation, got []"),
        ("out = 5", "out must be a valid string, got 5"),
        ('out = "a"\nrate = "0.5"', "rate must be a valid number, got '0.5'"),
        ('out = "a"\nmode = "odd"', "mode must be 'slow', 'even' or 'fast', got 'odd'"),
        ("out = ", "not valid TOML"),
    ],
)
def test_a_wrong_config_file_is_refused_by_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read("--config", str(file))
    assert message in str(refused.value)
    assert str(file) in str(refused.value)


def test_settings_made_in_python_are_checked_too_and_cannot_be_changed() -> None:
    with pytest.raises(ConfigError, match=r"required: --out; --count must .* -1; unknown setting cuont, did"):
        Example(count=-1, cuont=1)  # type: ignore[call-arg]
    settings = Example(out=Path("x"))
    assert settings.replace(count=3) == Example(out=Path("x"), count=3)
    with pytest.raises(ConfigError, match="--count must be greater"):
        settings.replace(count=-1)
    with pytest.raises(ValidationError, match="frozen"):
        settings.count = 4


def test_help_shows_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        read("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0
    assert "a rate of 100 % of something (default: 0.5)" in shown
    assert "where to write (required)" in shown
    assert "a note (default: none)" in shown
    assert "--loud, --no-loud" in shown
    assert "--files PATH [PATH ...] some files (default: none)" in shown
    assert "KRONOS_EXAMPLE_OUT" in shown
    assert "exit code: 0 done, 2 a mistake" in shown


def run(command: Callable[[Sequence[str]], int | None], *argv: str) -> int:
    return run_command("program", {"example": command}, argv)


def test_a_misspelt_command_is_one_line_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: None, "exmaple") == 2
    assert capsys.readouterr().err == (
        "error: unknown command 'exmaple', did you mean example?; there are example\n"
    )


def test_a_part_that_is_not_installed_is_named_and_a_fault_of_ours_is_not_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def optional(_: Sequence[str]) -> None:
        with needs("serve"):
            import no_such_library  # type: ignore[import-not-found]  # noqa: F401

    assert run(optional, "example") == 2
    assert capsys.readouterr().err == (
        "error: no_such_library is not installed: pip install 'kronos-events[serve]'\n"
    )
    with pytest.raises(ModuleNotFoundError), needs("serve"):
        import kronos_shared.no_such_module  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ratte", "1"], "unknown flag --ratte, did you mean --rate?"),
        (["--no-lod"], "unknown flag --no-lod, did you mean --no-loud?"),
        (["--hlep"], "unknown flag --hlep, did you mean --help?"),
        (["--cofnig", "x"], "unknown flag --cofnig, did you mean --config?"),
        (["--RATE", "1"], "unknown flag --RATE, did you mean --rate?"),
        (["rate", "1"], "expected a flag, got rate, did you mean --rate?"),
        (["--mode", "fats"], "--mode must be 'slow', 'even' or 'fast', got fats, did you mean fast?"),
        (
            ["--since", "10/06/2025"],
            "--since must be a valid date, got 10/06/2025: write YYYY-MM-DD, such as",
        ),
    ],
)
def test_what_is_misspelt_is_named_with_what_is_near(argv: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read("--out", "x", *argv)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("word", "known", "advice"),
    [
        ("spy", ["SPY", "SYN01"], ", did you mean SPY?"),
        ("lora", ["event-lora", "evaluate"], ", did you mean event-lora?"),
        ("zzz", ["event-lora"], ""),
        ("", ["event-lora"], ""),
    ],
)
def test_a_word_is_near_whatever_its_case(word: str, known: list[str], advice: str) -> None:
    assert did_you_mean(word, known) == advice


def test_a_command_line_gives_a_list_one_flag_and_ends_without_a_blank() -> None:
    assert command_line("p", "walk", {"seeds": [0, 1], "none": None, "publish": True}) == (
        "p walk --seeds 0 1 --publish"
    )
    assert command_line("p", "walk", {}) == "p walk"


def test_a_command_line_can_be_copied_into_a_shell() -> None:
    line = command_line("python -m program", "example", {"out": Path("my data/x"), "note": None, "rate": 2})
    assert line == "python -m program example --out 'my data/x' --rate 2"


def test_a_directory_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_writable(tmp_path / "new" / "deep", "--out")
    assert not (tmp_path / "new").exists()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            ConfigError, match=f"--out cannot be written to: {tmp_path}/file is not a directory"
        ):
            require_writable(path, "--out")
