"""The README.md of an adapter, from the figures that its run's report shows.

Its bytes count in the adapter's size, a figure of criteria.json: other words here change that figure.
"""

from collections.abc import Mapping
from typing import Any

from kronos_service.data.sample import is_synthetic
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.provenance import out_of_sample
from kronos_service.finetune.event_conditioned.report import tables
from kronos_shared.adapter_manifest import DataRecord
from kronos_shared.lora_targets import ALL_LINEAR


def model_card(config: EventLoraConfig, base: str, data: DataRecord, results: Mapping[str, Any]) -> str:
    """The card of a trained adapter; `results` is what results.json holds."""
    (train_first, train_last), (val_first, val_last) = data.splits["train"], data.splits["val"]
    return f"""---
library_name: peft
base_model: {base}
---
# Event-conditioned adapter for {base}

{_lora(config)}, plus an event embedding (taps:
{config.taps}), trained for {config.epochs} epochs on targets from {train_first} to {train_last} of snapshot
`{data.snapshot}` ({data.sha256[:12]}).{_synthetic(data)}

## Validation, {val_first} to {val_last}

Loss in nats per target:

{tables.losses(results["val"], "").markdown()}

{_gains(results)}

Loss on the bars of each event family:

{tables.family_losses(results["val_families"], "").markdown()}

## What it can be trusted with

- {_audit(data)}
- {out_of_sample(base, config.val_start)}
- The test split ({" to ".join(data.splits["test"])}) was not looked at in training or validation; who has
  looked at it since stands in `test_opened.jsonl`, in the run directory and beside the published versions.
- Scores of its forecasts are in the report of its run, and `evaluate` makes more. Not investment advice.
"""


def _lora(config: EventLoraConfig) -> str:
    """What LoRA adapts and how, in words."""
    lora, all_linear = config.lora(), config.target_modules == (ALL_LINEAR,)
    *others, last = lora.target_modules
    names = f"{', '.join(others)} and {last}" if others else last
    scaled = ", scaled by alpha / sqrt(rank)," if lora.use_rslora else ""
    kind = "DoRA" if lora.use_dora else "LoRA"
    where = "all linear layers but the heads" if all_linear else names
    return f"{kind} rank {lora.rank} (alpha {lora.alpha}){scaled} on {where}"


def _synthetic(data: DataRecord) -> str:
    if not is_synthetic(data.sha256, marked=data.synthetic):
        return ""
    which = "a sample market" if data.synthetic else "the embedded sample market"
    return f"\n\nSYNTHETIC: this is {which}; the adapter knows nothing of any real one."


def pooled_card(config: EventLoraConfig, base: str, data: DataRecord, evidence: Mapping[str, Any]) -> str:
    """The card of an adapter that was trained to its snapshot's end; `evidence` is what the folds showed."""
    first, last = data.splits["train"]
    seen = "".join(f"- {warning}\n" for warning in evidence["seen"])
    return f"""---
library_name: peft
base_model: {base}
---
# Event-conditioned adapter for {base}

{_lora(config)}, plus an event embedding (taps:
{config.taps}), trained for {config.epochs} epochs on targets from {first} to {last} of snapshot
`{data.snapshot}` ({data.sha256[:12]}).{_synthetic(data)}

## Walk-forward validation, {evidence["folds"][0]} to {evidence["folds"][-1]}

No target was kept back from this adapter. The figures are those of adapters trained in the same way, each
on the dates before its fold, over {len(evidence["seeds"])} seeds; gains are in nats per target:

{tables.pooled_gains(evidence["gains"], "day").markdown()}

## What it can be trusted with

- {_audit(data)}
{seen}- Not investment advice.
"""


def _gains(results: Mapping[str, Any]) -> str:
    if not results["gains"]:
        return "Conditioning gain over a control trained without events: unknown (no control was trained)."
    return f"Gain over a control trained without events:\n\n{tables.gains(results['gains']).markdown()}"


def _audit(data: DataRecord) -> str:
    if data.audit is None:
        return "Its data was not audited for look-ahead."
    return (
        f"Audit for look-ahead: {data.audit.verdict}, {data.audit.findings} findings in "
        f"{len(data.audit.checked)} checks."
    )
