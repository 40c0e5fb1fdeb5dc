"""A forecast in Nixtla's columns: renamed, never computed again."""

import pandas as pd
import pytest

from kronos_service.integrations.nixtla import NixtlaError, to_nixtla


@pytest.fixture
def out() -> pd.DataFrame:
    """Two symbols, one bar, two targets, as `predict_df` gives them."""
    frame = pd.DataFrame(
        {
            "symbol": ["SPY", "SPY", "QQQ", "QQQ"],
            "ts": pd.Timestamp("2025-06-11", tz="UTC"),
            "step": 1,
            "target_name": ["close", "volume", "close", "volume"],
            "predictions": [2.0, 20.0, 5.0, 50.0],
            "0.05": [0.5, 5.0, 3.5, 35.0],
            "0.1": [1.0, 10.0, 4.0, 40.0],
            "0.5": [2.0, 20.0, 5.0, 50.0],
            "0.9": [3.0, 30.0, 6.0, 60.0],
            "0.95": [3.5, 35.0, 6.5, 65.0],
        }
    )
    frame.attrs = {"synthetic": True}
    return frame


def test_quantiles_become_intervals(out: pd.DataFrame) -> None:
    wide = to_nixtla(out)
    assert wide.to_dict("list") == {
        "unique_id": ["SPY", "QQQ"],
        "ds": 2 * [pd.Timestamp("2025-06-11", tz="UTC")],
        "KronosEvents": [2.0, 5.0],
        "KronosEvents-lo-90": [0.5, 3.5],
        "KronosEvents-lo-80": [1.0, 4.0],
        "KronosEvents-hi-80": [3.0, 6.0],
        "KronosEvents-hi-90": [3.5, 6.5],
    }
    assert wide.attrs == {"synthetic": True}
    mine = out.rename(columns={"symbol": "id", "ts": "day"})
    volume = to_nixtla(mine, target="volume", id_column="id", timestamp_column="day")
    assert volume["KronosEvents-hi-80"].tolist() == [30.0, 60.0]


def test_levels_that_binary_fractions_miss_are_named_in_decimals(out: pd.DataFrame) -> None:
    renamed = out.rename(columns={"0.1": "0.35", "0.9": "0.65", "0.05": "0.005", "0.95": "0.995"})
    names = [name for name in map(str, to_nixtla(renamed).columns) if "-lo-" in name]
    assert names == ["KronosEvents-lo-99", "KronosEvents-lo-30"]


def test_a_mistake_is_one_line(out: pd.DataFrame) -> None:
    with pytest.raises(NixtlaError, match="got 'volumes', did you mean volume"):
        to_nixtla(out, target="volumes")
    with pytest.raises(NixtlaError, match=r"in pairs around 0\.5, got 0\.1 without 0\.9: ask predict_df"):
        to_nixtla(out.drop(columns="0.9"))
    with pytest.raises(NixtlaError, match="got one without target_name"):
        to_nixtla(out.drop(columns="target_name"))


@pytest.mark.ecosystem
def test_utilsforecast_scores_it(out: pd.DataFrame) -> None:
    from utilsforecast.evaluation import evaluate
    from utilsforecast.losses import coverage, mae

    came = pd.DataFrame(
        {"unique_id": ["SPY", "QQQ"], "ds": pd.Timestamp("2025-06-11", tz="UTC"), "y": [2.5, 6.2]}
    )
    scored = evaluate(to_nixtla(out).merge(came, on=["unique_id", "ds"]), metrics=[mae, coverage], level=[80])
    figures = scored.set_index(["metric", "unique_id"])["KronosEvents"]
    assert figures["mae", "SPY"] == pytest.approx(0.5)
    assert figures["coverage_level80", "SPY"] == 1
    assert figures["coverage_level80", "QQQ"] == 0
