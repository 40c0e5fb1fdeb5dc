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

from kronos_service.data.sample_worlds import US_MACRO, Release, Shape, World
from kronos_service.data.snapshot.manifest import SAMPLE, read_manifest
from kronos_service.data.snapshot.write import write_snapshot
from kronos_service.events.calendar import EVERYBODY, symbols_of
from kronos_service.events.scaling import Floats
from kronos_service.events.sessions import Sessions, Times, sessions, utc
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
    qqq_lead: float = 0.5
    """The same of QQQ, in the market of own events."""

    def leads(self) -> dict[str, float]:
        """Leader -> drift of the equities per unit of its last return z."""
        return {"SPY": self.spy_lead, "BTCUSDT": self.btc_lead, "QQQ": self.qqq_lead}


class Market(NamedTuple):
    """The three tables of a snapshot."""

    symbols: pd.DataFrame
    bars: pd.DataFrame
    calendar: pd.DataFrame


_SESSIONS_PER_YEAR: Final = 252
_OTHER_LEADER: Final = Shape(0.01, 100.0, 0.0)  # of a leader new in event_types.toml
_UNKNOWN_SHARE: Final = 0.4  # of the releases that are not high-impact: no actual, no forecast


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
    directory: Path,
    *,
    seed: int = 0,
    symbols: int = 24,
    start: date = START,
    end: date = END,
    world: World = US_MACRO,
) -> dict[str, Any]:
    """Write the market of `make_market` as a snapshot and return its manifest; same settings, same values."""
    market = make_market(seed, symbols=symbols, start=start, end=end, world=world)
    source = f"{SAMPLE} {seed}, {symbols} equities"
    return write_snapshot(
        directory, **market._asdict(), window=(start, end), source=source, taxonomy=world.taxonomy
    )


def make_market(
    seed: int = 0,
    *,
    symbols: int = 24,
    start: date = START,
    end: date = END,
    effects: Effects | None = None,
    world: World = US_MACRO,
) -> Market:
    """The tables of a market with planted effects; the same arguments give the same values.

    Args:
        symbols: tradable US equities, the world's anchor among them (>= 2).
        end: last day of the bars; the calendar reaches 61 days further.
        effects: sizes of the planted effects; the noise does not depend on them, so markets can be compared.
        world: the law of the market (see `sample_worlds`).
    """
    if symbols < 2 or end <= start:
        raise SampleError(f"need symbols >= 2 and end after start; got {symbols} symbols, {start} to {end}")
    if seed < 0:
        raise SampleError(f"need a seed of 0 or more; got {seed}")
    planted = effects or Effects()
    leaders, anchor = world.taxonomy.leader_asset_class, world.anchor
    equities = [f"SYN{n:02d}" for n in range(1, symbols)]
    calendar, scale = _calendar(seed, start, end + CALENDAR_MARGIN, world, equities)
    days = {name: sessions(asset_class, start, end) for name, asset_class in leaders.items()}
    shared = events_of(calendar, None)
    surprise = planted.surprise * planted_surprise(shared, scale, days[anchor])
    widen = {name: np.where(event_bars(shared, days[name]), planted.volatility, 1.0) for name in days}
    tables = {}
    for name in days:
        rng, shape = _rng(seed, name), world.shapes.get(name, _OTHER_LEADER)
        drift = _after(surprise) if name == anchor else np.zeros(len(days[name].dates))
        tables[name] = _bars(shape, days[name], _noise(rng, days[name]), widen[name], drift, rng)
    led = np.zeros(len(days[anchor].dates))
    for name, lead in planted.leads().items():
        if name in days:
            closes = tables[name].close.to_numpy()
            led = led + lead * leader_z(closes, days[name].closes, days[anchor].as_of)
    for n, name in enumerate(equities, start=1):
        own = events_of(calendar, name)
        wide = np.where(event_bars(own, days[anchor]), planted.volatility, 1.0)
        known = planted.surprise * planted_surprise(own, scale, days[anchor]) + led
        tables[name] = _equity(n, seed, anchor, days[anchor], wide, _after(known))
    classes = [(name, leaders.get(name, "us_equity")) for name in tables]
    rows = [(name, asset_class, name == anchor or name not in leaders) for name, asset_class in classes]
    bars = pd.concat([tables[name].assign(symbol=name) for name in sorted(tables)], ignore_index=True)
    return Market(
        pd.DataFrame(sorted(rows), columns=list(SYMBOL_COLUMNS)),
        bars[list(BAR_COLUMNS)],
        calendar,
    )


