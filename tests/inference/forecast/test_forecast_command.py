"""The forecast command as a user runs it, on a small market and a small random base."""

import re
import shutil
from collections.abc import Callable
from datetime import date
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.calendar import read_calendar
from kronos_service.events.labels import label_targets
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.inference.__main__ import main
from kronos_service.inference.forecast import series
from kronos_service.inference.forecast.command import forecast
from kronos_service.inference.settings import ForecastConfig
from kronos_shared.adapter_store import publish
from kronos_shared.errors import KronosError

AS_OF = date(2022, 9, 1)


@pytest.fixture
def adapters(adapter_of: Callable[[int], Path], tmp_path: Path) -> Path:
    publish(adapter_of(0), tmp_path / "adapters", keep=3)
    return tmp_path / "adapters"


@pytest.fixture
def config(market_path: Path, base_path: Path, adapters: Path) -> dict[str, object]:
    return {
        "symbol": "SYN01",
        "horizon": 5,
        "paths": 8,
        "as_of": AS_OF,
        "snapshot": market_path,
        "adapter": adapters,
        "base_model": str(base_path),
    }


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200)


def flags(config: dict[str, object]) -> list[str]:
    return [word for name, value in config.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_base_and_adapter_forecast_the_next_sessions_from_the_same_seed(
    config: dict[str, object], console: Console, market: Snapshot
) -> None:
    result = forecast(ForecastConfig(**config), console)  # type: ignore[arg-type]
    assert [fan.label.split()[0] for fan in result.bands] == ["base,", "adapter"]
    # 5 September 2022 was Labor Day
    assert result.dates.astype(str).tolist() == [
        "2022-09-02",
        "2022-09-06",
        "2022-09-07",
        "2022-09-08",
        "2022-09-09",
    ]
    bars = snapshots.series(market, "SYN01")
    close = bars["close"][bars["ts"] == pd.Timestamp(AS_OF, tz="UTC")].item()
    for fan in result.bands:
        assert fan.closes.shape == (8, 5)
        assert fan.last_close == close
    assert not np.array_equal(result.bands[0].closes, result.bands[1].closes)
    again = forecast(ForecastConfig(**config), console)  # type: ignore[arg-type]
    assert all(np.array_equal(a.closes, b.closes) for a, b in zip(result.bands, again.bands, strict=True))
    other = forecast(ForecastConfig(**{**config, "seed": 1}), console)  # type: ignore[arg-type]
    assert not np.array_equal(result.bands[1].closes, other.bands[1].closes)


def test_nothing_after_the_origin_changes_a_forecast(
    config: dict[str, object], console: Console, market: Snapshot, tmp_path: Path
) -> None:
    """Bars, leaders and releases after the origin are scrambled, the schedule and what was known are kept."""
    later = market.bars["ts"] > pd.Timestamp(AS_OF, tz="UTC")
    prices = ["open", "high", "low", "close"]
    bars = market.bars.copy()
    bars.loc[later, prices] *= 1.5
    released = market.calendar["release_at"] > pd.Timestamp(AS_OF, tz="UTC") + pd.Timedelta(days=1)
    calendar = market.calendar.copy()
    calendar.loc[released, "actual"] += 1.0
    scrambled = tmp_path / "scrambled"
    scrambled.mkdir()
    for name, table in (("ohlcv_1d", bars), ("symbols", market.symbols), ("economic_calendar", calendar)):
        table.to_parquet(scrambled / f"{name}.parquet")
    result = forecast(ForecastConfig(**config), console)  # type: ignore[arg-type]
    blind = forecast(ForecastConfig(**{**config, "snapshot": scrambled}), console)  # type: ignore[arg-type]
    assert all(np.array_equal(a.closes, b.closes) for a, b in zip(result.bands, blind.bands, strict=True))


def test_a_supposed_surprise_moves_only_the_bars_after_it(
    config: dict[str, object], console: Console
) -> None:
    result = forecast(ForecastConfig(**config), console)  # type: ignore[arg-type]
    bar, name = next(
        (bar, on[0][0]) for bar, on in enumerate(result.families) if on and bar < len(result.dates) - 1
    )
    supposed = ForecastConfig(**{**config, "scenario": (f"{name} +5",)})  # type: ignore[arg-type]
    _, told, what_if = forecast(supposed, console).bands
    assert np.array_equal(told.closes, result.bands[1].closes)
    assert np.array_equal(what_if.closes[:, : bar + 1], told.closes[:, : bar + 1])
    assert not np.array_equal(what_if.closes[:, bar + 1 :], told.closes[:, bar + 1 :])


def test_the_table_names_the_events_that_fall_on_each_bar(
    config: dict[str, object], console: Console, market: Snapshot
) -> None:
    result = forecast(ForecastConfig(**{**config, "horizon": 20}), console)  # type: ignore[arg-type]
    fell = label_targets(read_calendar(market.calendar), "us_equity", result.dates, symbol=None).families
    assert fell.any()
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue().split("adapter 000001")[-1]
    for day, following, families in zip(result.dates, [*result.dates[1:], None], fell, strict=True):
        row = shown.split(str(day))[1].split(str(following))[0]
        expected = {name for name, is_on in zip(DEFAULT_TAXONOMY.families, families, strict=True) if is_on}
        assert set(re.findall(r"(\w+) \(high\)", row)) == expected


def test_a_version_directory_and_the_default_root_serve_as_well(
    config: dict[str, object], adapters: Path, monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    expected = forecast(ForecastConfig(**config), console).bands[1]  # type: ignore[arg-type]
    (version,) = (adapters / "versions").iterdir()
    named = forecast(ForecastConfig(**{**config, "adapter": version}), console).bands[1]  # type: ignore[arg-type]
    monkeypatch.chdir(adapters.parent)
    default = forecast(ForecastConfig(**{**config, "adapter": None}), console).bands[1]  # type: ignore[arg-type]
    assert expected.label == named.label == default.label == f"adapter {version.name}"
    assert np.array_equal(expected.closes, named.closes)
    assert np.array_equal(expected.closes, default.closes)


def test_without_an_adapter_the_base_forecasts_alone_and_says_so(
    config: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = {name: value for name, value in config.items() if name != "adapter"}
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["forecast", *flags(alone), "--plot", "fan.png"]) == 0
    assert "no adapter in adapters/" in capsys.readouterr().out
    assert (tmp_path / "empty" / "fan.png").read_bytes().startswith(b"\x89PNG")


def test_without_an_adapter_the_sample_market_alone_is_forecast_by_the_one_that_ships(
    market_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["forecast", "--horizon", "2", "--paths", "8"]) == 0
    shown = capsys.readouterr().out
    assert "no adapter in adapters/: sample" in shown
    assert shown.count("SYNTHETIC") == 3  # a line of its own, and each table's title
    assert "Close: adapter 000001-" in shown
    for others in (["--base-model", "nano"], ["--snapshot", str(market_path)]):
        assert main(["forecast", "--horizon", "2", "--paths", "8", *others]) == 0
        shown = capsys.readouterr().out
        assert "no adapter in adapters/: the base alone, which knows no calendar\nbase kronos-nano\n" in shown
        assert "SYNTHETIC: made from a sample market" in shown, "the bars are, whatever the model knows"


MISTAKES = {
    "no such symbol": ({"symbol": "GONE"}, "no bars of 'GONE'"),
    "an origin before the first bar": (
        {"as_of": "2019-01-02"},
        "no bar of SYN01 up to 2019-01-02; its first",
    ),
    "too little history": ({"as_of": "2021-01-20"}, "at least 64 bars"),
    "a horizon beyond the model": ({"horizon": "72"}, "--horizon must be below the model's 72 bars"),
    "a horizon beyond the calendar": ({"as_of": "2022-12-30", "horizon": "60"}, "expected a calendar until"),
    "no adapter where one was named": ({"adapter": "."}, "holds no adapter"),
    "a base of another name": ({"base_model": "huge"}, "huge"),
    "a base the adapter was not made for": ({"base_model": "kronos-nano"}, "made for base tiny"),
    "no paths": ({"paths": "0"}, "--paths must be greater than or equal to 1"),
    "a release that is not scheduled": ({"scenario": "gdpp 2"}, "expected one of fomc_rate"),
    "a chart of no format": ({"plot": "fan.chart"}, "name a .png"),
}


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_exits_with_2_and_one_line(
    config: dict[str, object],
    changes: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["forecast", *flags(config | changes)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_an_adapter_of_an_unknown_base_asks_for_the_base(
    config: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    unnamed = {name: value for name, value in config.items() if name != "base_model"}
    assert main(["forecast", *flags(unnamed)]) == 2
    assert "cannot be found by name" in capsys.readouterr().err


def test_a_damaged_adapter_is_refused(
    config: dict[str, object], adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = (adapters / "versions").iterdir()
    copy = Path(shutil.copytree(version, tmp_path / "copy"))
    weights = copy / "event_emb.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert main(["forecast", *flags(config | {"adapter": copy})]) == 2
    assert "event_emb.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"symbol": "spy"}, r"no bars of 'spy', did you mean SPY\?"),
        ({"symbol": "BTC"}, r"no bars of 'BTC', did you mean BTCUSDT\?"),
        ({"as_of": date(2030, 1, 1)}, r"later than the data: the last bar of SYN01 is of 2022-12-30"),
        ({"as_of": date(2023, 1, 3)}, r"later than the data"),
        ({"plot": Path("out.chart")}, r"--plot out\.chart has \.chart; name a \.png, \.svg or \.pdf"),
        ({"plot": Path("out")}, r"--plot out has no suffix; name a"),
        ({"plot": Path("out.pgn")}, r"has \.pgn, did you mean \.png\?"),
        ({"plot": Path("/dev/null/out.png")}, r"--plot .* cannot be written: /dev/null is not a directory"),
        ({"scenario": ("cpj +2",)}, r"got 'cpj', did you mean cpi\?"),
        ({"base_model": "nanno"}, r"got 'nanno', did you mean nano\?"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant_before_anything_is_forecast(
    config: dict[str, object],
    console: Console,
    given: dict[str, object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(series, "sample_paths", lambda *_, **__: pytest.fail("it forecast"))
    with pytest.raises(KronosError, match=message):
        forecast(ForecastConfig(**config | given), console)  # type: ignore[arg-type]


def test_a_day_without_a_session_after_the_last_bar_is_no_later_than_the_data(
    config: dict[str, object], console: Console
) -> None:
    """The last bar is of a Friday, and Monday is a holiday."""
    result = forecast(ForecastConfig(**config | {"as_of": date(2023, 1, 2)}), console)  # type: ignore[arg-type]
    assert result.origin == date(2022, 12, 30)


@pytest.mark.parametrize("text", ["10/06/2025", "20250610", "1749513600", "2025-6-1", "2025-13-01"])
def test_a_date_is_written_in_one_way(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", "--as-of", text]) == 2
    expected = f"--as-of must be a valid date, got {text}: write YYYY-MM-DD, such as 2025-06-10"
    assert expected in capsys.readouterr().err
