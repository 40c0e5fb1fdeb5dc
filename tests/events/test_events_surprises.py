"""Where a surprise sits and how it is scaled."""

import time

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from event_samples import bars_of, calendar_of, empty_leaders, event, new_york, session_days
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_service.events.encoder import encode_rows, prepare
from kronos_service.events.surprises import _sigma
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

WEEK = ("2024-03-11", "2024-03-15")
EARLIER = (0.1, -0.2, 0.3, 0.0, -0.1, 0.2, 0.1, -0.3)


def history(event_type: str = "cpi", values: tuple[float, ...] = EARLIER) -> list[dict[str, object]]:
    """Eight earlier surprises of one type, a month apart."""
    return [
        event(f"{event_type}-{i}", event_type, new_york(f"2023-{i + 3:02d}-10 08:30"), actual=v, forecast=0.0)
        for i, v in enumerate(values)
    ]


def channel(
    *rows: dict[str, object], asset_class: str = "us_equity", drop: tuple[str, ...] = ()
) -> npt.NDArray[np.float32]:
    days = [day for day in session_days(asset_class, *WEEK) if str(day) not in drop]
    tables = prepare(calendar_of(rows), empty_leaders())
    return encode_rows(tables, bars_of(days)["ts"], asset_class, symbol=None)[:, DEFAULT_TAXONOMY.surprise]


def cpi(release: str, actual: float = 0.2, **values: object) -> dict[str, object]:
    return event("now", "cpi", new_york(release), actual=actual, forecast=0.0, **values)


def assert_channel(found: npt.NDArray[np.float32], *expected: float) -> None:
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6)


Z = float(0.2 / np.std(EARLIER, ddof=1))


@pytest.mark.parametrize(
    ("release", "asset_class", "bar"),
    [
        (
            "2024-03-12 08:30",
            "us_equity",
            1,
        ),  # known at its own bar's close: conditions the next bar
        (
            "2024-03-12 16:59:59",
            "us_equity",
            1,
        ),  # after the close, before as_of: conditions its own target
        ("2024-03-12 17:00", "us_equity", 2),  # at as_of is too late
        ("2024-03-12 17:00", "index", 1),  # the VIX is an hour past its close only at 17:15
        ("2024-03-12 17:15", "index", 2),
        ("2024-03-12 16:59", "fx", 1),
        ("2024-03-12 17:00", "fx", 2),
        ("2024-03-12 19:59", "crypto", 1),
        ("2024-03-12 20:00", "crypto", 2),  # midnight in UTC, summer time
        ("2024-03-10 12:00", "us_equity", 0),  # Sunday: the first bar that can know it is Monday's
        ("2024-03-08 17:00", "us_equity", 0),
    ],
)
def test_a_surprise_sits_at_the_first_bar_that_can_know_it(release: str, asset_class: str, bar: int) -> None:
    found = channel(*history(), cpi(release), asset_class=asset_class)
    expected = np.zeros(5)
    expected[bar] = Z
    assert_channel(found, *expected)


def test_one_known_before_the_first_bar_sits_nowhere() -> None:
    assert not channel(*history(), cpi("2024-03-08 16:59:59")).any()


def test_it_waits_for_the_next_bar_over_a_gap_in_the_data() -> None:
    found = channel(*history(), cpi("2024-03-12 08:30"), drop=("2024-03-12", "2024-03-13"))
    assert_channel(found, 0, Z, 0)


def test_a_late_publication_counts_from_when_it_was_seen() -> None:
    found = channel(*history(), cpi("2024-03-12 08:30", first_seen_at=new_york("2024-03-13 09:00")))
    assert_channel(found, 0, 0, Z, 0, 0)


def test_a_later_revision_is_no_new_surprise() -> None:
    release = "2024-03-12 08:30"
    revised = cpi(release, actual=-0.9, first_seen_at=new_york("2024-03-13 09:00"))
    assert_channel(channel(*history(), cpi(release), revised), 0, Z, 0, 0, 0)


def test_the_first_version_with_both_figures_counts() -> None:
    release = "2024-03-12 08:30"
    no_forecast = cpi(release) | {"forecast": np.nan}
    both = cpi(release, first_seen_at=new_york("2024-03-13 09:00"))
    assert_channel(channel(*history(), no_forecast, both), 0, 0, Z, 0, 0)


