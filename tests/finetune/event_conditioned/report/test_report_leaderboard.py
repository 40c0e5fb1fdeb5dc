"""One row per model, the best first and marked, and nobody the best on few dates."""

from typing import Any

from kronos_service.finetune.event_conditioned.report import leaderboard


def group(name: str, dates: int, asset_class: str = "all", **crps: float) -> dict[str, Any]:
    models = {model: {"return_crps": value, "range_crps": value} for model, value in crps.items()}
    return {"group": name, "asset_class": asset_class, "dates": dates, "targets": dates, "models": models}


FOUND = {
    "groups": [
        group("all", 40, base=0.012, adapter=0.010, har_events=0.011),
        group("tier1", 20, base=0.02, adapter=0.03, har_events=0.02),
        group("quiet", 19, base=0.008, adapter=0.007, har_events=0.009),
        group("quiet", 40, "crypto", base=0.1, adapter=0.2, har_events=0.3),
    ]
}


def test_a_board_has_one_row_per_model_the_best_first() -> None:
    table = leaderboard.next_bar(FOUND, "return")
    assert table.columns == (
        "model",
        "all days (40 dates)",
        "tier 1 days (20 dates)",
        "non-event days (19 dates)",
    )
    assert [row[0] for row in table.rows] == ["adapter", "har_events", "base"]
    assert table.rows[0][1:] == ("1.000", "3.000", "0.700")
    assert leaderboard.next_bar(FOUND, "range").rows[0][1] == "1.0"


def test_the_best_of_a_column_is_marked_and_nobody_on_fewer_than_20_dates() -> None:
    marks = leaderboard.next_bar(FOUND, "return").marks
    best = {place for place, mark in marks.items() if mark == "best"}
    assert best == {(0, 1), (1, 2), (2, 2)}, "two that are level are both the best"
    assert {place for place, mark in marks.items() if mark == "few"} == {(0, 3), (1, 3), (2, 3)}


def test_what_a_model_does_not_say_is_a_dash_and_comes_last() -> None:
    found = {"groups": [group("all", 40, base=0.012, adapter=0.010)]}
    found["groups"][0]["models"]["adapter"]["return_crps"] = None
    table = leaderboard.next_bar(found, "return")
    assert table.rows == [("base", "1.200"), ("adapter", "-")]
    assert table.marks == {(0, 1): "best"}


def test_losses_are_a_board_too_with_the_dates_of_both_kinds_of_days() -> None:
    def losses(event: float, quiet: float, every: float) -> dict[str, Any]:
        return {"event": {"total": event}, "quiet": {"total": quiet}, "all": {"total": every}}

    results = {
        "val": {"base": losses(7.0, 4.0, 5.0), "adapter": losses(6.0, 4.5, 4.9)},
        "val_dates": {"event": 12, "quiet": 97},
    }
    table = leaderboard.losses(results)
    assert table.columns[1:] == ("all days (109 dates)", "event days (12 dates)", "non-event days (97 dates)")
    assert table.rows[0] == ("adapter", "4.9000", "6.0000", "4.5000")
    assert table.marks == {(0, 1): "best", (0, 2): "few", (1, 2): "few", (1, 3): "best"}
