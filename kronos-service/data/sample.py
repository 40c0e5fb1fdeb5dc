"""A seeded synthetic market with planted event effects, so that tests can check that a model finds them.

- A high-impact release on a bar scales its noise by one factor; nothing else scales it.
- Equities drift on the bar after a release, in the sign of its surprise; all but SPY follow SPY and BTCUSDT.
- Release dates are independent draws from the XNYS sessions: no time feature and no past bar reveals the
  schedule.

`docs/sample-market.md` states each effect, its size, and the size measured in the shipped snapshot.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kronos_service.data.snapshot.manifest import SAMPLE, read_manifest
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.events.scaling import Floats
from kronos_service.events.sessions import Sessions, Times, sessions, utc
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_shared.columns import BAR_COLUMNS, CALENDAR_COLUMNS, SYMBOL_COLUMNS
from kronos_shared.errors import KronosError

START: Final = date(2020, 1, 1)
END: Final = date(2026, 3, 31)
STEPS: Final = 12
"""Increments of the path inside one bar; the first is the opening gap."""
PULL: Final = 0.2
"""Mean reversion per bar; strong enough that one day stays large beside the range of prices."""
MARKET_SHARE: Final = 0.3
"""Share of an equity's variance that is SPY's own noise."""
SURPRISE_CLIP: Final = 3.0
LEADER_CLIP: Final = 5.0
LEADER_ROWS: Final = 60
CALENDAR_MARGIN: Final = timedelta(days=61)
"""How far the calendar reaches past the last bar."""


class SampleError(KronosError):
    """A sample market that cannot be made as asked."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """The sizes of the planted effects; 1 for the factor and 0 for the drifts plant nothing."""

    volatility: float = 2.5
    """Factor on the noise of a bar that is the target of a high-impact release."""
    surprise: float = 1.0
    """Drift of the bar after a release, in daily sigmas per unit of surprise z."""
    spy_lead: float = 0.3
    """Drift of the other equities, in daily sigmas per unit of SPY's last return z."""
    btc_lead: float = 0.15
    """Drift of the equities other than SPY, in daily sigmas per unit of BTCUSDT's last return z."""


class Market(NamedTuple):
    """The three tables of a snapshot."""

    symbols: pd.DataFrame
    bars: pd.DataFrame
    calendar: pd.DataFrame


class _Release(NamedTuple):
    types: tuple[str, ...]
    time: str  # New York
    per_year: float
    high_share: float
    otherwise: str


# 42 certain high-impact dates a year and 5 by chance: about 17 % of the sessions are event days.
_RELEASES: Final = (
    _Release(("fomc_rate_decision", "fomc_statement", "fomc_press_conference"), "14:00", 9, 1.0, "high"),
    _Release(("fomc_minutes",), "14:00", 10, 0.25, "medium"),
    _Release(("cpi", "core_cpi"), "08:30", 12, 1.0, "high"),
    _Release(("pce", "core_pce"), "08:30", 10, 1.0, "high"),
    _Release(("nfp", "unemployment_rate"), "08:30", 12, 1.0, "high"),
    _Release(("ppi",), "08:30", 10, 0.0, "medium"),
    _Release(("gdp",), "08:30", 10, 0.0, "medium"),
    _Release(("retail_sales",), "08:30", 10, 0.0, "medium"),
    _Release(("ism_manufacturing",), "10:00", 11, 0.0, "medium"),
    _Release(("ism_services",), "10:00", 11, 0.0, "medium"),
    _Release(("jobless_claims",), "08:30", 13, 0.0, "low"),
    _Release(("consumer_sentiment",), "10:00", 10, 0.25, "medium"),
    _Release(("jolts",), "10:00", 10, 0.0, "low"),
)
_SESSIONS_PER_YEAR: Final = 252
_UNKNOWN_SHARE: Final = 0.4  # of the releases that are not high-impact: no actual, no forecast


class _Shape(NamedTuple):
    sigma: float  # standard deviation of a bar's log return on a non-event day
    level: float  # price that the path reverts to
    volume: float  # median volume; 0 for a series that does not trade


_LEADER_SHAPES: Final = {
    "BTCUSDT": _Shape(0.025, 40_000.0, 30_000.0),
    "SPY": _Shape(0.009, 400.0, 80_000_000.0),
    "DXY": _Shape(0.004, 100.0, 0.0),
    "VIX": _Shape(0.05, 20.0, 0.0),
}
_OTHER_LEADER: Final = _Shape(0.01, 100.0, 0.0)  # of a leader new in event_types.toml


def sample_snapshot_path() -> Path:
    """Directory of the snapshot that ships with the package (seed 0)."""
    return Path(str(files("kronos_service.data") / "sample_snapshot"))


@cache
def sample_sha256() -> str:
    """The hash of that snapshot, which is in the manifest of every adapter that was trained on it."""
    return str(read_manifest(sample_snapshot_path())["sha256"])


