"""What results.json holds: losses on the validation split, and gains, per group of targets."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import (
    Gain,
    family_gains,
    gains_over_control,
    paired_gain,
)
from kronos_service.finetune.event_conditioned.training.validation import summarize, summarize_families


def all_gains(records: Mapping[str, pd.DataFrame], taxonomy: Taxonomy, seed: int) -> dict[str, Gain]:
    """Gains over the control; empty where none was trained, without `tier1` where no release of it fell."""
    gains = gains_over_control(records, seed)
    tier1 = {name: one[one[list(taxonomy.tier1)].any(axis=1)] for name, one in records.items()}
    if gains and len(tier1["control"]):
        gains |= {
            f"{name}_tier1": paired_gain(tier1["control"], one, on_event=True, seed=seed)
            for name, one in tier1.items()
            if name != "control"
        }
    return dict(sorted(gains.items(), key=lambda item: item[0].split("_")[0]))


def val_figures(
    records: dict[str, pd.DataFrame], gains: dict[str, Gain], taxonomy: Taxonomy, seed: int
) -> dict[str, Any]:
    """Validation means per model (over event days, non-event days, all targets, and per family), gains over
    the control, the adapter's gains per family over base and control, and on how many dates they rest.
    """
    on_event = records["base"]["is_event"]
    references = [name for name in ("base", "control") if name in records]
    return {
        "val": {name: summarize(one) for name, one in records.items()},
        "val_families": {name: summarize_families(one, taxonomy) for name, one in records.items()},
        "val_dates": {
            "event": int(records["base"]["date"][on_event].dt.normalize().nunique()),
            "quiet": int(records["base"]["date"][~on_event].dt.normalize().nunique()),
        },
        "gains": {name: asdict(one) for name, one in gains.items()},
        "family_gains": {
            name: {
                family: asdict(gain)
                for family, gain in family_gains(
                    records[name], records["adapter"], taxonomy, seed=seed
                ).items()
            }
            for name in references
        },
    }
