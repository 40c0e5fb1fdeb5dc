"""Suppositions in words: what they become, and one clear line for each that cannot be."""

from datetime import date

import pytest

from kronos_service.events.scenario import ScenarioError
from kronos_service.inference.forecast.scenario_text import parse_scenario

SCHEDULED = {
    date(2025, 6, 11): ["nfp", "unemployment_rate"],
    date(2025, 6, 12): [],
    date(2025, 6, 13): ["cpi", "core_cpi", "fomc_rate"],
    date(2025, 6, 16): ["cpi"],
}


def test_a_surprise_belongs_to_the_first_release_of_its_family_unless_dated() -> None:
    assert parse_scenario(["cpi +2"], SCHEDULED).surprises == {date(2025, 6, 13): 2.0}
    assert parse_scenario(["CPI -1.5 2025-06-16"], SCHEDULED).surprises == {date(2025, 6, 16): -1.5}
    several = parse_scenario(["nfp 1", "cpi +2"], SCHEDULED)
    assert several.surprises == {date(2025, 6, 11): 1.0, date(2025, 6, 13): 2.0}


def test_an_event_type_stands_for_its_family() -> None:
    assert parse_scenario(["fomc_statement 1"], SCHEDULED).surprises == {date(2025, 6, 13): 1.0}


def test_a_leader_moves_on_its_date() -> None:
    scenario = parse_scenario(["SPY -2 2025-06-12", "vix 1 2025-06-12"], SCHEDULED)
    assert scenario.leaders == {"SPY": {date(2025, 6, 12): -2.0}, "VIX": {date(2025, 6, 12): 1.0}}
    assert scenario.surprises == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["cpi"], "expected a scenario such as 'cpi \\+2'"),
        (["cpi two"], "expected a scenario"),
        (["cpi 2 tomorrow"], "expected a scenario"),
        (["cpi 2 2025-06-13 now"], "expected a scenario"),
        (["cpj 2"], "expected one of fomc_rate, .*VIX, got 'cpj'"),
        (["gdp 2"], "no gdp is scheduled on the forecast bars; there is nfp on 2025-06-11"),
        (["cpi 2 2025-06-12"], "no cpi is scheduled on 2025-06-12"),
        (["SPY 2"], "expected a date for a leader's move"),
        (["cpi 2", "fomc_rate 1"], "got two on 2025-06-13"),
        (["SPY 2 2025-06-12", "spy 1 2025-06-12"], "one move of SPY a bar, got two on 2025-06-12"),
    ],
)
def test_what_cannot_be_supposed_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse_scenario(texts, SCHEDULED)