def is_synthetic(sha256: str, *, marked: bool) -> bool:
    """Whether a snapshot is a sample market: marked as one, or the embedded one, which files written before
    there was a mark name by its hash alone.
    """
    return marked or sha256 == sample_sha256()


def write_sample(
    directory: Path, *, seed: int = 0, symbols: int = 24, start: date = START, end: date = END
) -> dict[str, Any]:
    """Write the market of `make_market` as a snapshot and return its manifest; same settings, same values."""
    market = make_market(seed, symbols=symbols, start=start, end=end)
    source = f"{SAMPLE} {seed}, {symbols} equities"
    return write_snapshot(directory, **market._asdict(), window=(start, end), source=source)


def make_market(
    seed: int = 0,
    *,
    symbols: int = 24,
    start: date = START,
    end: date = END,
    effects: Effects | None = None,
) -> Market:
    """The tables of a market with planted effects; the same arguments give the same values.

    Args:
        symbols: tradable US equities, SPY among them (>= 2).
        end: last day of the bars; the calendar reaches 61 days further.
        effects: sizes of the planted effects; the noise does not depend on them, so markets can be compared.
    """
    if symbols < 2 or end <= start:
        raise SampleError(f"need symbols >= 2 and end after start; got {symbols} symbols, {start} to {end}")
    if seed < 0:
        raise SampleError(f"need a seed of 0 or more; got {seed}")
    planted = effects or Effects()
    calendar, scale = _calendar(seed, start, end + CALENDAR_MARGIN)
    days = {
        name: sessions(asset_class, start, end)
        for name, asset_class in DEFAULT_TAXONOMY.leader_asset_class.items()
    }
    surprise = planted.surprise * planted_surprise(calendar, scale, days["SPY"])
    widen = {name: np.where(event_bars(calendar, days[name]), planted.volatility, 1.0) for name in days}
    tables = {}
    for name in days:
        rng, shape = _rng(seed, name), _LEADER_SHAPES.get(name, _OTHER_LEADER)
        drift = _after(surprise) if name == "SPY" else np.zeros(len(days[name].dates))
        tables[name] = _bars(shape, days[name], _noise(rng, days[name]), widen[name], drift, rng)
    z = {name: leader_z(tables[name].close.to_numpy(), days[name].closes, days["SPY"].as_of) for name in days}
    known = surprise + planted.spy_lead * z["SPY"] + planted.btc_lead * z["BTCUSDT"]
    tables |= {
        f"SYN{n:02d}": _equity(n, seed, days["SPY"], widen["SPY"], _after(known)) for n in range(1, symbols)
    }
    classes = [(name, DEFAULT_TAXONOMY.leader_asset_class.get(name, "us_equity")) for name in tables]
    rows = [(name, asset_class, asset_class == "us_equity") for name, asset_class in classes]
    bars = pd.concat([tables[name].assign(symbol=name) for name in sorted(tables)], ignore_index=True)
    return Market(
        pd.DataFrame(sorted(rows), columns=list(SYMBOL_COLUMNS)),
        bars[list(BAR_COLUMNS)],
        calendar,
    )


def planted_surprise(calendar: pd.DataFrame, scale: dict[str, float], days: Sessions) -> Floats:
    """(S,) largest surprise, over its type's true sigma and clipped to +-3, that became known on each bar."""
    known = calendar.dropna(subset=["actual", "forecast"])
    z = ((known.actual - known.forecast) / known.event_type.map(scale)).to_numpy(dtype=np.float64)
    row = np.searchsorted(days.as_of, utc(known.release_at), side="right")
    out = np.zeros(len(days.dates))
    # Ascending magnitude: of several surprises on one bar, the last write is the largest.
    for k in np.argsort(np.abs(z), kind="stable"):
        if row[k] < len(out):
            out[row[k]] = np.clip(z[k], -SURPRISE_CLIP, SURPRISE_CLIP)
    return out


def event_bars(calendar: pd.DataFrame, days: Sessions) -> npt.NDArray[np.bool_]:
    """(S,) whether a high-impact release falls on the bar: at or after the previous close, before its own."""
    row = np.searchsorted(days.closes, utc(calendar.release_at[calendar.impact == "high"]), side="right")
    return np.isin(np.arange(len(days.dates)), row)


def leader_z(closes: Floats, closed_at: Times, as_of: Times) -> Floats:
    """(S,) log move of a leader's as-of close since the row before, over the std of its last 60 returns.

    Args:
        closes: (L,) of the leader's bars, which close at `closed_at`.
        as_of: (S,) of each row; only bars closed by then are used.
    """
    log_close = np.log(closes)
    returns = np.diff(log_close, prepend=np.nan)
    last = np.searchsorted(closed_at, as_of, side="right") - 1
    before = np.concatenate([[-1], last[:-1]])
    z = np.zeros(len(as_of))
    for i in np.flatnonzero(before >= LEADER_ROWS):
        window = returns[before[i] - LEADER_ROWS + 1 : before[i] + 1]
        z[i] = (log_close[last[i]] - log_close[before[i]]) / window.std(ddof=1)
    return np.clip(z, -LEADER_CLIP, LEADER_CLIP)


