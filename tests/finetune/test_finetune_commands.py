"""The commands as a user runs them: what works end to end, and one clear line for each mistake."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_tables import small_tables, write_small

from kronos_service.data.sample import write_sample
from kronos_service.data.sample_worlds import OWN_TAXONOMY
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.taxonomy import read_taxonomy
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned.evaluation.run_evaluation import evaluate_run
from kronos_service.model.adapter.canary import check_canary
from kronos_service.model.adapter.read import attach, merge, read_adapter
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import FILES, MANIFEST
from kronos_shared.adapter_store import latest_version

SPLITS = [
    "--train-start",
    "2022-01-03",
    "--val-start",
    "2022-06-01",
    "--test-start",
    "2022-10-01",
    "--test-end",
    "2023-03-31",
]
QUICK = ["--targets-per-window", "8", "--origins", "6", "--horizon", "2", "--paths", "20"]
TINY = [
    "--forecast-origins",
    "4",
    "--forecast-horizon",
    "2",
    "--forecast-paths",
    "20",
    "--epochs",
    "2",
    "--targets-per-window",
    "8",
    "--context",
    "72",
    "--warmup-steps",
    "2",
    "--rank",
    "2",
    *SPLITS,
]


@pytest.fixture
def tables(market_path: Path, tmp_path: Path) -> Path:
    """The small market as plain tables without a manifest, for tests to damage."""
    snapshot = load_snapshot(market_path)
    directory = tmp_path / "tables"
    directory.mkdir()
    snapshot.bars.to_parquet(directory / "ohlcv_1d.parquet")
    snapshot.symbols.to_csv(directory / "symbols.csv", index=False)
    snapshot.calendar.to_parquet(directory / "economic_calendar.parquet")
    return directory


def edit(directory: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = directory / f"{table}.parquet"
    if path.exists():
        change(pd.read_parquet(path)).to_parquet(path)
    else:
        path = path.with_suffix(".csv")
        change(pd.read_csv(path)).to_csv(path, index=False)


def run_in(directory: Path, *argv: str) -> list[str]:
    return [*argv, "--run-dir", str(directory / "run"), "--adapter-store", str(directory / "adapters")]


def test_event_lora_leaves_a_judged_and_published_adapter(
    market_path: Path, base_path: Path, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["event-lora", "--snapshot", str(market_path), "--base-model", str(base_path), *TINY]
    assert main([*run_in(tmp_path, *argv), "--placebo", "--promote", "if-better"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "Validation loss",
        "Success criteria",
        "conditioning gain",
        "placebo",
        "promoted",
        "\nnext:\npython -m kronos_service.finetune evaluate --adapter ",
    ):
        assert words in shown

    directory = latest_version(tmp_path / "adapters")
    assert directory is not None
    assert {path.name for path in directory.iterdir()} == {*FILES, MANIFEST}
    adapter = read_adapter(directory)
    check_canary(merge(attach(adapter, bundle)), adapter.manifest.canary)

    for scores in ("evaluation-val.parquet", "evaluation-val-next-bar.parquet"):
        assert "adapter" in pd.read_parquet(tmp_path / "run" / scores)["model"].tolist()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    losses = pd.read_parquet(tmp_path / "run" / "val_losses.parquet")
    assert set(losses["model"]) == {"base", "adapter", "control", "placebo"}
    for model in ("base", "adapter"):
        mine = losses[(losses["model"] == model) & losses["is_event"]]
        assert results["val"][model]["event"]["total"] == pytest.approx(mine["total"].mean())
        assert results["val"][model]["event"]["targets"] == len(mine) > 0
    by_target = losses.pivot_table(
        index=["symbol", "date", "is_event"], columns="model", values="total"
    ).reset_index()
    difference = (by_target["control"] - by_target["adapter"])[by_target["is_event"]].mean()
    assert adapter.manifest.conditioning_gain["nats"] == pytest.approx(difference)  # type: ignore[index]
    criteria = {one["name"]: one for one in json.loads((tmp_path / "run" / "criteria.json").read_text())}
    assert criteria["conditioning gain"]["figure"] == pytest.approx(difference)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "val/event_total" in line] == [0, 1, 2]
    assert f"\ntensorboard --logdir {tmp_path / 'run'}\n" in shown
    for variant in (".", "control", "placebo"):
        assert list((tmp_path / "run" / variant / "tensorboard").iterdir())

    capsys.readouterr()
    printed = shown.splitlines()
    program, given = printed[printed.index("next:") + 1].split(" evaluate ")
    assert program == "python -m kronos_service.finetune"
    assert main(["evaluate", *shlex.split(given), *QUICK]) == 0
    assert f"{results['val']['adapter']['event']['total']:.4f}" in capsys.readouterr().out


def test_without_a_control_the_gain_is_unknown_and_a_run_that_fails_is_not_promoted(
    market_path: Path,
    base_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A learning rate of 1 makes the loss worse."""
    forecasts: dict[str, Any] = {}

    def watched(*given: Any, **named: Any) -> None:
        forecasts.update(named)
        evaluate_run(*given, **named)

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.event_lora.evaluate_run", watched)
    argv = ["event-lora", "--snapshot", str(market_path), "--base-model", str(base_path), *TINY]
    harmful = ["--learning-rate", "1", "--event-learning-rate", "1", "--tracker", "none"]
    assert main([*run_in(tmp_path, *argv), *harmful, "--no-control", "--promote", "if-better"]) == 0
    shown = capsys.readouterr().out
    assert "not promoted" in shown
    assert "no control was trained" in shown
    assert latest_version(tmp_path / "adapters") is None
    assert read_adapter(tmp_path / "run" / "adapter").manifest.conditioning_gain == "unknown"
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert (forecasts["origins"], forecasts["horizon"], forecasts["paths"]) == (4, 2, 20)


