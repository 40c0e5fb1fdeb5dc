"""The symbols that a forecast can be asked for, found by a part of their name."""

from datetime import date, datetime

from pydantic import BaseModel, Field

from kronos_service.inference.market.market import Market, sessions_behind
from kronos_service.inference.schemas import AssetClass
from kronos_shared.normalization import MIN_HISTORY


class SymbolOut(BaseModel):
    """One symbol of the source with enough bars for a forecast."""

    symbol: str
    asset_class: AssetClass
    first_bar: date
    last_bar: date
    bars: int
    stale_sessions: int = Field(description="Sessions that have closed after last_bar.")
    is_stale: bool = Field(description="More of them than the operator allows.")


class SymbolsOut(BaseModel):
    """Those that begin with what was searched, then those that contain it, each by name."""

    total: int
    matching: int
    symbols: list[SymbolOut]


def search(market: Market, text: str, *, most: int, now: datetime, stale_after: int) -> SymbolsOut:
    """The symbols whose name contains `text`, whatever the case; the first `most` of them."""
    wanted = text.strip().casefold()
    usable = [name for name, bars in market.bars.items() if len(bars) >= MIN_HISTORY]
    found = [name for name in usable if wanted in name.casefold()]
    found.sort(key=lambda name: (not name.casefold().startswith(wanted), name))
    return SymbolsOut(
        total=len(usable),
        matching=len(found),
        symbols=[_symbol_out(market, name, now, stale_after) for name in found[:most]],
    )


def _symbol_out(market: Market, name: str, now: datetime, stale_after: int) -> SymbolOut:
    dates, asset_class = market.bars[name]["ts"], market.asset_class[name]
    behind = sessions_behind(dates.iloc[-1], asset_class, now)
    return SymbolOut.model_validate(
        {
            "symbol": name,
            "asset_class": asset_class,
            "first_bar": dates.iloc[0].date(),
            "last_bar": dates.iloc[-1].date(),
            "bars": len(dates),
            "stale_sessions": behind,
            "is_stale": behind > stale_after,
        }
    )