def events_of(calendar: pd.DataFrame, symbol: str | None) -> pd.DataFrame:
    """The rows that fall on a symbol's bars: everybody's, and its own."""
    return calendar[symbols_of(calendar).isin([EVERYBODY, symbol or EVERYBODY])]


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


def _calendar(
    seed: int, start: date, end: date, world: World, equities: list[str]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The releases, and the true standard deviation of each type's surprises."""
    dates = sessions("us_equity", start, end).dates
    parts, scale = [], dict[str, float]()
    for index, release in enumerate(world.releases):
        is_own = release.types[0] in world.taxonomy.symbol_types
        for symbol in equities if is_own else [EVERYBODY]:
            rng = _rng(seed, f"calendar{symbol}", index)
            on = dates[rng.random(len(dates)) < release.per_year / _SESSIONS_PER_YEAR]
            impact = np.where(rng.random(len(on)) < release.high_share, "high", release.otherwise)
            for event_type in release.types:
                drawn = float(np.round(rng.uniform(0.05, 0.5), 3))
                sigma = scale.setdefault(event_type, drawn)
                rows = _type_rows(event_type, on, release, impact, sigma, rng)
                parts.append(_of_symbol(rows, symbol, world.taxonomy.currency_of(event_type)))
    calendar = pd.concat(parts).sort_values(["release_at", "event_type"], ignore_index=True)
    return calendar.reindex(columns=list(CALENDAR_COLUMNS)), scale


def _of_symbol(rows: pd.DataFrame, symbol: str, currency: str) -> pd.DataFrame:
    rows = rows.assign(currency=currency)
    if symbol == EVERYBODY:
        return rows
    return rows.assign(symbol=symbol, event_id=[f"{symbol}:{one}" for one in rows["event_id"]])


def _type_rows(
    event_type: str,
    on: Times,
    release: Release,
    impact: npt.NDArray[np.str_],
    scale: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    local = pd.DatetimeIndex(on) + pd.Timedelta(f"{release.time}:00")
    forecast = np.round(rng.normal(2.0, scale, len(on)), 4)
    actual = np.round(forecast + rng.normal(0.0, scale, len(on)), 4)
    unknown = (impact != "high") & (rng.random(len(on)) < _UNKNOWN_SHARE)
    table = pd.DataFrame(
        {
            "event_id": [f"{event_type}:{day}" for day in np.datetime_as_string(on, unit="D")],
            "event_type": event_type,
            "event_name": event_type.replace("_", " "),
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


def _equity(
    number: int, seed: int, anchor: str, days: Sessions, widen: Floats, drift: Floats
) -> pd.DataFrame:
    rng = _rng(seed, "equity", number)
    sigma, level, volume = np.array([0.012, 100.0, 5e6]) * np.exp(rng.normal(0.0, [0.15, 0.5, 1.0]))
    market = _noise(_rng(seed, anchor), days)  # the same draws as in the anchor
    noise = np.sqrt(MARKET_SHARE) * market + np.sqrt(1 - MARKET_SHARE) * _noise(rng, days)
    return _bars(Shape(sigma, level, volume), days, noise, widen, drift, rng)


def _noise(rng: np.random.Generator, days: Sessions) -> Floats:
    """(S, STEPS) increments whose sum over a bar has unit variance."""
    noise: Floats = rng.standard_normal((len(days.dates), STEPS)) / np.sqrt(STEPS)
    return noise


def _bars(
    shape: Shape, days: Sessions, noise: Floats, widen: Floats, drift: Floats, rng: np.random.Generator
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
