"""Which event day a report shows, and that it shows what the forecasts and the bars say."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation.event_day import SHOWN_PAST, event_day
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_shared.quantiles import LEVELS, quantile_name

BARS = 40
DATES = np.arange("2025-01-01", "2025-02-10", dtype="datetime64[D]")
CLOSES = 100 * np.exp(0.01 * np.arange(BARS))


def series() -> Series:
    features = np.repeat(CLOSES[:, None], 6, axis=1)
    return Series(
        symbol="SYN01",
        asset_class="us_equity",
        dates=DATES,
        features=features,
        stamps=np.zeros((BARS, 5), dtype=np.int64),
        events=np.zeros((BARS, 20), dtype=np.float32),
        is_event=np.zeros(BARS, dtype=np.bool_),
        families=np.zeros((BARS, len(DEFAULT_TAXONOMY.families)), dtype=np.bool_),
        follows=np.ones(BARS, dtype=np.bool_),
        taxonomy=DEFAULT_TAXONOMY,
    )


def records(crps: Mapping[int, float], family: Mapping[int, str]) -> pd.DataFrame:
    """Two bars from each origin (bar -> CRPS of the next bar), which has the event of a family."""
    rows = [
        {
            **{"symbol": "SYN01", "series": 0, "bar": origin + step, "model": model, "step": step},
            **{"origin": DATES[origin], "date": pd.Timestamp(DATES[origin + step]), "crps": value},
            "is_event": step == 1 and origin in family,
            **{name: step == 1 and family.get(origin) == name for name in DEFAULT_TAXONOMY.families},
            "outcome": 0.01 * step,
            **{quantile_name(level): (level - 0.5) * step / 100 for level in LEVELS},
        }
        for origin, value in crps.items()
        for model in ("base", "adapter")
        for step in (1, 2)
    ]
    return pd.DataFrame(rows)


def test_the_day_in_the_middle_is_shown_neither_the_best_nor_the_worst() -> None:
    crps = {25: 0.3, 26: 0.1, 27: 0.9, 28: 0.2}
    day = event_day(records(crps, dict.fromkeys((25, 26, 27), "cpi")), [series()])
    assert day is not None
    assert (day["rank"], day["among"]) == (2, 3)
    assert day["past_dates"][-1] == str(DATES[25])
    assert day["dates"] == [str(DATES[26]), str(DATES[27])]
    assert day["events"] == [["cpi"], []]


def test_it_shows_the_bars_before_and_the_forecast_in_percent() -> None:
    day = event_day(records({25: 0.3}, {25: "nfp"}), [series()])
    assert day is not None
    assert day["past"] == pytest.approx([float(bar) for bar in range(1 - SHOWN_PAST, 1)])
    assert day["came"] == pytest.approx([1.0, 2.0])
    assert day["models"]["adapter"]["q95"] == pytest.approx([0.45, 0.9])
    assert set(day["models"]) == {"base", "adapter"}


def test_days_of_tier_1_come_before_others_and_no_event_is_no_day() -> None:
    found = event_day(records({25: 0.1, 26: 0.2, 27: 0.3}, {25: "pce", 26: "pce", 27: "cpi"}), [series()])
    assert found is not None
    assert (found["events"][0], found["among"]) == (["cpi"], 1)
    assert event_day(records({25: 0.1}, {}), [series()]) is None
