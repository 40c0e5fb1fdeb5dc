"""What POST /v1/forecast takes and gives: prices in quote currency, times in UTC, horizons in bars.

Bars are identified by their session date. Columns, not rows: `mean.close[2]` belongs to `dates[2]`.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from kronos_service.inference.errors import FieldFault
from kronos_service.inference.settings import MOST_BARS, MOST_EVENTS, MOST_SERIES
from kronos_shared.adapter_manifest import VERSION_PATTERN
from kronos_shared.columns import ASSET_CLASSES
from kronos_shared.normalization import MIN_HISTORY

Symbol = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Price = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=1e24, allow_inf_nan=False)]
Figure = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
Sigmas = Annotated[float, Field(ge=-5, le=5, allow_inf_nan=False)]
Moment = Annotated[
    AwareDatetime, Field(ge=datetime(1990, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))
]
Probability = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
AssetClass = Literal["crypto", "us_equity", "index", "fx"]
Impact = Literal["high", "medium", "low"]
Leader = Annotated[str, Field(min_length=1, max_length=32)]
"""One of the taxonomy's, which the service checks: it may be another than the default one."""
assert set(ASSET_CLASSES) == set(AssetClass.__args__)  # type: ignore[attr-defined]


_MEAN: Final[dict[str, list[float]]] = {
    "open": [394.4, 395.5],
    "high": [398.2, 399.4],
    "low": [393.4, 393.7],
    "close": [396.8, 398.3],
    "volume": [94.9e6, 90.0e6],
}
_MEDIAN: Final[dict[str, list[float]]] = {
    "open": [393.5, 395.2],
    "high": [396.6, 397.2],
    "low": [392.8, 393.9],
    "close": [396.1, 396.1],
    "volume": [84.7e6, 81.7e6],
}
_SERIES: Final[dict[str, Any]] = {
    "symbol": "SPY",
    "asset_class": "us_equity",
    "last_bar": "2026-03-31",
    "stale_sessions": 0,
    "is_stale": False,
    "as_of": "2026-03-31T20:05:00Z",
    "bars_given": 1024,
    "bars_used": 510,
    "history_shortened": True,
    "missing_sessions": [],
    "missing_leaders": [{"leader": name, "last_bar": "2026-03-30"} for name in ("DXY", "VIX")],
    "recalibration": {"applied": True, "factors": [1.12, 1.08]},
    "events": [
        {
            **{"date": "2026-04-01", "event_type": "fomc_rate_decision", "family": "fomc_rate"},
            **{"impact": "high", "release_at": "2026-04-01T18:00:00Z"},
        }
    ],
    "calendar_until": "2026-05-20",
    "dates": ["2026-04-01", "2026-04-02"],
    "last_close": 394.1,
    "mean": _MEAN,
    "quantiles": {"0.5": _MEDIAN},
    "moves": {"0.5": [0.51, 0.04]},
    "paths": {name: [values] for name, values in _MEAN.items()},
}
_MODEL: Final[dict[str, Any]] = {
    "version": "000003-0123456789ab",
    "digest": "0123456789ab" + 52 * "0",
    "generation": 4,
    "base": "NeoQuasar/Kronos-base",
    "base_digest": "fedcba987654" + 52 * "0",
    "synthetic": False,
}
_REQUESTS: Final[list[Any]] = [
    {"series": [{"symbol": "SPY"}], "horizon": 5, "paths": 100, "seed": 7, "quantiles": [0.05, 0.5, 0.95]},
    {
        "series": [{"symbol": "SPY"}],
        "horizon": 10,
        "scenario": {"surprises": [{"date": "2026-04-01", "event_type": "fomc_rate_decision", "z": 2.0}]},
    },
]
_RESPONSES: Final[list[Any]] = [
    {"request_id": "0d5e4c3b2a1908f7", "model": _MODEL, "seed": 7, "series": [_SERIES]}
]


class _Body(BaseModel):
    """Strict: text is no number, and a name that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Candle(_Body):
    """One finished bar."""

    ts: date = Field(description="Session date.")
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Amount
    amount: Amount | None = Field(None, description="Turnover; null: volume x mean of the four prices.")


class SeriesIn(_Body):
    """Candles of one instrument, or a symbol that the service looks up in its source."""

    symbol: Symbol = Field(description="Looked up in the source, or with candles a name for the answer.")
    asset_class: AssetClass | None = Field(None, description="With candles: it decides the sessions.")
    as_of: date | None = Field(
        None, description="Without candles: no bar after this date is used. Null: all there are."
    )
    candles: list[Candle] | None = Field(
        None,
        max_length=MOST_BARS,
        description=f"Ascending, one per session without gaps, at least {MIN_HISTORY}, none unfinished.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.candles is None) != (self.asset_class is None):
            raise ValueError("give candles and asset_class together, or neither to look the symbol up")
        if self.candles is not None and self.as_of is not None:
            raise ValueError("as_of cuts the bars of the source: end the candles where the forecast begins")
        return self


class EventIn(_Body):
    """One row of an economic calendar; several rows of one event_id are its versions."""

    event_id: str = Field(min_length=1, max_length=128)
    event_type: str = Field(min_length=1, max_length=64)
    impact: Impact
    release_at: Moment
    actual: Figure | None = None
    forecast: Figure | None = None
    first_seen_at: Moment | None = Field(None, description="Null: the schedule was always known.")
    symbol: Symbol | None = Field(
        None, description="Of a symbol event, such as earnings: the symbol on whose bars it falls."
    )


class CalendarIn(_Body):
    """A calendar in place of the service's own, in the currencies of its event types (USD by default)."""

    events: list[EventIn] = Field(max_length=MOST_EVENTS)
    complete_until: date = Field(description="Up to this date nothing else is scheduled.")