def test_a_postponed_release_does_not_surprise_at_its_first_date() -> None:
    """The old version holds the figure too, as a table filled in afterwards may."""
    moved = cpi("2024-03-14 08:30", first_seen_at=new_york("2024-03-11 12:00"))
    found = channel(*history(), cpi("2024-03-12 08:30"), moved)
    assert_channel(found, 0, 0, 0, Z, 0)


def test_seven_earlier_surprises_are_too_few() -> None:
    assert not channel(*history(values=EARLIER[:7]), cpi("2024-03-12 08:30")).any()


def test_the_scale_is_of_the_same_type_and_strictly_earlier() -> None:
    twin = cpi("2024-03-12 08:30") | {"event_id": "twin", "actual": 0.1}
    later = cpi("2024-03-14 08:30") | {"event_id": "later", "actual": 4.0}
    other = event("other", "nfp", new_york("2024-02-02 08:30"), actual=9e5, forecast=0.0)
    found = channel(*history(), cpi("2024-03-12 08:30"), twin, other, later)
    assert found[1] == pytest.approx(Z)
    assert found[3] == 5.0


@given(st.floats(-8, 8))
@settings(max_examples=25)
def test_the_unit_of_a_figure_does_not_matter(power: float) -> None:
    """Shares of one, percent and thousands of jobs: z is the same, down to hundred-millionths."""
    unit = 10**power
    scaled = history(values=tuple(unit * value for value in EARLIER))
    found = channel(*scaled, cpi("2024-03-12 08:30", actual=0.2 * unit))
    assert found[1] == pytest.approx(Z, rel=1e-5)


def test_a_history_constant_but_for_rounding_gives_no_scale() -> None:
    same = tuple(level + 0.1 - level for level in range(8))
    assert 0 < np.std(same) < 1e-12
    assert not channel(*history(values=same), cpi("2024-03-12 08:30")).any()


def test_the_largest_magnitude_wins_and_is_clipped() -> None:
    nfp = event("nfp", "nfp", new_york("2024-03-12 08:30"), actual=-9.0, forecast=0.0)
    found = channel(*history(), *history("nfp"), cpi("2024-03-12 08:30"), nfp)
    assert_channel(found, 0, -5, 0, 0, 0)


@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_magnitudes_the_positive_one_counts_in_any_order(order: int) -> None:
    twin = cpi("2024-03-12 08:30", actual=-0.2) | {"event_id": "twin"}
    found = channel(*history(), *[cpi("2024-03-12 08:30"), twin][::order])
    assert_channel(found, 0, Z, 0, 0, 0)


def test_another_currency_does_not_count() -> None:
    assert not channel(*history(), cpi("2024-03-12 08:30", currency="EUR")).any()


def test_text_times_are_read_like_timestamps() -> None:
    rows = calendar_of([*history(), cpi("2024-03-12 08:30")])
    text = rows.assign(release_at=rows["release_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), first_seen_at=None)
    days = pd.Series(session_days("us_equity", *WEEK))
    first, second = (
        encode_rows(prepare(c, empty_leaders()), days, "us_equity", symbol=None) for c in (rows, text)
    )
    np.testing.assert_array_equal(first, second)


def test_sigma_is_the_deviation_of_the_earlier_ones_however_many_there_are() -> None:
    """Ten times as many take ten times as long; while each summed all before it again, a hundred times."""
    rng = np.random.default_rng(0)
    values = 216.0 + rng.normal(0, 3, 20_000)
    values[15_000:] = 7.5
    times = np.datetime64("2000-01-01", "us") + np.arange(20_000).repeat(2)[:20_000] * np.timedelta64(1, "h")

    def seconds(rows: int) -> float:
        taken = []
        for _ in range(3):
            started = time.process_time()
            _sigma(times[:rows], values[:rows])
            taken.append(time.process_time() - started)
        return min(taken)

    assert seconds(20_000) < 40 * seconds(2_000)
    sigma = _sigma(times, values)
    for i in (0, 7, 8, 9, 10, 11, 999, 14_999, 19_999):
        earlier = values[: np.searchsorted(times, times[i])]
        assert sigma[i] == pytest.approx(earlier.std(ddof=1) if len(earlier) >= 8 else 0.0, rel=1e-12)
    assert (_sigma(times[:100], np.full(100, 0.1)) == 0).all()