def no_leader(directory: Path) -> None:
    edit(directory, "ohlcv_1d", lambda t: t[t["symbol"] != "VIX"])
    edit(directory, "symbols", lambda t: t[t["symbol"] != "VIX"])


def unknown_type(directory: Path) -> None:
    edit(directory, "economic_calendar", lambda t: t.assign(event_type=t["event_type"].replace("cpi", "cpj")))


def short_history(directory: Path) -> None:
    edit(directory, "ohlcv_1d", lambda t: t[t["ts"] >= pd.Timestamp("2022-10-20", tz="UTC")])


def short_calendar(directory: Path) -> None:
    edit(directory, "economic_calendar", lambda t: t[t["release_at"] < pd.Timestamp("2022-08-01", tz="UTC")])


def quiet(start: str, end: str) -> Callable[[Path], None]:
    def lower_impact(table: pd.DataFrame) -> pd.DataFrame:
        inside = table["release_at"].between(pd.Timestamp(start, tz="UTC"), pd.Timestamp(end, tz="UTC"))
        return table.assign(impact=table["impact"].mask(inside, "low"))

    return lambda directory: edit(directory, "economic_calendar", lower_impact)


MISTAKES: dict[str, tuple[Callable[[Path], object] | None, list[str], str]] = {
    "no such snapshot": (None, ["--snapshot", "nowhere"], "no such snapshot: nowhere"),
    "a missing leader": (no_leader, [], "VIX"),
    "an unknown event type": (unknown_type, [], "cpj"),
    "too little history": (short_history, [], "targets"),
    "a calendar that ends early": (short_calendar, [], "the calendar ends on 2022-07"),
    "no event days in train": (quiet("2021-05-01", "2022-06-03"), [], "the train split .* has no event days"),
    "no event days in val": (quiet("2022-05-28", "2022-10-03"), [], "the val split .* has no event days"),
    "an unknown preset": (None, ["--base-model", "huge"], "huge"),
    "a hub id with no network": (None, ["--base-model", "NeoQuasar/Kronos-small"], "NeoQuasar/Kronos-small"),
    "rank 0": (None, ["--rank", "0"], "--rank must be greater than or equal to 1, got 0"),
    "a context that holds no history": (
        None,
        ["--context", "8"],
        "--context must exceed --targets",
    ),
    "splits out of order": (None, ["--val-start", "2020-01-01"], "split dates must ascend"),
    "a gain required but not measured": (None, ["--no-control"], "or add --promote if-better"),
    "a context beyond the base's": (None, ["--context", "600"], "--context must be at most 72, .*, got 600"),
    "a preset that is nearly one": (None, ["--base-model", "smal"], "did you mean small\\?"),
    "an unknown flag": (None, ["--ranks", "4"], "--ranks"),
}


