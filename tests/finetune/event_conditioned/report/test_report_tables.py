"""How numbers look, and that a table says the same on a terminal, in a report and in Markdown."""

from typing import Any

import pytest

from kronos_service.finetune.event_conditioned.report import figures, forecast_tables, tables, terminal

GAIN = {"nats": 0.0123, "low": 0.01, "high": 0.02, "percent": 1.0, "targets": 1234, "dates": 20}


def test_numbers_have_one_form_each() -> None:
    assert tables.number(2.0) == "2.0000"
    assert tables.count(12345) == "12,345"
    assert tables.percent(0.01234, 2) == "1.23"
    assert tables.interval(0.01, -0.02) == "[+0.0100, -0.0200]"
    assert [tables.number(None), tables.percent(None, 1), tables.interval(None, 1.0)] == ["-"] * 3


def test_a_gain_on_few_dates_has_no_interval() -> None:
    few = GAIN | {"dates": 4}
    assert tables.gains({"adapter_event": GAIN}).rows[0][3] == "[+0.0100, +0.0200]"
    assert tables.gains({"adapter_event": few}).rows[0][3] == "-"
    assert tables.family_gains({"cpi": few}, "").rows[0][2] == "-"


def test_markdown_has_the_keys_of_the_files() -> None:
    table = tables.Table(title="T", columns=("targets", "loss"), rows=[("quiet", "1.0")])
    assert table.markdown() == "| targets | loss |\n| --- | --- |\n| quiet | 1.0 |"


def test_the_terminal_shows_keys_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    judged = [
        {"name": verdict, "wanted": "quiet", "detail": "[+0.1, -0.2]", "verdict": verdict}
        for verdict in ("pass", "fail", "unknown")
    ]
    terminal.show(tables.criteria(judged))
    shown = capsys.readouterr().out
    for words in ("FAIL", "not measured", "non-event", "[+0.1, -0.2]"):
        assert words in shown


def variant(name: str, over_control: dict[str, Any] | None) -> dict[str, Any]:
    part = {"loss": 2.5, "over_control": over_control, "over_adapter": None, "by_seed": {"3": {"loss": 2.5}}}
    return {
        "name": name, "question": "?", "seeds": [3], "trainable": 1000, "seconds": 90.0,
        "event": part, "quiet": part,
    }  # fmt: skip


def test_an_ablation_has_a_row_per_variant_whatever_is_missing() -> None:
    found = {"arms": [variant("control", None), variant("rank-4", GAIN)]}
    table = tables.ablation(found, "quiet")
    assert table.title.startswith("Ablation, non-event targets (1,234 targets on 20 dates, nats per target")
    assert table.rows[0] == ("control", "2.5000", "-", "-", "3", "1,000", "1.5")
    assert table.rows[1][2] == "+0.0123 [+0.0100, +0.0200]"
    alone = tables.ablation({"arms": [variant("control", None)]}, "event")
    assert alone.title == "Ablation, event targets (nats per target, 95 % intervals over dates)"


def test_a_picture_of_an_ablation_names_its_variants_and_both_kinds_of_targets() -> None:
    found = {"arms": [variant("control", None), variant("rank-4", GAIN)]}
    over_control, over_adapter = figures.ablation(found)
    assert (over_control.title, over_adapter.title) == ("gain over the control", "gain over the adapter")
    for words in ("rank-4", "control", "rank-4, event: +0.0123 nats", "rank-4, non-event: +0.0123 nats"):
        assert words in over_control.svg
    assert figures.ablation_png(found).startswith(b"\x89PNG")


def next_bar(**gains: tuple[float, float | None, float | None]) -> dict[str, Any]:
    """A group per kind of day; gains are keyed `<day>__<return or range>`."""
    means = {"return": 0.0123, "range": 0.25}
    scores = {f"{what}_{name}": 0.5 for what in means for name in ("log_score", "qlike")}
    scores |= {f"{what}_crps": value for what, value in means.items()}
    size = {"targets": 30, "dates": 20}
    groups = []
    for day in forecast_tables.DAYS:
        found = {}
        for what in means:
            mean, low, high = gains.get(f"{day}__{what}", (0.0, -0.001, 0.001))
            found[f"{what}_crps"] = {"mean": mean, "low": low, "high": high, **size}
        models = dict.fromkeys(("har_events", "adapter"), scores)
        gain = {"adapter": {"har_events": found}}
        groups.append({"asset_class": "all", "group": day, **size, "models": models, "gain": gain})
    return {"groups": groups}


def test_the_verdict_says_on_which_days_har_events_is_beaten() -> None:
    found = next_bar(tier1__range=(0.02, 0.01, 0.03), quiet__return=(-0.001, -0.002, -0.0001))
    assert forecast_tables.yardstick_verdict({"next_bar": found}) == (
        "The adapter beats har_events: range on tier 1 days. It is worse: return on non-event days."
    )
    assert (
        forecast_tables.yardstick_verdict({"next_bar": next_bar()}) == "The adapter does not beat har_events."
    )


@pytest.mark.parametrize("fewer", [{"targets": 29}, {"dates": 19}, {"low": None, "high": None}])
def test_few_forecasts_decide_nothing(fewer: dict[str, Any]) -> None:
    found = next_bar(tier1__range=(0.02, 0.01, 0.03))
    found["groups"][0]["gain"]["adapter"]["har_events"]["range_crps"] |= fewer
    assert forecast_tables.yardstick_verdict({"next_bar": found}) == (
        "The adapter does not beat har_events. Too few forecasts to say: range on tier 1 days; "
        "make more with evaluate --origins."
    )
    assert forecast_tables.against_yardstick(found).rows[1][4] == "+2.000"
    assert forecast_tables.against_yardstick(found).rows[1][6] == "too few"


def test_what_was_not_compared_says_why() -> None:
    assert "before there were yardsticks" in forecast_tables.yardstick_verdict({})
    assert "no training bars" in forecast_tables.yardstick_verdict({"next_bar": {"groups": []}})


def test_the_scores_of_the_next_bar_have_a_row_per_kind_of_day_and_model() -> None:
    table = forecast_tables.next_bar_scores(next_bar())
    assert [row[:2] for row in table.rows[:2]] == [("tier1", "har_events"), ("tier1", "adapter")]
    assert table.rows[0][2:5] == ("1.230", "0.5000", "0.5000")
    assert len(table.rows) == 2 * len(forecast_tables.DAYS)


def test_families_on_the_same_targets_share_a_row_in_the_place_of_the_first() -> None:
    other = GAIN | {"nats": 0.5}
    merged = tables.merge_alike({"cpi": GAIN, "pce": other, "core_cpi": dict(GAIN), "fomc_rate": other})
    assert list(merged.items()) == [("cpi, core cpi", GAIN), ("pce, fomc rate", other)]


def test_rows_are_grouped_where_neighbours_share_a_name() -> None:
    def grouped(*names: str) -> bool:
        return tables.Table(title="", columns=("a",), rows=[(name,) for name in names]).grouped

    assert grouped("event", "event", "quiet")
    assert not grouped("event", "quiet", "event")
