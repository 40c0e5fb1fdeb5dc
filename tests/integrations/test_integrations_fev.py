"""fev's own task asks our predictor and scores it; its numbers are the front door's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kronos_service import KronosEvents
from kronos_service.data.snapshot.read import Snapshot
from kronos_shared.errors import KronosError

pytestmark = pytest.mark.ecosystem
COLUMNS = ["open", "high", "low", "close", "volume"]
SYMBOLS = ["SPY", "SYN01", "SYN02"]


@pytest.fixture(scope="module")
def model(adapter_of: Callable[[int], Path], base_path: Path) -> KronosEvents:
    return KronosEvents.from_adapter(adapter_of(2), base_model=str(base_path))


def bars_of(market: Snapshot, symbol: str) -> pd.DataFrame:
    """To 29 November 2022: Thanksgiving lies in the last window."""
    bars = market.bars[(market.bars["symbol"] == symbol) & (market.bars["ts"] < "2022-11-30")]
    return bars.set_index(bars["ts"].dt.tz_localize(None))[COLUMNS]


def on_working_days(bars: pd.DataFrame) -> pd.DataFrame:
    """A frequency that fev can infer: rows of nulls on holidays."""
    return bars.reindex(pd.bdate_range(bars.index[0], bars.index[-1]))


def row_of(bars: pd.DataFrame, symbol: str) -> dict[str, Any]:
    return {
        "id": symbol,
        "timestamp": bars.index.tolist(),
        **{name: bars[name].tolist() for name in COLUMNS},
    }


@pytest.fixture(scope="module")
def task_of(market: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A task of three symbols with two windows."""
    import datasets
    import fev

    rows = []
    for symbol in SYMBOLS:
        rows.append(row_of(on_working_days(bars_of(market, symbol)), symbol))
    path = tmp_path_factory.mktemp("fev") / "bars.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)

    def make(**changes: Any) -> Any:
        usual = {
            "dataset_path": str(path),
            "horizon": 5,
            "num_windows": 2,
            "eval_metric": "WQL",
            "quantile_levels": [0.1, 0.5, 0.9],
            "target": "close",
            "past_dynamic_columns": ["open", "high", "low", "volume"],
        }
        return fev.Task(**usual | changes)

    return make


def test_a_task_is_answered_with_the_front_door_s_numbers(
    model: KronosEvents, market: Snapshot, task_of: Callable[..., Any]
) -> None:
    from kronos_service.integrations.fev import KronosEventsModel

    task = task_of()
    predictor = KronosEventsModel(model, events=market.calendar, leaders=market.bars, paths=6, seed=3)
    answers = predictor.fit_predict(task)
    summary = task.evaluation_summary(answers, model_name=predictor.model_name)
    assert 0 < summary["WQL"] < 1
    assert predictor.inference_time > 0
    for last, answer, stands_on in (
        ("2022-11-15", answers[0], [0, 1, 2, 3, 4]),
        # Thursday 24 November was Thanksgiving: Wednesday's forecast stands there, where nothing is scored
        ("2022-11-22", answers[1], [0, 0, 1, 2, 3]),
    ):
        cut = market.bars[market.bars["symbol"].isin(SYMBOLS) & (market.bars["ts"] <= last)]
        asked: dict[str, Any] = {"leaders": market.bars, "horizon": 5, "paths": 6, "seed": 3}
        out = model.predict_df(cut, events=market.calendar, **asked)
        close = out[out["target_name"] == "close"]
        for symbol, one in zip(SYMBOLS, answer["close"], strict=True):
            ours = close[close["symbol"] == symbol]
            for column in ("predictions", "0.1", "0.9"):
                np.testing.assert_array_equal(one[column], ours[column].iloc[stands_on])


def test_several_targets_are_answered_together(model: KronosEvents, task_of: Callable[..., Any]) -> None:
    from kronos_service.integrations.fev import KronosEventsModel

    task = task_of(target=COLUMNS, past_dynamic_columns=[])
    answers = KronosEventsModel(model, paths=4, base_only=True).fit_predict(task)
    assert [sorted(window) for window in answers] == 2 * [sorted(COLUMNS)]
    assert task.evaluation_summary(answers, model_name="kronos-events")["num_forecasts"] > 0


def test_what_it_cannot_answer_is_one_line(
    model: KronosEvents, market: Snapshot, task_of: Callable[..., Any], tmp_path: Path
) -> None:
    import datasets

    from kronos_service.integrations.fev import KronosEventsModel

    predictor = KronosEventsModel(model, paths=4, base_only=True)
    with pytest.raises(KronosError, match="without open, high, low, volume"):
        predictor.fit_predict(task_of(past_dynamic_columns=[]))
    bars = bars_of(market, "SPY").head(80)
    filled = bars.set_index(pd.bdate_range("2021-01-04", periods=80))  # Martin Luther King's day among them
    datasets.Dataset.from_list([row_of(filled, "SPY")]).to_parquet(tmp_path / "bars.parquet")
    with pytest.raises(KronosError, match=r"SPY 2021-01-18 \(no session on this date\)"):
        predictor.fit_predict(task_of(dataset_path=str(tmp_path / "bars.parquet"), num_windows=1))
