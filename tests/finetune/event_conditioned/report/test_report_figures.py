"""What figures say of themselves: on hover, and where they leave their page."""

import re
from typing import Any

from kronos_service.finetune.event_conditioned.report.figures import event_day, forest_figure, gains
from kronos_service.finetune.event_conditioned.report.walk_forward import forest, warnings

GAIN = {"nats": 0.01, "low": 0.0, "high": 0.02, "dates": 64}
GAINS = {"tier 1": GAIN}
SEEN = "NOT out of sample: base NeoQuasar/Kronos-base was pretrained on data of these dates (all of them)"


def test_a_base_that_has_seen_a_fold_is_named_in_the_picture_itself() -> None:
    found = {"seen": {"2022-01-01": SEEN, "2023-01-01": SEEN, "2024-07-01": None}}
    (panel,) = forest_figure(GAINS, warnings(found)).axes
    assert panel.get_title("left").replace("\n", " ") == SEEN
    (unwarned,) = forest_figure(GAINS, warnings({"seen": {"2024-07-01": None}})).axes
    assert unwarned.get_title("left") == ""


def test_a_forest_merges_families_of_the_same_targets_and_no_other_groups() -> None:
    def row(by: str, group: str, model: str = "adapter") -> dict[str, Any]:
        return {"model": model, "over": "control", "by": by, "group": group, "gain": GAIN}

    rows = [
        row("family", "cpi"),
        row("family", "core_cpi"),
        row("day", "quiet"),
        row("day", "tier1"),
        row("year", "2024, quiet"),
    ]
    lines = forest({"gains": [*rows, row("day", "all", "placebo"), row("fold", "2024-01-01, all")]})
    assert list(lines) == ["non-event", "tier 1", "2024, quiet", "cpi, core cpi"]


def test_a_row_of_a_forest_says_its_figures_on_hover() -> None:
    few = GAIN | {"dates": 4, "targets": 40}
    (drawing,) = gains({"cpi": GAIN | {"targets": 512}, "pce": few}, "control")
    assert re.findall(r"<title>(.*?)</title>", drawing.svg) == [
        "cpi: +0.0100 nats [+0.0000, +0.0200], 512 targets on 64 dates",
        "pce: +0.0100 nats -, 40 targets on 4 dates",
    ]


def test_a_fan_says_on_each_bar_what_was_forecast_and_what_came() -> None:
    names = ("q05", "q10", "q25", "q50", "q75", "q90", "q95")
    model = {name: [float(level), float(level) + 1] for level, name in enumerate(names, start=-3)}
    day = {
        **{"symbol": "SPY", "past_dates": ["2025-03-10", "2025-03-11"], "past": [-1.0, 0.0]},
        **{"dates": ["2025-03-12", "2025-03-13"], "events": [["cpi", "core_cpi"], []], "came": [2.5, -1.0]},
        "models": {"base": model, "adapter": model},
    }
    base, adapter = event_day(day)
    assert (base.title, adapter.title) == ("base", "adapter")
    assert re.findall(r"<title>(.*?)</title>", adapter.svg) == [
        "2025-03-12 (cpi, core cpi): median +0.0 %, 90 % of paths -3.0 to +3.0 %, came +2.5 %",
        "2025-03-13: median +1.0 %, 90 % of paths -2.0 to +4.0 %, came -1.0 %",
    ]
