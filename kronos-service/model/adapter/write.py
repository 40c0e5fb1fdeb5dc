"""Write what a training run learned as an adapter directory; `kronos_shared.adapter_store` publishes it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from kronos_service.model.adapter.canary import make_canary
from kronos_service.model.adapter.read import (
    channels_record,
    kronos_of,
    merge,
    peft_config,
    source_record,
    tensor_records,
)
from kronos_service.model.factory import Bundle
from kronos_shared.adapter_manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    EVENT_WEIGHTS,
    FILES,
    MANIFEST,
    MODEL_CARD,
    AdapterManifest,
    DataRecord,
    EventEmbeddingRecord,
    LoraRecord,
    NormalizationRecord,
    RecalibrationRecord,
    file_record,
)
from kronos_shared.atomic import new_directory
from kronos_shared.lora_targets import names_of
from kronos_shared.normalization import CLIP, EPSILON, MIN_HISTORY


def save_adapter(
    model: PeftModel,
    bundle: Bundle,
    directory: Path,
    *,
    context: int,
    data: DataRecord,
    metrics: Mapping[str, Any],
    gain: dict[str, Any] | Literal["unknown"],
    card: str,
    recalibration: RecalibrationRecord | None = None,
) -> AdapterManifest:
    """Write a trained model's LoRA and event embedding, with manifest and card, as a new directory (whole
    or not at all).
    """
    event_emb = kronos_of(model).event_emb
    lora = model.peft_config["default"]
    assert event_emb is not None
    assert isinstance(lora, LoraConfig)
    record = LoraRecord(
        rank=lora.r,
        alpha=lora.lora_alpha,
        dropout=lora.lora_dropout,
        target_modules=names_of(model.targeted_module_names),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
    )
    weights: dict[str, dict[str, Tensor]] = {
        ADAPTER_WEIGHTS: _on_cpu(get_peft_model_state_dict(model)),
        EVENT_WEIGHTS: _on_cpu(event_emb.state_dict()),
    }
    with new_directory(directory) as scratch:
        for name, tensors in weights.items():
            save_file(tensors, scratch / name, metadata={"format": "pt"})
        (scratch / ADAPTER_CONFIG).write_text(
            json.dumps(peft_config(record), indent=2, sort_keys=True) + "\n"
        )
        (scratch / MODEL_CARD).write_text(card, encoding="utf-8")
        manifest = AdapterManifest(
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            files={name: file_record((scratch / name).read_bytes()) for name in FILES},
            tensors={name: tensor_records(tensors) for name, tensors in weights.items()},
            base=source_record(bundle.base),
            tokenizer=source_record(bundle.tokenizer_print),
            channels=channels_record(bundle.taxonomy),
            lora=record,
            event_embedding=EventEmbeddingRecord(taps=event_emb.taps, width=event_emb.fc_in.out_features),
            normalization=NormalizationRecord(
                clip=CLIP, epsilon=EPSILON, relative=True, min_history=MIN_HISTORY, context=context
            ),
            data=data,
            metrics=dict(metrics),
            conditioning_gain=gain,
            canary=make_canary(merge(model)),
            recalibration=recalibration,
        )
        (scratch / MANIFEST).write_bytes(manifest.to_bytes())
    return manifest


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
