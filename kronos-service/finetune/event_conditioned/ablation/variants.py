"""The variants of an ablation: what each shows its model, which part it trains, what else differs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kronos_service.finetune.event_conditioned.ablation.config import variation
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.training.variants import ADAPTER, CONTROL, PLACEBO, Variant
from kronos_shared.lora_targets import ALL_LINEAR


@dataclass(frozen=True, kw_only=True)
class AblationVariant:
    """One training beside the others; all start from the same seed and see the same targets in the same
    order.
    """

    variant: Variant
    question: str
    """What the variant answers, in a few words."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the configured ones."""

    @property
    def name(self) -> str:
        """As shown in tables and given to `--variants`."""
        return self.variant.name

    def config(self, common: EventLoraConfig) -> EventLoraConfig:
        """The settings that this variant is trained with."""
        return common.replace(**self.changes)


def _variation(name: str, question: str, **changes: Any) -> AblationVariant:
    return AblationVariant(variant=Variant(name=name), question=question, changes=changes)


REFERENCE = AblationVariant(variant=ADAPTER, question="the adapter as configured")
ZEROED = AblationVariant(variant=CONTROL, question="all channels zeroed: what recent bars alone teach")

VARIANTS: Mapping[str, AblationVariant] = {
    variant.name: variant
    for variant in (
        REFERENCE,
        ZEROED,
        AblationVariant(variant=PLACEBO, question="channels of other dates: must not gain"),
        _variation("rank-8", "LoRA rank 8", rank=8),
        _variation("rank-4", "LoRA rank 4", rank=4),
        _variation("all-linear", "LoRA on all linear layers but the heads", target_modules=(ALL_LINEAR,)),
        _variation(
            "all-linear-rank-2",
            "the same with rank 2: on Kronos-base as many numbers as rank 8 on q_proj and v_proj",
            target_modules=(ALL_LINEAR,),
            rank=2,
        ),
        _variation("rslora", "LoRA scaled by alpha / sqrt(rank)", use_rslora=True),
        _variation("dora", "LoRA on directions, magnitudes apart", use_dora=True),
        _variation("taps-input", "events enter at the token embedding only", taps="input"),
        _variation("taps-output", "events enter at the last hidden state only", taps="output"),
        _variation("taps-both", "events enter at both ends", taps="both"),
        AblationVariant(
            variant=Variant(name="calendar-only", conditioning="calendar"),
            question="schedule, surprise and countdown, no leaders",
        ),
        AblationVariant(
            variant=Variant(name="leaders-only", conditioning="leaders"), question="leaders, no calendar"
        ),
        AblationVariant(
            variant=Variant(name="events-only", without="lora"), question="event embedding without LoRA"
        ),
        AblationVariant(
            variant=Variant(name="lora-only", without="event_emb"), question="LoRA without event embedding"
        ),
    )
}


def varied(assignment: str) -> AblationVariant:
    """The variant of `NAME=VALUE`: the adapter with one setting changed.

    Raises:
        ConfigError: as `variation` does.
    """
    name, value = variation(assignment)
    shown = ",".join(value) if isinstance(value, tuple) else value
    return _variation(f"{name}={shown}", f"{name} changed", **{name: value})


def chosen(names: Sequence[str], assignments: Sequence[str]) -> list[AblationVariant]:
    """Adapter and control first, then the variants asked for: all of them where nothing is."""
    wanted = names if names or assignments else tuple(VARIANTS)
    named = [VARIANTS[name] for name in wanted]
    variants = {one.name: one for one in (REFERENCE, ZEROED, *named, *map(varied, assignments))}
    return list(variants.values())
