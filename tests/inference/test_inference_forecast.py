"""Forecasts over HTTP: what comes back, and that it depends on nothing but what was asked."""

from collections.abc import Callable
from typing import Any

import numpy as np

COLUMNS = ("open", "high", "low", "close", "volume")

Ask = Callable[..., dict[str, Any]]


def test_a_symbol_is_forecast_from_its_last_bar(ask: Ask) -> None:
    (series,) = ask()["series"]
    assert series["last_bar"] == "2022-12-30"
    assert series["dates"] == ["2023-01-03", "2023-01-04", "2023-01-05", "2023-01-06"]
    assert series["as_of"] == "2022-12-30T22:00:00Z"
    assert (series["bars_given"], series["bars_used"], series["history_shortened"]) == (503, 68, True)
    assert series["paths"] is None
    assert series["quantiles"].keys() == {"0.1", "0.5", "0.9"}


def test_paths_are_valid_candles_and_mean_and_quantiles_are_theirs(ask: Ask) -> None:
    (series,) = ask(return_paths=True, quantiles=[0.25, 0.5])["series"]
    paths = {name: np.array(series["paths"][name]) for name in COLUMNS}
    assert {values.shape for values in paths.values()} == {(5, 4)}
    body = np.stack([paths["open"], paths["close"]])
    assert (paths["high"] >= body.max(axis=0)).all()
    assert (paths["low"] <= body.min(axis=0)).all()
    assert (paths["volume"] >= 0).all()
    for name in COLUMNS:
        np.testing.assert_allclose(series["mean"][name], paths[name].mean(axis=0))
        for level in ("0.25", "0.5"):
            expected = np.quantile(paths[name], float(level), axis=0)
            np.testing.assert_allclose(series["quantiles"][level][name], expected)
