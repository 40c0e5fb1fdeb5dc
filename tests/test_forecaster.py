"""The Python front door, as a user types it, on the small market and the small random base.

`tests/inference/test_front_doors.py` compares its numbers with the service's and the command's.
"""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kronos_service
from kronos_service import KronosEvents, sample_frames
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.scenario import Scenario
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.forecaster import SyntheticWarning
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_store import publish
from kronos_shared.errors import KronosError

ORIGIN = pd.Timestamp("2022-09-01", tz="UTC")
AS_OF = pd.Timestamp("2022-09-01 21:00", tz="UTC")
"""Of a US equity at that origin: an hour after the close."""
TARGETS = ["open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def model(adapter_of: Callable[[int], Path], base_path: Path) -> KronosEvents:
    return KronosEvents.from_adapter(adapter_of(2), base_model=str(base_path))


@pytest.fixture(scope="module")
def bars(market: Snapshot) -> pd.DataFrame:
    """Of two symbols, up to the origin."""
    wanted = market.bars["symbol"].isin(["SPY", "SYN01"]) & (market.bars["ts"] <= ORIGIN)
    return market.bars[wanted]


@pytest.fixture(scope="module")
def spy(bars: pd.DataFrame) -> pd.DataFrame:
    return bars[bars["symbol"] == "SPY"]


@pytest.fixture(scope="module")
def rest(market: Snapshot) -> dict[str, Any]:
    """Calendar, leaders and a few small settings."""
    return {"events": market.calendar, "leaders": market.bars, "horizon": 4, "paths": 6, "seed": 5}


def test_a_long_frame_comes_out_with_what_conditioned_it(
    model: KronosEvents, bars: pd.DataFrame, rest: dict[str, Any], tmp_path: Path
) -> None:
    out = model.predict_df(bars, **rest, quantile_levels=[0.1, 0.5, 0.9])
    assert list(out.columns) == ["symbol", "ts", "step", "target_name", "predictions", "0.1", "0.5", "0.9"]
    assert len(out) == 2 * 4 * len(TARGETS)
    first = out[(out["symbol"] == "SPY") & (out["target_name"] == "close")]
    # 5 September 2022 was Labor Day
    days = ["2022-09-02", "2022-09-06", "2022-09-07", "2022-09-08"]
    assert first["ts"].dt.strftime("%Y-%m-%d").tolist() == days
    assert first["step"].tolist() == [1, 2, 3, 4]
    assert list(out["target_name"].unique()) == TARGETS
    assert (out["predictions"] == out["0.5"]).all()
    assert (out["0.1"] <= out["0.9"]).all()
    assert out.attrs == {
        "version": model.served.version,
        "digest": model.served.digest,
        "base": "tiny",
        "seed": 5,
        "paths": 6,
        "as_of": {"SPY": "2022-09-01T21:00:00Z", "SYN01": "2022-09-01T21:00:00Z"},
        "missing_leaders": {"SPY": [], "SYN01": []},
        "recalibration": {key: {"applied": False, "factors": []} for key in ("SPY", "SYN01")},
        "scenario": None,
        "synthetic": False,
    }
    out.to_parquet(tmp_path / "out.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), out)
    assert pd.read_parquet(tmp_path / "out.parquet").attrs == out.attrs


def test_columns_may_have_other_names_and_dates_no_time_zone(
    model: KronosEvents, bars: pd.DataFrame, rest: dict[str, Any]
) -> None:
    def mine(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(ts=frame["ts"].dt.tz_localize(None)).rename(columns={"symbol": "id", "ts": "day"})

    usual = model.predict_df(bars, **rest)
    given = rest | {"leaders": mine(rest["leaders"]), "id_column": "id", "timestamp_column": "day"}
    out = model.predict_df(mine(bars), **given)
    assert list(out.columns[:2]) == ["id", "day"]
    assert out["day"].dt.tz is None
    back = out.rename(columns={"id": "symbol", "day": "ts"}).assign(ts=out["day"].dt.tz_localize("UTC"))
    pd.testing.assert_frame_equal(back, usual)
    # predicted beside actual needs no conversion
    assert len(out.merge(mine(rest["leaders"]), on=["id", "day"])) == len(out)


def test_a_symbol_is_forecast_alike_alone_and_with_gaps_named_by_nobody(
    model: KronosEvents, bars: pd.DataFrame, spy: pd.DataFrame, rest: dict[str, Any]
) -> None:
    together = model.predict_df(bars, **rest)
    alone = model.predict_df(spy, **rest)
    pd.testing.assert_frame_equal(together[together["symbol"] == "SPY"].reset_index(drop=True), alone)
    gap = spy.drop(index=spy.index[-10])
    assert not model.predict_df(gap, **rest).equals(alone)


def test_quantiles_are_those_of_the_paths_and_a_path_does_not_depend_on_their_number(
    model: KronosEvents, bars: pd.DataFrame, rest: dict[str, Any]
) -> None:
    paths = model.paths(bars, **rest)
    assert list(paths.columns) == ["symbol", "path", "ts", "step", *TARGETS]
    out = model.predict_df(bars, **rest, quantile_levels=[0.25])
    for (symbol, step), drawn in paths.groupby(["symbol", "step"]):
        row = out[(out["symbol"] == symbol) & (out["step"] == step)].set_index("target_name")
        np.testing.assert_array_equal(row.loc[TARGETS, "0.25"], np.quantile(drawn[TARGETS], 0.25, axis=0))
        assert (drawn["high"] >= drawn[["open", "close"]].max(axis=1)).all()
    more = model.paths(bars, **rest | {"paths": 9})
    pd.testing.assert_frame_equal(
        more[more["path"] < 6].reset_index(drop=True), paths.reset_index(drop=True), check_flags=False
    )


def later_rows(calendar: pd.DataFrame, draw: st.DrawFn) -> pd.DataFrame:
    """The calendar with rows that were first seen after `AS_OF`: new events, and versions of those there."""
    moments = st.datetimes(datetime(2022, 9, 1, 21, 0, 1), datetime(2022, 10, 1))
    figures = st.sampled_from([np.nan, -3.0, 0.0, 9.0])
    known = st.sampled_from(calendar["event_id"].tolist())
    rows = [
        {
            "event_id": draw(known) if draw(st.booleans()) else f"new:{number}",
            "event_type": draw(st.sampled_from(sorted(DEFAULT_TAXONOMY.event_types))),
            "event_name": "",
            "currency": "USD",
            "impact": draw(st.sampled_from(["high", "medium", "low"])),
            # not at midnight, which would look like a bare date
            "release_at": draw(st.dates(date(2022, 6, 1), date(2022, 9, 20))),
            "actual": draw(figures),
            "forecast": draw(figures),
            "first_seen_at": pd.Timestamp(draw(moments), tz="UTC") + pd.Timedelta(number, "us"),
        }
        for number in range(draw(st.integers(1, 12)))
    ]
    frame = pd.DataFrame(rows)
    at = pd.to_datetime(frame["release_at"]).dt.tz_localize("UTC") + pd.Timedelta("13h30min")
    frame["release_at"] = at.astype(calendar["release_at"].dtype)
    frame["first_seen_at"] = frame["first_seen_at"].astype(calendar["first_seen_at"].dtype)
    return pd.concat([calendar, frame], ignore_index=True)


@settings(max_examples=8)
@given(data=st.data())
def test_what_was_first_seen_after_as_of_changes_no_bit(
    model: KronosEvents, spy: pd.DataFrame, rest: dict[str, Any], data: st.DataObject
) -> None:
    calendar = rest["events"]
    factor = data.draw(st.sampled_from([1.0, 0.5, 3.0]))
    leaders = rest["leaders"].copy()
    later = leaders["ts"] > ORIGIN
    leaders.loc[later, "close"] *= factor
    scrambled = data.draw(st.composite(lambda draw: later_rows(calendar, draw))())
    # figures of releases that had not come yet
    ahead = scrambled["release_at"] > AS_OF
    scrambled.loc[ahead, "actual"] = data.draw(st.sampled_from([np.nan, 7.0]))
    blind = model.predict_df(spy, **rest | {"events": scrambled, "leaders": leaders})
    pd.testing.assert_frame_equal(blind, model.predict_df(spy, **rest), check_exact=True)


def test_what_was_first_seen_before_as_of_does_change_it(
    model: KronosEvents, spy: pd.DataFrame, rest: dict[str, Any]
) -> None:
    row = (
        rest["events"]
        .iloc[[-1]]
        .assign(
            event_id="new",
            event_type="gdp",
            impact="high",
            release_at=pd.Timestamp("2022-09-06 13:30", tz="UTC"),
        )
    )
    usual = model.predict_df(spy, **rest)
    for seen, changes in ((AS_OF - pd.Timedelta("1h"), True), (AS_OF + pd.Timedelta("1s"), False)):
        seen_then = row.assign(first_seen_at=seen)
        calendar = pd.concat([rest["events"], seen_then], ignore_index=True)
        out = model.predict_df(spy, **rest | {"events": calendar})
        assert out.equals(usual) != changes


def test_leaders_are_found_among_the_bars_and_missing_ones_named(
    model: KronosEvents, market: Snapshot, spy: pd.DataFrame, rest: dict[str, Any]
) -> None:
    everything = market.bars[market.bars["ts"] <= ORIGIN]
    among = model.predict_df(everything, **rest | {"leaders": None})
    usual = model.predict_df(spy, **rest)
    rows = among[among["symbol"] == "SPY"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, usual, check_exact=True)
    assert among.attrs["as_of"]["BTCUSDT"] == "2022-09-02T00:00:00Z"
    alone = model.predict_df(spy, **rest | {"leaders": None})
    assert alone.attrs["missing_leaders"] == {"SPY": ["BTCUSDT", "DXY", "VIX"]}
    assert not alone.equals(usual)


def test_the_base_alone_needs_no_events_and_the_adapter_does(
    model: KronosEvents, spy: pd.DataFrame, rest: dict[str, Any]
) -> None:
    small = {name: rest[name] for name in ("horizon", "paths", "seed")}
    base = model.predict_df(spy, **small, base_only=True)
    assert base.equals(model.predict_df(spy, **rest, base_only=True))
    assert not base.equals(model.predict_df(spy, **rest))
    assert (base.attrs["version"], base.attrs["digest"]) == (None, None)
    with pytest.raises(KronosError, match=r"events: expected an economic calendar.*base_only=True"):
        model.predict_df(spy, **small)
    with pytest.raises(KronosError, match="scenario needs the adapter"):
        model.predict_df(spy, **small, base_only=True, scenario="cpi +2")


def test_a_scenario_may_be_a_text_several_or_the_values_themselves(
    model: KronosEvents, market: Snapshot, rest: dict[str, Any]
) -> None:
    bars = market.bars[market.bars["symbol"] == "SYN01"]
    asked = rest | {"horizon": 8}
    usual = model.predict_df(bars, **asked)
    text = model.predict_df(bars, **asked, scenario="ppi +2 2023-01-04")
    several = model.predict_df(bars, **asked, scenario=["ppi +2"])
    values = model.predict_df(bars, **asked, scenario=Scenario(surprises={date(2023, 1, 4): 2.0}))
    assert text.equals(several)
    assert text.equals(values)
    moved = text["predictions"] != usual["predictions"]
    assert set(text.loc[moved, "step"]) == set(range(3, 9))
    assert text.attrs["scenario"] == ["ppi +2 2023-01-04"]
    assert values.attrs["scenario"] == {"surprises": {"2023-01-04": 2.0}, "leaders": {}}


def test_an_explanation_is_the_forecast_without_each_input(
    model: KronosEvents, market: Snapshot, rest: dict[str, Any]
) -> None:
    bars = market.bars[market.bars["symbol"] == "SYN01"]
    asked = rest | {"horizon": 8, "paths": 9}
    told = model.explain_df(bars, **asked)
    inputs = told[["kind", "name"]].drop_duplicates().to_numpy().tolist()
    releases = [["release", name] for name in ("ppi", "core_cpi", "cpi")]
    assert inputs == [*releases, *(["leader", name] for name in ("BTCUSDT", "SPY", "DXY", "VIX"))]
    assert told.groupby("name", sort=False)["step"].agg(list).tolist() == 7 * [list(range(1, 9))]

    def close(**changes: Any) -> pd.DataFrame:
        out = model.predict_df(bars, **asked | changes, quantile_levels=[0.05, 0.95])
        return out[out["target_name"] == "close"].reset_index(drop=True)

    whole, calendar, leaders = close(), asked["events"], asked["leaders"]
    is_cpi = (calendar["event_type"] == "cpi") & (calendar["release_at"] > pd.Timestamp("2023", tz="UTC"))
    for name, without in {
        "cpi": close(events=calendar[~(is_cpi & (calendar["release_at"] < "2023-01-12"))]),
        "VIX": close(leaders=leaders[leaders["symbol"] != "VIX"]),
    }.items():
        rows = told[told["name"] == name].reset_index(drop=True)
        np.testing.assert_array_equal(rows["median"], whole["predictions"])
        np.testing.assert_array_equal(rows["median_change"], whole["predictions"] - without["predictions"])
        width, other = whole["0.95"] - whole["0.05"], without["0.95"] - without["0.05"]
        np.testing.assert_array_equal(rows["width"], width)
        np.testing.assert_array_equal(rows["width_change"], width - other)
        assert rows[["median_change", "width_change"]].any(axis=None)
    assert told.loc[told["name"] == "cpi", "date"].dt.strftime("%Y-%m-%d").unique().tolist() == ["2023-01-11"]
    assert told.loc[told["kind"] == "leader", "date"].isna().all()


def test_a_fan_chart_shows_what_came_beside_the_forecast(
    model: KronosEvents, market: Snapshot, bars: pd.DataFrame, spy: pd.DataFrame, rest: dict[str, Any]
) -> None:
    chart = model.plot(spy, **rest, actual=market.bars, scenario="VIX +3 2022-09-02")
    panels = chart.subfigs[0].axes
    assert [axes.get_title(loc="left").split()[0] for axes in panels] == ["base,", "adapter", "what"]
    (came,) = (line for line in panels[1].lines if line.get_label() == "what came")
    later = market.bars[(market.bars["symbol"] == "SPY") & (market.bars["ts"] >= ORIGIN)]["close"]
    np.testing.assert_array_equal(came.get_ydata(), later[:5])
    assert chart._repr_png_().startswith(b"\x89PNG")
    assert "SYNTHETIC" not in chart.get_suptitle()
    with pytest.raises(KronosError, match=r"expected one symbol to plot, got SPY, SYN01"):
        model.plot(bars, **rest)


MISTAKES: dict[str, tuple[Callable[[pd.DataFrame], Any], dict[str, Any], str]] = {
    "no frame": (lambda _: [1, 2], {}, "bars: expected a pandas DataFrame, got list"),
    "no rows": (lambda bars: bars.iloc[:0], {}, "bars: expected a row per symbol and session, got none"),
    "a column missing": (
        lambda bars: bars.rename(columns={"close": "Close"}),
        {},
        "without close, did you mean Close?: rename or add them, or name yours with id_column",
    ),
    "a column twice": (
        lambda bars: pd.concat([bars, bars["close"]], axis=1),
        {},
        "expected one column close, got 2",
    ),
    "text for numbers": (lambda bars: bars.assign(close="x"), {}, "bars: expected numbers in close"),
    "numbers for dates": (lambda bars: bars.assign(ts=range(len(bars))), {}, "in ts, got numbers"),
    "text for dates": (lambda bars: bars.assign(ts="soon"), {}, "bars: expected dates in ts"),
    "an exchange's own midnight": (
        lambda bars: bars.assign(ts=bars["ts"].dt.tz_localize(None).dt.tz_localize("America/New_York")),
        {},
        "expected session dates (00:00 UTC) in ts, got 2021-01-04 00:00:00-05:00: for an exchange's own time",
    ),
    "a null": (lambda bars: bars.assign(symbol=bars["symbol"].mask(bars.index == bars.index[0])), {}, "null"),
    "unsorted": (lambda bars: bars.iloc[::-1], {}, "ascending order of ts, got SPY 2022-08-31 after a later"),
    "twice the same bar": (lambda bars: pd.concat([bars, bars.tail(1)]), {}, "2022-09-01 (duplicate key"),
    "a price of 0": (lambda bars: bars.assign(low=0.0), {}, "(price not above 0)"),
    "too few bars": (lambda bars: bars.tail(20), {}, "SPY: expected at least 64 bars of history, got 20"),
    "an unfinished session": (
        lambda bars: bars.assign(ts=bars["ts"] + pd.Timedelta(days=365 * 20)),
        {},
        "(its session has not closed)",
    ),
    "no session": (
        lambda bars: bars.assign(ts=bars["ts"] + pd.Timedelta(days=1)),
        {},
        "(no session on this date) and",
    ),
    "an unknown class": (lambda bars: bars, {"asset_class": "us_equities"}, "did you mean us_equity?"),
    "no class for a symbol": (lambda bars: bars, {"asset_class": {"QQQ": "us_equity"}}, "got none for SPY"),
    "horizon 0": (lambda bars: bars, {"horizon": 0}, "horizon: expected a whole number from 1 on, got 0"),
    "half a horizon": (lambda bars: bars, {"horizon": 2.5}, "horizon: expected a whole number"),
    "a long horizon": (lambda bars: bars, {"horizon": 9}, "expected at most 8, got 9"),
    "no paths": (lambda bars: bars, {"paths": 0}, "paths: expected a whole number from 1 on"),
    "a negative seed": (lambda bars: bars, {"seed": -1}, "seed: expected a whole number from 0 on"),
    "level 1": (lambda bars: bars, {"quantile_levels": [0.5, 1.0]}, "above 0 and below 1, got [0.5, 1.0]"),
    "a level twice": (lambda bars: bars, {"quantile_levels": [0.5, 0.5]}, "expected each level once"),
    "an unknown scenario": (lambda bars: bars, {"scenario": "cpj +2"}, "SPY: expected one of fomc_rate"),
    "a release of no bar": (
        lambda bars: bars,
        {"scenario": "retail_sales +2"},
        "no retail_sales is scheduled",
    ),
    "leaders of other names": (
        lambda bars: bars,
        {"leaders": lambda bars: bars.assign(symbol="BTC")},
        "leaders: expected rows of BTCUSDT, SPY, DXY, VIX, got BTC",
    ),
    "no calendar": (lambda bars: bars, {"events": 3}, "events: expected a pandas DataFrame, got int"),
    "a calendar of other columns": (
        lambda bars: bars,
        {"events": lambda _: pd.DataFrame({"event": ["cpi"]})},
        "events: expected columns event_type, impact, release_at, currency, got event without event_type",
    ),
}


@pytest.mark.parametrize(("bend", "changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_change(
    model: KronosEvents,
    spy: pd.DataFrame,
    rest: dict[str, Any],
    bend: Callable[[pd.DataFrame], Any],
    changes: dict[str, Any],
    message: str,
) -> None:
    asked = rest | {name: one(spy) if callable(one) else one for name, one in changes.items()}
    with pytest.raises(KronosError) as error:
        model.predict_df(bend(spy), **asked)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("symbol", "asset_class"), [("MINE", "crypto"), ("MINE", "index")])
def test_the_asset_class_comes_from_the_argument_or_from_a_column(
    model: KronosEvents, market: Snapshot, rest: dict[str, Any], symbol: str, asset_class: str
) -> None:
    leader = {"crypto": "BTCUSDT", "index": "VIX"}[asset_class]
    bars = market.bars[(market.bars["symbol"] == leader) & (market.bars["ts"] <= ORIGIN)]
    known = model.predict_df(bars, **rest)  # a leader is taken for what it is
    mine = bars.assign(symbol=symbol)
    for one in (
        model.predict_df(mine, **rest, asset_class=asset_class),
        model.predict_df(mine, **rest, asset_class={symbol: asset_class}),
        model.predict_df(mine.assign(asset_class=asset_class), **rest),
    ):
        pd.testing.assert_frame_equal(one.assign(symbol=leader), known, check_exact=True)
    if asset_class == "crypto":
        with pytest.raises(KronosError, match=r"no session.*MINE is taken for us_equity"):
            model.predict_df(mine, **rest)


def test_a_store_a_version_and_a_hub_repository_are_the_same_adapter(
    adapter_of: Callable[[int], Path],
    base_path: Path,
    spy: pd.DataFrame,
    rest: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(adapter_of(2), tmp_path / "adapters", keep=3)
    (version,) = (tmp_path / "adapters" / "versions").iterdir()
    commit, cache = "5" * 40, tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cached = cache / "models--someone--adapter" / "snapshots" / commit
    shutil.copytree(version, cached)
    store, named, hub = (
        KronosEvents.from_adapter(where, revision=revision, base_model=str(base_path))
        for where, revision in (
            (tmp_path / "adapters", None),
            (version, None),
            ("someone/adapter", commit),
        )
    )
    assert store.served.version == named.served.version == version.name
    assert hub.served.version == f"someone/adapter@{commit[:12]}"
    assert store.served.digest == hub.served.digest
    assert store.predict_df(spy, **rest).equals(hub.predict_df(spy, **rest))
    with pytest.raises(KronosError, match="a hub id needs a revision"):
        KronosEvents.from_adapter("someone/adapter")
    with pytest.raises(KronosError, match=r"must be a commit .* got 'main'"):
        KronosEvents.from_adapter("someone/adapter", revision="main")
    other = Path(shutil.copytree(cached, cached.with_name("6" * 40)))
    (other / "event_emb.safetensors").write_bytes(b"other")
    with pytest.raises(KronosError, match=r"event_emb\.safetensors is not the file the manifest describes"):
        KronosEvents.from_adapter("someone/adapter", revision=other.name, base_model=str(base_path))
    with pytest.raises(KronosError, match="holds no adapter"):
        KronosEvents.from_adapter(tmp_path / "nothing")


def test_the_sample_adapter_is_small_and_says_synthetic() -> None:
    files = [path for path in SAMPLE_ADAPTERS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    (card,) = SAMPLE_ADAPTERS.rglob("README.md")
    assert "SYNTHETIC" in card.read_text()
    with pytest.warns(SyntheticWarning, match="SYNTHETIC"):
        model = KronosEvents.from_adapter("sample")
    bars, calendar = sample_frames()
    spy = bars[(bars["symbol"] == "SPY") & (bars["ts"] > pd.Timestamp("2025-06-01", tz="UTC"))]
    out = model.predict_df(spy, events=calendar, leaders=bars, horizon=2, paths=8)
    assert out.attrs["synthetic"] is True
    assert model.plot(spy, events=calendar, horizon=2, paths=8).get_suptitle().startswith("SYNTHETIC")


def test_an_adapter_of_other_data_does_not_say_so(adapter_of: Callable[[int], Path], base_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KronosEvents.from_adapter(adapter_of(2), base_model=str(base_path))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, kronos_service; print([n for n in ('torch', 'pandas', 'peft') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert kronos_service.KronosEvents is KronosEvents
    with pytest.raises(AttributeError, match="no attribute 'KronosEvent'"):
        kronos_service.KronosEvent  # noqa: B018