class SupposedSurprise(_Body):
    """What if a release differs from its forecast."""

    date: date
    event_type: str = Field(min_length=1, max_length=64)
    z: Sigmas = Field(description="(actual - forecast) in standard deviations of the type's surprises.")


class SupposedMove(_Body):
    """What if a leader moves on one bar."""

    date: date
    leader: Leader
    z: Sigmas = Field(description="Log return in standard deviations of its daily returns.")


class ScenarioIn(_Body):
    """What if: it moves the bars *after* its date, so a date on the last forecast bar is refused.

    A surprise of +2 on the CPI of a date changes nothing on that date's bar, whose close may come before the
    release is digested, and shifts the distribution of the bar after it, and through it of the later ones.
    """

    surprises: list[SupposedSurprise] = Field(default=[], max_length=64)
    leaders: list[SupposedMove] = Field(default=[], max_length=256)


class ForecastRequest(_Body):
    """What to forecast, and how."""

    model_config = ConfigDict(json_schema_extra={"examples": _REQUESTS})

    series: list[SeriesIn] = Field(min_length=1, max_length=MOST_SERIES)
    horizon: int = Field(ge=1, description="Bars to forecast.")
    paths: int = Field(default=30, ge=1, description="Sample paths per series.")
    model: Literal["adapter", "base"] = Field(
        default="adapter", description="base: without the adapter and events, from the same bars and seed."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="The same seed and model give the same numbers.")
    quantiles: list[Probability] = Field(default=[0.1, 0.5, 0.9], max_length=32)
    temperature: float = Field(default=1.0, ge=0, le=5, description="0 takes the most likely token.")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="Below 1 both tails are cut, and bands hold less than they say."
    )
    top_k: int = Field(default=0, ge=0, le=2**20, description="0 keeps all.")
    calendar: CalendarIn | None = Field(None, description="Default: the service's own.")
    scenario: ScenarioIn | None = None
    recalibrated: bool = Field(
        default=True,
        description="With the adapter's width factors, where it has any and tokens are drawn as by default.",
    )
    return_paths: bool = False
    deadline_ms: int | None = Field(
        None, ge=1, description="From arrival; work that has not begun by then is dropped with 504."
    )

    @property
    def is_plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return (self.temperature, self.top_k, self.top_p) == (1.0, 0, 1.0)

    @field_validator("temperature")
    @classmethod
    def _not_too_cold(cls, value: float) -> float:
        if 0 < value < 0.01:
            raise ValueError("expected 0 or 0.01 to 5")
        return value


class VersionBody(_Body):
    """A published version by its name, such as 000003-0123456789ab."""

    version: str | None = Field(pattern=VERSION_PATTERN)


class Columns(BaseModel):
    """One value per forecast bar."""

    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]


class PathColumns(BaseModel):
    """One list per path, each with one value per forecast bar."""

    open: list[list[float]]
    high: list[list[float]]
    low: list[list[float]]
    close: list[list[float]]
    volume: list[list[float]]


class KnownEvent(BaseModel):
    """A release on a forecast bar, as the calendar had it at as_of."""

    date: date
    event_type: str
    family: str
    impact: Impact
    release_at: AwareDatetime


class MissingLeader(BaseModel):
    """A leader whose bar should have been known at as_of."""

    leader: Leader
    last_bar: date | None = Field(description="The latest bar there is; null: none at all.")


class RecalibrationOut(BaseModel):
    """By what the widths that the model drew were multiplied, as validation forecasts asked for."""

    applied: bool
    factors: list[float] = Field(description="One per forecast bar; empty where none was applied.")


class SeriesOut(BaseModel):
    """The forecast of one series."""

    symbol: str
    asset_class: AssetClass
    last_bar: date
    stale_sessions: int = Field(description="Sessions that have closed after last_bar.")
    is_stale: bool = Field(description="More of them than the operator allows: a forecast of the past.")
    as_of: AwareDatetime = Field(description="Nothing that became known later was used.")
    bars_given: int
    bars_used: int
    history_shortened: bool = Field(
        description="bars_given exceeds what the model can read with the horizon."
    )
    missing_sessions: list[date] = Field(description="Sessions without a bar within bars_used.")
    missing_leaders: list[MissingLeader]
    recalibration: RecalibrationOut
    events: list[KnownEvent]
    calendar_until: date = Field(description="Events after this date are not known.")
    dates: list[date] = Field(description="Session dates of the forecast bars.")
    last_close: float
    mean: Columns
    quantiles: dict[str, Columns] = Field(description="By level, such as 0.1; over the paths, per column.")
    moves: dict[str, list[float]] = Field(
        description="By level: quantiles of each bar's own move, close to close, in percent."
    )
    paths: PathColumns | None


class ModelOut(BaseModel):
    """What computed the answer: all of it, for every series."""

    version: str | None = Field(description="The adapter's; null: the plain base.")
    digest: str | None = Field(description="sha256 of the adapter's manifest.")
    generation: int | None
    base: str
    base_digest: str
    synthetic: bool = Field(description="SYNTHETIC: it has learned from the sample market alone.")


class ForecastResponse(BaseModel):
    """The forecasts in the order of the request."""

    model_config = ConfigDict(json_schema_extra={"examples": _RESPONSES})

    request_id: str
    model: ModelOut
    seed: int
    series: list[SeriesOut]


class ErrorOut(BaseModel):
    """Why there is no answer."""

    code: str
    message: str
    fields: tuple[FieldFault, ...] = ()


class ErrorResponse(BaseModel):
    """Every error has this form."""

    error: ErrorOut
    request_id: str
