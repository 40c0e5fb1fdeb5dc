"""The audit as a user meets it: its command, and the quick one that event-lora does before it trains."""

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service.data.snapshot.read import read_tables
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.events import leaders
from kronos_service.events.sessions import sessions
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned.samples.splits import Splits
from kronos_service.model.adapter.read import read_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.errors import KronosError

TINY = ["--epochs", "1", "--targets-per-window", "8", "--context", "72", "--warmup-steps", "2", "--rank", "2"]
TINY += ["--forecast-origins", "0"]
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


def test_the_audit_looks_where_its_flags_say(
    market_path: Path, base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def watched(_: object, splits: Splits, bundle: Bundle, *, quick: bool, seed: int) -> None:
        spans = {name: (str(one.first), str(one.last)) for name, one in splits.splits.items()}
        asked.update(spans, base=bundle.base.repo, quick=quick, seed=seed)
        raise KronosError("that is enough")

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.audit.audit.audit", watched)
    spans = [*SPLITS[:-1], "2022-12-15", "--train-start", "2021-06-01", "--seed", "3", "--quick"]
    assert main(["audit", "--snapshot", str(market_path), "--base-model", str(base_path), *spans]) == 2
    assert asked == {
        "train": ("2021-06-01", "2022-05-31"),
        "val": ("2022-06-01", "2022-09-30"),
        "test": ("2022-10-01", "2022-12-15"),
        "base": "tiny",
        "quick": True,
        "seed": 3,
    }


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


DEAD_END = """
[symbols]
rows.BTCUSDT = { asset_class = "crypto", tradable = true }
rows.SPY = { asset_class = "us_equity", tradable = true }
rows.DXY = { asset_class = "fx", tradable = false }
rows.VIX = { asset_class = "index", tradable = false }
"""


def a_snapshot(directory: Path, last_bar: str, last_release: str) -> str:
    """Bars of the four leaders from 2022 on and a monthly CPI that may end before them."""
    rng, tables = np.random.default_rng(0), []
    for name, asset_class in DEFAULT_TAXONOMY.leader_asset_class.items():
        days = sessions(asset_class, date(2022, 1, 3), date.fromisoformat(last_bar)).dates
        path = {"VIX": 20, "SPY": 400, "DXY": 100, "BTCUSDT": 3e4}[name] * np.exp(
            np.cumsum(rng.normal(0, 0.005, len(days) + 1))
        )
        rows = pd.DataFrame({"symbol": name, "ts": days, "open": path[:-1], "close": path[1:]})
        edges = rows[["open", "close"]]
        volume = 0 if name in ("DXY", "VIX") else 1000.0
        tables.append(rows.assign(high=edges.max(axis=1), low=edges.min(axis=1), volume=volume))
    pd.concat(tables).to_csv(directory / "bars.csv", index=False)
    due = pd.bdate_range("2022-01-01", last_release, freq="WOM-2TUE") + pd.Timedelta(days=1)
    releases = pd.DataFrame({"release_at": [f"{day:%Y-%m-%d}T13:30:00Z" for day in due], "event_type": "cpi"})
    releases = releases.assign(currency="USD", impact="high", actual=0.3, forecast=0.2)
    releases["actual"] = np.where(
        due < pd.Timestamp(last_bar), rng.normal(0.3, 0.1, len(due)).round(1), np.nan
    )
    releases.to_csv(directory / "releases.csv", index=False)
    (directory / "map.toml").write_text(DEAD_END)
    files = ["--ohlcv", str(directory / "bars.csv"), "--calendar", str(directory / "releases.csv")]
    out = str(directory / "s")
    assert main(["import", *files, "--map", str(directory / "map.toml"), "--out", out]) == 0
    return out


def test_what_the_audit_advises_works_where_it_is_advised(
    base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The calendar ends before the bars: the message names flags, and the audit takes them."""
    snapshot = a_snapshot(tmp_path, "2023-12-29", "2023-11-30")
    argv = ["audit", "--quick", "--snapshot", snapshot, "--base-model", str(base_path)]
    spans = ["--train-start", "2022-02-01", "--val-start", "2023-06-01", "--test-start", "2023-09-01"]
    capsys.readouterr()
    assert main([*argv, *spans, "--test-end", "2023-12-29"]) == 2
    error = capsys.readouterr().err
    advised = set(re.findall(r"--[a-z-]+", error))
    assert advised == {"--val-start", "--test-start", "--test-end"}
    (until,) = re.findall(r"end the split by (\S+)", error)
    assert main([*argv, *spans, "--test-end", until]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "note: channels that never vary in the train split, and teach nothing: fomc_rate" in shown
    assert "pass: nothing was known before its time" in shown
    assert "FAIL" not in shown


def test_the_audit_compares_the_calendar_with_the_world(
    base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A snapshot made by an earlier version holds what an import would refuse now."""
    good = read_tables(a_snapshot(tmp_path, "2023-12-29", "2024-02-28"))
    late = good.calendar.assign(release_at=good.calendar["release_at"] + pd.Timedelta(days=3))
    write_snapshot(
        tmp_path / "old",
        symbols=good.symbols,
        bars=good.bars,
        calendar=late,
        window=(date(2022, 1, 3), date(2023, 12, 29)),
        source="files:bars.csv",
    )
    spans = ["--train-start", "2022-02-01", "--val-start", "2023-06-01", "--test-start", "2023-09-01"]
    argv = ["audit", "--quick", "--snapshot", str(tmp_path / "old"), "--base-model", str(base_path), *spans]
    argv += ["--test-end", "2023-10-31"]
    capsys.readouterr()
    assert main(argv) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: closed-day: cpi: " in shown
    advised = re.search(r"(--accept [a-z-]+) where it is meant", shown)
    assert advised is not None
    assert main([*argv, *advised[1].split()]) == 0
    assert "accepted: closed-day: cpi: " in " ".join(capsys.readouterr().out.split())


def test_the_embedded_sample_is_said_to_have_nothing_to_compare(
    market_path: Path, base_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--quick", "--snapshot", str(market_path), "--base-model", str(base_path)]) == 0
    assert "plausibility: not applicable, this is a sample market" in capsys.readouterr().out