def _rng(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """One stream per series: more symbols or other effects do not change the noise of the rest."""
    return np.random.default_rng([seed, *stream.encode(), index])


def _calendar(seed: int, start: date, end: date) -> tuple[pd.DataFrame, dict[str, float]]:
    """The releases, and the true standard deviation of each type's surprises."""
    dates = sessions("us_equity", start, end).dates
    parts, scale = [], {}
    for index, release in enumerate(_RELEASES):
        rng = _rng(seed, "calendar", index)
        on = dates[rng.random(len(dates)) < release.per_year / _SESSIONS_PER_YEAR]
        impact = np.where(rng.random(len(on)) < release.high_share, "high", release.otherwise)
        for event_type in release.types:
            scale[event_type] = float(np.round(rng.uniform(0.05, 0.5), 3))
            parts.append(_type_rows(event_type, on, release.time, impact, scale[event_type], rng))
    calendar = pd.concat(parts).sort_values(["release_at", "event_type"], ignore_index=True)
    return calendar.reindex(columns=list(CALENDAR_COLUMNS)), scale


def _type_rows(
    event_type: str,
    on: Times,
    time: str,
    impact: npt.NDArray[np.str_],
    scale: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    local = pd.DatetimeIndex(on) + pd.Timedelta(f"{time}:00")
    forecast = np.round(rng.normal(2.0, scale, len(on)), 4)
    actual = np.round(forecast + rng.normal(0.0, scale, len(on)), 4)
    unknown = (impact != "high") & (rng.random(len(on)) < _UNKNOWN_SHARE)
    table = pd.DataFrame(
        {
            "event_id": [f"{event_type}:{day}" for day in np.datetime_as_string(on, unit="D")],
            "event_type": event_type,
            "event_name": event_type.replace("_", " "),
            "currency": "USD",
            "impact": impact,
            "release_at": local.tz_localize("America/New_York").tz_convert("UTC").as_unit("ns"),
            "actual": np.where(unknown, np.nan, actual),
            "forecast": np.where(unknown, np.nan, forecast),
            "first_seen_at": pd.Series(pd.NaT, index=range(len(on)), dtype="datetime64[ns, UTC]"),
        }
    )
    return table.assign(previous=table.actual.shift())


def _after(known: Floats) -> Floats:
    """Shift by one bar: what is known on a bar moves the next."""
    return np.concatenate([[0.0], known[:-1]])


def _equity(number: int, seed: int, days: Sessions, widen: Floats, drift: Floats) -> pd.DataFrame:
    rng = _rng(seed, "equity", number)
    sigma, level, volume = np.array([0.012, 100.0, 5e6]) * np.exp(rng.normal(0.0, [0.15, 0.5, 1.0]))
    market = _noise(_rng(seed, "SPY"), days)  # the same draws as in SPY
    noise = np.sqrt(MARKET_SHARE) * market + np.sqrt(1 - MARKET_SHARE) * _noise(rng, days)
    return _bars(_Shape(sigma, level, volume), days, noise, widen, drift, rng)


def _noise(rng: np.random.Generator, days: Sessions) -> Floats:
    """(S, STEPS) increments whose sum over a bar has unit variance."""
    noise: Floats = rng.standard_normal((len(days.dates), STEPS)) / np.sqrt(STEPS)
    return noise


def _bars(
    shape: _Shape, days: Sessions, noise: Floats, widen: Floats, drift: Floats, rng: np.random.Generator
) -> pd.DataFrame:
    """Bars from paths of noise times `widen` (S,), with `drift` (S,), in sigmas, spread evenly over each."""
    moves = shape.sigma * (widen[:, None] * noise + drift[:, None] / STEPS)
    before = np.zeros(len(moves))  # log distance from the level at the previous close
    for t, total in enumerate(moves.sum(axis=1)[:-1]):
        before[t + 1] = (1 - PULL) * before[t] + total
    path = before[:, None] * (1 - PULL * np.arange(1, STEPS + 1) / STEPS) + moves.cumsum(axis=1)
    price = np.round(shape.level * np.exp(path), 2)
    ohlc = np.stack([price[:, 0], price.max(axis=1), price.min(axis=1), price[:, -1]], axis=1)
    volume = np.round(shape.volume * np.sqrt(widen) * np.exp(rng.normal(0.0, 0.06, len(moves))))
    table = pd.DataFrame(ohlc, columns=["open", "high", "low", "close"])
    return table.assign(
        ts=pd.DatetimeIndex(days.dates).as_unit("ns").tz_localize("UTC"),
        volume=volume,
        amount=volume * ohlc.mean(axis=1),
    )
