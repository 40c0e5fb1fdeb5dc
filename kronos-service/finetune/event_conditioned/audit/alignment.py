"""Do the days of 24-hour bars end with the UTC day? Only prices can tell, once bars have lost their hours.

A bar dated by the UTC day in which it begins, but which ends hours after that day, moves with the next day
of a symbol whose days are UTC's: it is known before it ends. Two symbols are compared; a symbol that is
alone, or all symbols shifted alike, cannot be told from a market without a shift.
"""

import math
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.audit.findings import Check, Finding

REFERENCE: Final = "BTCUSDT"
FEWEST_DAYS: Final = 60
LEAST: Final = 0.15
"""Correlation with the other's next day from which on it counts; one market leads another by less."""
LEAST_HOURS: Final = 3.0


class Overlap(NamedTuple):
    """How one symbol's daily returns move with another's: correlation with its same and with its next day."""

    days: int
    same: float
    following: float

    @property
    def hours(self) -> float:
        """Of the one symbol's bars past the end of the other's day: the overlap's share of 24 hours."""
        both = max(self.same, 0.0) + max(self.following, 0.0)
        return 24 * max(self.following, 0.0) / both if both else 0.0

    @property
    def is_shifted(self) -> bool:
        """Whether it is more than chance and more than one market's lead over another."""
        least = max(LEAST, 4 / math.sqrt(self.days)) if self.days >= FEWEST_DAYS else math.inf
        return self.following > least and self.hours >= LEAST_HOURS


def check_days(snapshot: Snapshot) -> Check:
    """No crypto symbol's bars move with the next day of BTCUSDT, nor BTCUSDT's with theirs."""
    is_crypto = snapshot.symbols["asset_class"] == "crypto"
    names = [str(name) for name in snapshot.symbols.loc[is_crypto, "symbol"]]
    returns = {name: _returns(snapshot.bars, name) for name in names}
    others = [name for name in names if name != REFERENCE and REFERENCE in returns]
    findings, reference_ahead = [], []
    for name in others:
        ahead = overlap(returns[name], returns[REFERENCE])
        if ahead.is_shifted:
            findings.append(_finding(name, REFERENCE, ahead))
        behind = overlap(returns[REFERENCE], returns[name])
        if behind.is_shifted:
            reference_ahead.append((name, behind))
    if len(reference_ahead) > len(others) / 2:
        findings.append(_finding(REFERENCE, *reference_ahead[0]))
    return Check("UTC days", len(others), f"crypto symbols against {REFERENCE}", findings)


def overlap(one: pd.Series, other: pd.Series) -> Overlap:
    """Compare two series of daily returns, by date."""
    following = other.shift(-1, freq="D")
    table = pd.concat([one, other, following], axis=1, join="inner").dropna().to_numpy()
    if len(table) < 3 or (table.std(axis=0) == 0).any():
        return Overlap(len(table), 0.0, 0.0)
    correlation = np.corrcoef(table, rowvar=False)
    return Overlap(len(table), float(correlation[0, 1]), float(correlation[0, 2]))


def _returns(bars: pd.DataFrame, symbol: str) -> pd.Series:
    """Log returns from open to close, by date: what happened within each bar."""
    rows = bars[bars["symbol"] == symbol].set_index("ts")
    return (rows["close"] / rows["open"]).map(math.log)


def _finding(symbol: str, other: str, found: Overlap) -> Finding:
    return Finding(
        f"{symbol}, {found.days:,} days",
        "end of its bars",
        f"moves with the same day of {other}",
        f"correlation {found.same:.2f} with the same and {found.following:.2f} with the next day: its bars "
        f"end about {found.hours:.0f} h after their UTC day (day_starts in the map dates them)",
    )
