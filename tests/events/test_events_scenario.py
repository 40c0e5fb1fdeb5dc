"""What-if values condition the bar after the one they happen on."""

from datetime import date

import numpy as np
import numpy.typing as npt
import pytest
from event_samples import calendar_of, empty_leaders

from kronos_service.events.encoder import encode_rows, prepare
from kronos_service.events.scenario import Scenario, ScenarioError
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

FRIDAY = "2024-03-08"
MONDAY, TUESDAY, WEDNESDAY = date(2024, 3, 11), date(2024, 3, 12), date(2024, 3, 13)


def encode(scenario: Scenario, horizon: int = 3) -> npt.NDArray[np.float32]:
    tables = prepare(calendar_of([]), empty_leaders())
    return encode_rows(tables, [FRIDAY], "us_equity", horizon=horizon, scenario=scenario, symbol=None)


def test_a_surprise_on_a_forecast_bar_sits_on_the_row_about_the_next_one() -> None:
    """The rows are about Monday, Tuesday and Wednesday."""
    assert encode(Scenario(surprises={MONDAY: 1.5}))[:, DEFAULT_TAXONOMY.surprise].tolist() == [0, 1.5, 0]
    assert encode(Scenario(surprises={TUESDAY: -9.0}))[:, DEFAULT_TAXONOMY.surprise].tolist() == [0, 0, -5]


def test_a_leader_moves_the_bar_after() -> None:
    events = encode(Scenario(leaders={"VIX": {MONDAY: 2.0}, "SPY": {TUESDAY: -1.0}}))
    assert events[:, DEFAULT_TAXONOMY.channels.index("leader_vix")].tolist() == [0, 2, 0]
    assert events[:, DEFAULT_TAXONOMY.channels.index("leader_spy")].tolist() == [0, 0, -1]


def test_an_empty_scenario_changes_nothing() -> None:
    assert not encode(Scenario()).any()


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (Scenario(surprises={WEDNESDAY: 1.0}), "before the last forecast bar, got 2024-03-13"),
        (Scenario(leaders={"SPY": {WEDNESDAY: 1.0}}), "before the last forecast bar, got 2024-03-13"),
        (Scenario(surprises={date(2024, 3, 8): 1.0}), "2024-03-11 .* 2024-03-13, got 2024-03-08"),
        (Scenario(surprises={date(2024, 3, 10): 1.0}), "got 2024-03-10"),
        (Scenario(surprises={MONDAY: float("nan")}), "finite value on 2024-03-11"),
        (Scenario(leaders={"GLD": {MONDAY: 1.0}}), "got GLD"),
    ],
)
def test_what_does_not_fit_the_forecast_is_refused(scenario: Scenario, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        encode(scenario)


@pytest.mark.parametrize("horizon", [0, 1])
def test_a_forecast_of_one_bar_has_no_room_for_a_scenario(horizon: int) -> None:
    with pytest.raises(ScenarioError, match="last forecast bar"):
        encode(Scenario(surprises={MONDAY: 1.0}), horizon=horizon)
