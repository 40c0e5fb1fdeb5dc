"""docs/nightly.md and the units in deploy/ are of the settings, columns and exit codes that there are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kronos_service.data.forecasts import SCHEMA
from kronos_service.inference.nightly.command import Summary
from kronos_service.inference.nightly.config import ForecastAllConfig
from kronos_service.inference.settings import ForecastConfig
from kronos_shared.cli import parse

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8")
UNITS = [ROOT / "deploy" / f"kronos-forecast-all.{kind}" for kind in ("service", "timer")]


def test_the_exit_codes_are_those_of_the_page() -> None:
    out = Path("x.parquet")
    codes = {
        Summary(out=out, symbols=2, failed={}).exit_code,
        Summary(out=out, symbols=2, failed={"A": "why"}).exit_code,
        Summary(out=out, symbols=2, failed={"A": "why"}, unsent="away").exit_code,
    }
    assert codes == {0, 1, 3}
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.M)}
    assert documented == codes | {2, 130}


def test_the_columns_of_the_page_are_those_of_a_file() -> None:
    (paragraph,) = re.findall(r"^The file is Parquet.*?(?=\n\n)", TEXT, re.M | re.S)
    named = set(re.findall(r"`(\w+)`", paragraph))
    assert named <= set(SCHEMA.names)
    assert set(SCHEMA.names) - named <= {"symbol", "asset_class", "q10", "q25", "q50", "q75", "q90"}


def test_the_units_run_the_command_with_settings_that_there_are() -> None:
    service = UNITS[0].read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=.*inference forecast-all (.+)$", service, re.M)
    flags = {word.removeprefix("--").replace("-", "_") for word in re.findall(r"--[\w-]+", command)}
    named = set(re.findall(r"KRONOS_FORECAST_ALL_(\w+)=", service + TEXT))
    assert named
    assert flags | {name.lower() for name in named} <= set(ForecastAllConfig.model_fields)
    assert "SuccessExitStatus=1\n" in service
    assert "RestartPreventExitStatus=2\n" in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace("/opt/kronos/.venv/bin/python", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    paths = [tmp_path / unit.name for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_forecast_and_forecast_all_do_not_read_each_others_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KRONOS_FORECAST_ALL_SEED", "7")
    monkeypatch.setenv("KRONOS_FORECAST_SEED", "8")
    one = parse(ForecastConfig, [], prog="python -m kronos_service.inference forecast", description="")
    argv = ["--out", "x.parquet"]
    every = parse(
        ForecastAllConfig, argv, prog="python -m kronos_service.inference forecast-all", description=""
    )
    assert (one.seed, every.seed) == (8, 7)
