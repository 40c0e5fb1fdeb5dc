"""Which targets each fold of a walk-forward validation scores, and which it may learn from."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from kronos_service.events.sessions import LONGEST_CLOSURE, sessions
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_shared.errors import KronosError

ONE_DAY = timedelta(days=1)
SHORTEST = timedelta(days=28)
"""A last fold of fewer days holds hardly an event of each kind: its targets are left to the next run."""
INNER_SHARE = 0.2
"""Share of a fold's training days, the last ones, on which the number of epochs is chosen."""


class FoldError(KronosError):
    """The data hold no fold of the wanted dates."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """First and last target dates, all inclusive, of what is trained on and of what is scored."""

    train_first: date
    train_last: date
    first: date
    last: date

    @property
    def name(self) -> str:
        """The fold's first scored date."""
        return str(self.first)

    def inner(self, horizon: int) -> "Fold":
        """The fold within this fold's training dates: its last fifth is scored, what comes before trained."""
        days = (self.train_last - self.train_first).days + 1
        first = self.train_last - timedelta(days=round(days * INNER_SHARE) - 1)
        return Fold(
            train_first=self.train_first,
            train_last=embargoed(first, horizon),
            first=first,
            last=self.train_last,
        )


def plan_folds(config: WalkForwardConfig, end: date) -> list[Fold]:
    """The folds from `config.first_val` to `end`, the last date that can be scored; the last may be shorter.

    Raises:
        FoldError: there is no target to score from `config.first_val` on.
    """
    folds: list[Fold] = []
    first = config.first_val
    while first <= end:
        after = _months_later(first, config.fold_months)
        last = min(after - ONE_DAY, end)
        if folds and last - first + ONE_DAY < SHORTEST:
            break
        folds.append(
            Fold(
                train_first=train_first(config, first),
                train_last=embargoed(first, config.horizon),
                first=first,
                last=last,
            )
        )
        first = after
    if not folds:
        raise FoldError(
            f"expected targets from --first-val {config.first_val} on, but the last one that can be scored "
            f"is dated {end}: take an earlier --first-val, or a longer snapshot"
        )
    return folds


def train_first(config: WalkForwardConfig, first: date) -> date:
    """The first target date to train on before a fold that begins on `first`."""
    if config.train_months is None:
        return config.train_start
    return max(config.train_start, _months_later(first, -config.train_months))


def embargoed(first: date, horizon: int) -> date:
    """The last target date to train on before `first`: `horizon` sessions of every market lie between.

    So no forecast of that many bars made inside the training dates ends inside the fold (de Prado 2018,
    Advances in Financial Machine Learning, 7.4). US equities have the fewest sessions: theirs are counted.
    """
    begin = first - 2 * timedelta(days=horizon) - LONGEST_CLOSURE
    dates = sessions("us_equity", begin, first - ONE_DAY).dates
    kept: np.datetime64 = dates[-horizon] - np.timedelta64(1, "D")
    day: date = kept.astype("datetime64[D]").item()
    return day


def _months_later(day: date, months: int) -> date:
    later: date = (pd.Timestamp(day) + pd.DateOffset(months=months)).date()
    return later
