"""The audit as a user meets it: its command, and the quick one that event-lora does before it trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kronos_service.events import leaders
from kronos_service.finetune.__main__ import main
from kronos_service.model.adapter.read import read_adapter

TINY = ["--epochs", "1", "--targets-per-window", "8", "--context", "72", "--warmup-steps", "2", "--rank", "2"]
SPLITS = ["--val-start", "2022-06-01", "--test-start", "2022-10-01", "--test-end", "2023-03-31"]


def event_lora(market_path: Path, base_path: Path, directory: Path) -> int:
    where = ["--run-dir", str(directory / "run"), "--adapter-store", str(directory / "adapters")]
    data = ["--snapshot", str(market_path), "--base-model", str(base_path)]
    alone = ["--no-control", "--promote", "if-better"]
    return main(["event-lora", *data, *TINY, *SPLITS, *where, *alone])


@pytest.fixture
def leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every leader's next bar is known."""
    real: Callable[..., Any] = leaders.usable_bars
    monkeypatch.setattr(
        leaders,
        "usable_bars",
        lambda leader, as_of: (real(leader, as_of) + 1).clip(max=len(leader.closed_at)),
    )


def test_the_embedded_sample_passes(base_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--quick", "--base-model", str(base_path)]) == 0
    shown = capsys.readouterr().out
    assert "quick audit of snapshot sample_snapshot" in shown
    assert "pass: nothing was known before its time" in shown


@pytest.mark.usefixtures("leak")
def test_a_finding_exits_with_1_and_shows_its_rows(
    market_path: Path, base_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["audit", "--snapshot", str(market_path), "--quick", "--base-model", str(base_path), "--seed", "3"]
    assert main(argv) == 1
    output = capsys.readouterr()
    assert output.err == ""
    assert "seed 3" in output.out
    assert "Findings: leaders before targets" in output.out
    assert "BTCUSDT's bar" in output.out
    assert "more" in output.out
    assert "FAIL" in output.out


def test_a_snapshot_that_cannot_be_audited_exits_with_2_and_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["audit", "--snapshot", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: no such snapshot: nowhere")


def test_a_snapshot_without_targets_is_not_called_clean(
    base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sample", "--out", str(tmp_path / "s"), "--symbols", "2", "--start", "2024-01-02"]
    assert main([*argv, "--end", "2024-02-28"]) == 0
    assert main(["audit", "--snapshot", str(tmp_path / "s"), "--base-model", str(base_path)]) == 2
    assert "expected targets to audit, got none" in capsys.readouterr().err


def test_the_command_teaches_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["audit", "--help"])
    assert exit_.value.code == 0
    assert "exit code: 0 when nothing was found" in capsys.readouterr().out


def test_event_lora_stores_the_verdict_in_the_manifest_and_in_its_criteria(
    market_path: Path, base_path: Path, tmp_path: Path
) -> None:
    assert event_lora(market_path, base_path, tmp_path) == 0
    record = read_adapter(tmp_path / "run" / "adapter").manifest.data.audit
    assert record is not None
    assert (record.verdict, record.findings) == ("pass", 0)
    assert record.checked["event channels"] > 0
    assert record.checked["future scrambled"] > 0
    criteria = {one["name"]: one for one in json.loads((tmp_path / "run" / "criteria.json").read_text())}
    assert criteria["no leakage"]["verdict"] == "pass"


@pytest.mark.usefixtures("leak")
def test_event_lora_does_not_train_on_a_leak(
    market_path: Path, base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert event_lora(market_path, base_path, tmp_path) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: the quick audit found")
    assert output.err.count("\n") == 1
    assert "nothing was trained" in output.err
    assert "Findings: leaders before targets" in output.out
    assert not (tmp_path / "run").exists()
