"""What is pooled: every target once, seeds averaged first, and a detectable gain that keeps its promise."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import gain_of
from kronos_service.finetune.event_conditioned.folds.pooling import (
    find,
    mean_over_seeds,
    pool,
    pooled_gains,
    smallest_detectable,
)


def records(first: str, *, shift: float = 0.0, days: int = 60) -> pd.DataFrame:
    """Validation losses of base, control and adapter as a run writes them: the adapter gains 0.5 on payroll
    days, loses 0.1 on days of jobless claims, and 0.2 on days without events.
    """
    dates = pd.bdate_range(first, periods=days)
    rows = []
    for symbol in ("AAA", "BTCUSDT"):
        for number, day in enumerate(dates):
            families = dict.fromkeys(DEFAULT_TAXONOMY.families, False)
            families["nfp"], families["jobless_claims"] = number % 10 == 0, number % 10 == 5
            event = any(families.values())
            gain = 0.5 if families["nfp"] else -0.1 if event else -0.2
            for model, total in (("base", 4.0), ("control", 3.9), ("adapter", 3.9 - gain + shift)):
                rows.append(
                    {"symbol": symbol, "date": day, "is_event": event, "s1": 1.0, "s2": total - 1.0}
                    | {"total": total, **families, "model": model}
                )
    return pd.DataFrame(rows)


def pooled(*folds: pd.DataFrame) -> pd.DataFrame:
    return pool(
        {str(number): mean_over_seeds([one], DEFAULT_TAXONOMY) for number, one in enumerate(folds)},
        {"AAA": "us_equity", "BTCUSDT": "crypto"},
    )


def test_tier_one_event_and_other_days_are_told_apart() -> None:
    found = pooled_gains(pooled(records("2022-01-03"), records("2023-01-02")), DEFAULT_TAXONOMY)
    gains = {
        (one.by, one.group): one.gain for one in found if (one.model, one.over) == ("adapter", "control")
    }

    assert gains["day", "tier1"].nats == pytest.approx(0.5)
    assert gains["day", "event"].nats == pytest.approx(0.2)
    assert gains["day", "quiet"].nats == pytest.approx(-0.2)
    assert (gains["day", "tier1"].targets, gains["day", "tier1"].dates) == (24, 12)
    assert gains["family", "jobless_claims"].nats == pytest.approx(-0.1)
    assert gains["asset_class", "crypto"].targets == gains["year", "2022"].targets == 120
    assert gains["fold", "1, tier 1"].nats == pytest.approx(0.5)
    assert set(DEFAULT_TAXONOMY.tier1) == {"fomc_rate", "cpi", "nfp"}


def test_the_placebo_is_measured_over_the_control_where_it_was_trained() -> None:
    one = records("2022-01-03")
    placebo = one[one["model"] == "control"].assign(model="placebo", total=lambda t: t["total"] + 0.3)

    found = [asdict(gain) for gain in pooled_gains(pooled(pd.concat([one, placebo])), DEFAULT_TAXONOMY)]

    gain = find(found, "placebo", "control", "event")
    assert gain is not None
    assert gain["gain"]["nats"] == pytest.approx(-0.3)
    assert (
        find(
            [asdict(one) for one in pooled_gains(pooled(one), DEFAULT_TAXONOMY)],
            "placebo",
            "control",
            "event",
        )
        is None
    )


def test_seeds_are_averaged_target_by_target() -> None:
    both = mean_over_seeds(
        [records("2022-01-03", shift=0.3), records("2022-01-03", shift=-0.1)], DEFAULT_TAXONOMY
    )

    assert len(both) == 120
    payrolls = both[both["nfp"]]
    assert payrolls["adapter"].to_numpy() == pytest.approx(3.9 - 0.5 + 0.1)


def test_seeds_scored_on_different_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="different targets"):
        mean_over_seeds([records("2022-01-03"), records("2022-01-03", days=59)], DEFAULT_TAXONOMY)


def test_a_target_of_two_folds_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="AAA on 2022-03-25 is a target of two folds"):
        pooled(records("2022-01-03"), records("2022-03-25"))


def test_a_true_gain_of_the_detectable_size_is_found_in_four_of_five_samples() -> None:
    rng = np.random.default_rng(0)
    dates = pd.Series(np.repeat(pd.bdate_range("2022-01-03", periods=100), 3))

    def sample(true: float) -> tuple[float, float]:
        scatter = np.repeat(rng.normal(0, 0.13, 100), 3)
        gain = gain_of(pd.Series(4 + true + scatter), pd.Series(np.full(300, 4.0)), dates)
        return smallest_detectable(gain), gain.low

    detectable = float(np.mean([sample(0.0)[0] for _ in range(20)]))
    found = np.mean([sample(detectable)[1] > 0 for _ in range(200)])

    assert detectable == pytest.approx(2.8 * 0.13 / 10, rel=0.1)
    assert 0.74 < found < 0.88