@pytest.mark.parametrize(("damage", "flags", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_exits_with_2_and_one_line(
    tables: Path,
    base_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object] | None,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    if damage:
        damage(tables)
    argv = ["event-lora", "--snapshot", str(tables), "--base-model", str(base_path), *TINY, *flags]
    assert main(run_in(tmp_path, *argv)) == 2
    assert_one_line(capsys.readouterr().err, message)
    assert not (tmp_path / "adapters").exists()


def assert_one_line(error: str, message: str) -> None:
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert re.search(message, error), error


def test_a_file_that_fails_its_hash_is_refused(
    market_path: Path, base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(market_path, tmp_path / "copy"))
    damaged = next(copy.glob("ohlcv_1d*"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert main(run_in(tmp_path, "event-lora", "--snapshot", str(copy), "--base-model", str(base_path))) == 2
    assert_one_line(capsys.readouterr().err, "sha256|hash")


def test_a_config_key_that_does_not_exist_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.toml"
    config.write_text("epoch = 3\n")
    assert main(["event-lora", "--config", str(config)]) == 2
    assert_one_line(capsys.readouterr().err, "unknown key epoch, did you mean epochs")


@pytest.mark.parametrize("name", ["event-weight", "event-oversample"])
def test_the_weight_of_event_days_goes_by_its_earlier_name_too(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.toml"
    for key in (name, name.replace("-", "_")):
        config.write_text(f"{key} = 9.0\n")
        assert main(["event-lora", "--config", str(config)]) == 2
        assert_one_line(capsys.readouterr().err, f"{key} must be less than or equal to 5, got 9.0")
    assert main(["event-lora", f"--{name}", "0"]) == 2
    assert_one_line(capsys.readouterr().err, "--event-weight must be greater than or equal to 1, got 0")
    assert main(["ablate", "--vary", f"{name}=9"]) == 2
    assert_one_line(capsys.readouterr().err, "--vary event_weight must be less than or equal to 5, got 9")


@pytest.mark.parametrize(
    ("flag", "now"),
    [
        ("--scored", "--targets-per-window"),
        ("--clip", "--max-grad-norm"),
        ("--adapters", "--adapter-store"),
        ("--force", "--promote always"),
        ("--require-gain", "--promote if-gain"),
    ],
)
def test_a_renamed_flag_is_refused_with_its_new_name(
    flag: str, now: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["event-lora", flag, "1"]) == 2
    assert_one_line(capsys.readouterr().err, f"unknown flag {flag}, which is now {now} ")


def test_a_run_directory_in_use_or_not_writable_is_refused(
    market_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_text("old")
    assert main(run_in(tmp_path, "event-lora", "--snapshot", str(market_path))) == 2
    assert_one_line(capsys.readouterr().err, "is not empty")
    assert (tmp_path / "run" / "kept").read_text() == "old"
    assert main(["event-lora", "--run-dir", str(tmp_path / "run" / "kept" / "below")]) == 2
    assert_one_line(capsys.readouterr().err, "cannot write to the run directory")


@pytest.mark.parametrize("command", ["audit", "walk-forward", "event-lora"])
def test_every_command_reads_the_base_that_its_flags_name(
    command: str, market_path: Path, base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [command, "--snapshot", str(market_path), "--base-model", str(base_path)]
    where = {"audit": [], "walk-forward": ["--out", str(tmp_path)], "event-lora": run_in(tmp_path)}[command]
    for given, message in (
        (["--revision", "main"], "a revision belongs to a hub id"),
        (["--tokenizer", "desk/t", "--tokenizer-revision", "main"], "revision of desk/t must be a commit"),
    ):
        assert main([*argv, *where, *given]) == 2
        assert message in capsys.readouterr().err


def test_an_unknown_command_and_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event-laura"]) == 2
    assert "there are event-lora, evaluate" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "event-lora" in capsys.readouterr().out


def test_evaluate_refuses_a_directory_without_an_adapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--adapter", str(tmp_path)]) == 2
    assert_one_line(capsys.readouterr().err, "holds no adapter")


def test_export_makes_a_snapshot_of_a_directory_of_tables(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "snapshot"
    assert main(["export", "--source", "snapshot", "--tables", str(tables), "--out", str(out)]) == 0
    exported, original = load_snapshot(out), load_snapshot(tables)
    assert not exported.flagged
    pd.testing.assert_frame_equal(exported.bars, original.bars)
    assert f"{len(original.bars):,} bars" in capsys.readouterr().out


def test_export_drops_bad_bars_and_earlier_ones_where_it_is_told_to(tables: Path, tmp_path: Path) -> None:
    rows = pd.read_parquet(tables / "ohlcv_1d.parquet")
    bad = rows.index[rows["ts"] >= pd.Timestamp("2022-06-01", tz="UTC")][0]
    rows.assign(high=rows["high"].mask(rows.index == bad, 1e-6)).to_parquet(tables / "ohlcv_1d.parquet")
    argv = ["export", "--source", "snapshot", "--tables", str(tables), "--out", str(tmp_path / "s")]
    assert main([*argv, "--since", "2022-03-01", "--on-bad-row", "drop"]) == 0
    exported = load_snapshot(tmp_path / "s").bars
    assert exported["ts"].min() == pd.Timestamp("2022-03-01", tz="UTC")
    assert len(exported) == (rows["ts"] >= "2022-03-01").sum() - 1


def test_export_extends_resumes_and_reads_hours_where_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path / "small", small_tables())

    def run(directory: Path, *flags: str) -> tuple[int, str]:
        argv = ["export", "--source", "snapshot", "--tables", str(directory), "--out", str(tmp_path / "s")]
        return main([*argv, *flags]), capsys.readouterr().out

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kronos_service.finetune.export_training_data.commit", interrupted)
        assert run(tmp_path / "small")[0] == 130
    code, said = run(tmp_path / "small", "--resume")
    assert (code, "resumed after " in said) == (0, True)
    code, said = run(tmp_path / "small", "--incremental")
    assert (code, "0 rows added, 0 released since" in said) == (0, True)
    assert run(tmp_path / "small", "--interval", "4h") == (2, "")


def test_export_without_credentials_names_the_variables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUPABASE_URL", raising=False)
    monkeypatch.delenv("SUPABASE_KEY", raising=False)
    assert main(["export", "--out", str(tmp_path / "s")]) == 2
    assert_one_line(capsys.readouterr().err, "SUPABASE_URL, SUPABASE_KEY")


def test_sample_writes_the_market_of_own_events_where_it_is_told_to(tmp_path: Path) -> None:
    argv = ["sample", "--out", str(tmp_path / "s"), "--symbols", "2", "--own-events"]
    assert main([*argv, "--start", "2024-01-02", "--end", "2024-03-28"]) == 0
    assert load_snapshot(tmp_path / "s").taxonomy.sha256 == read_taxonomy(OWN_TAXONOMY).sha256


def test_sample_writes_a_snapshot_that_training_reads(tmp_path: Path) -> None:
    argv = ["sample", "--out", str(tmp_path / "s"), "--seed", "5", "--symbols", "2"]
    assert main([*argv, "--start", "2024-01-02", "--end", "2024-06-28"]) == 0
    made = load_snapshot(tmp_path / "s")
    assert set(made.symbols["symbol"]) == {"SPY", "SYN01", "BTCUSDT", "DXY", "VIX"}
    write_sample(tmp_path / "same", seed=5, symbols=2, start=date(2024, 1, 2), end=date(2024, 6, 28))
    pd.testing.assert_frame_equal(made.bars, load_snapshot(tmp_path / "same").bars)


@pytest.mark.parametrize("command", ["event-lora", "evaluate", "export", "pretrain", "sample"])
def test_every_command_teaches_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert "default: " in capsys.readouterr().out


def test_the_launcher_of_the_request_runs_the_same_job() -> None:
    launcher = Path(__file__).parents[2] / "kronos-service" / "finetune" / "train_event_conditioned.py"
    done = subprocess.run(
        [sys.executable, launcher, "--rank", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert_one_line(done.stderr, "--rank must be greater than or equal to 1, got 0")
