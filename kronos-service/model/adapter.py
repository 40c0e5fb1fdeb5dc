"""Read an adapter directory, refuse it with every reason at once, or attach it to a base."""

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from kronos_service.events.taxonomy import CHANNEL_VERSION, CHANNELS, channel_hash
from kronos_service.model.event_embedding import EventEmbedding
from kronos_service.model.factory import Bundle, Fingerprint
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    EVENT_WEIGHTS,
    FILES,
    MANIFEST,
    AdapterManifest,
    ChannelsRecord,
    SourceRecord,
    TensorRecord,
)
from kronos_shared.errors import KronosError

LORA_TARGETS = r"transformer\.\d+\.self_attn\.(q_proj|v_proj)"
"""The attention projections that LoRA adapts, as peft's full-match pattern."""

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class AdapterError(KronosError):
    """An adapter directory that must not be used; the message gives every reason."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A checked adapter, not yet attached to anything."""

    directory: Path
    manifest: AdapterManifest
    lora: dict[str, Tensor]
    event_emb: dict[str, Tensor]


def read_adapter(directory: Path) -> Adapter:
    """Read each file once, check the bytes that were read against the manifest, and parse them.

    Raises:
        AdapterError: a file missing, extra, of another size or hash, not safetensors, or with other
        tensors than the manifest says.
    """
    try:
        manifest = AdapterManifest.model_validate_json((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise AdapterError(f"{directory} is not an adapter: it has no {MANIFEST}") from None
    except ValidationError as error:
        raise AdapterError(f"{directory / MANIFEST} is not a valid manifest: {_first_line(error)}") from None
    if set(manifest.files) != set(FILES):
        raise AdapterError(
            f"{directory}: the manifest must list {sorted(FILES)}, got {sorted(manifest.files)}"
        )
    problems: list[str] = []
    content = {name: _read(directory, name, manifest, problems) for name in FILES}
    if problems:
        raise AdapterError(f"{directory}: {'; '.join(problems)}")
    tensors = {
        name: _parse(content[name], name, manifest, problems) for name in (ADAPTER_WEIGHTS, EVENT_WEIGHTS)
    }
    problems += _config_problems(content[ADAPTER_CONFIG], manifest)
    if problems:
        raise AdapterError(f"{directory}: {'; '.join(problems)}")
    return Adapter(
        directory=directory,
        manifest=manifest,
        lora=tensors[ADAPTER_WEIGHTS],
        event_emb=tensors[EVENT_WEIGHTS],
    )


def attach(adapter: Adapter, bundle: Bundle) -> PeftModel:
    """The bundle's model with the adapter's LoRA and event embedding, in eval mode; frozen tensors are
    shared.

    Raises:
        AdapterError: the adapter was made for another base, tokenizer or channel list, or its tensors do
        not fit the model.
    """
    manifest = adapter.manifest
    problems = compatibility_problems(manifest, bundle)
    if problems:
        raise AdapterError(f"{adapter.directory}: {'; '.join(problems)}")
    base = bundle.model
    model = copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})
    event_emb = EventEmbedding(
        base.config["d_model"],
        taps=manifest.event_embedding.taps,
        n_channels=len(CHANNELS),
        width=manifest.event_embedding.width,
    )
    settings = LoraConfig(
        r=manifest.lora.rank,
        lora_alpha=manifest.lora.alpha,
        lora_dropout=manifest.lora.dropout,
        target_modules=LORA_TARGETS,
        bias="none",
    )
    wrapped = get_peft_model(model, settings)
    expected = {name: tensor for name, tensor in wrapped.state_dict().items() if ".lora_" in name}
    wanted = {name.replace(".default.", "."): tensor for name, tensor in expected.items()}
    problems = _mismatches(adapter.lora, wanted) + _mismatches(adapter.event_emb, event_emb.state_dict())
    if problems:
        raise AdapterError(f"{adapter.directory}: {'; '.join(problems)}")
    set_peft_model_state_dict(wrapped, adapter.lora)
    event_emb.load_state_dict(adapter.event_emb)
    model.event_emb = event_emb
    return wrapped.to(next(base.parameters()).device).requires_grad_(False).eval()


def kronos_of(model: PeftModel) -> Kronos:
    """The Kronos inside a peft wrapper, its LoRA layers in place."""
    inside = model.base_model.model
    assert isinstance(inside, Kronos)
    return inside


def merge(model: PeftModel) -> Kronos:
    """A plain Kronos with LoRA merged into copies of the touched weights; the model it came from keeps
    its own.
    """
    frozen = {id(p): p for name, p in model.named_parameters() if not _touched(name)}
    merged = copy.deepcopy(model, frozen).merge_and_unload()
    assert isinstance(merged, Kronos)
    return merged.eval()


def _touched(name: str) -> bool:
    return ".lora_" in name or ".q_proj.base_layer." in name or ".v_proj.base_layer." in name


def compatibility_problems(manifest: AdapterManifest, bundle: Bundle) -> list[str]:
    """Every way in which an adapter was made for something other than this bundle."""
    channels = channels_record()
    problems = []
    if manifest.base.content_sha256 != bundle.base.content_sha256:
        problems.append(f"made for base {_named(manifest.base)}, not {_named(source_record(bundle.base))}")
    if manifest.tokenizer.content_sha256 != bundle.tokenizer_print.content_sha256:
        problems.append(
            f"made for tokenizer {_named(manifest.tokenizer)}, "
            f"not {_named(source_record(bundle.tokenizer_print))}"
        )
    if manifest.channels != channels:
        problems.append(
            f"made for event channels version {manifest.channels.version} "
            f"({manifest.channels.sha256[:12]}), this code has version {channels.version} "
            f"({channels.sha256[:12]})"
        )
    return problems


def source_record(fingerprint: Fingerprint) -> SourceRecord:
    """A fingerprint as the manifest spells it."""
    return SourceRecord(
        repo=fingerprint.repo, revision=fingerprint.revision, content_sha256=fingerprint.content_sha256
    )


def channels_record() -> ChannelsRecord:
    """The channel list of this code."""
    return ChannelsRecord(version=CHANNEL_VERSION, sha256=channel_hash())


def tensor_records(tensors: dict[str, Tensor]) -> dict[str, TensorRecord]:
    """Shape and dtype of each tensor."""
    return {
        name: TensorRecord(shape=tuple(tensor.shape), dtype=_DTYPES.get(tensor.dtype, str(tensor.dtype)))
        for name, tensor in tensors.items()
    }


def _read(directory: Path, name: str, manifest: AdapterManifest, problems: list[str]) -> bytes:
    record = manifest.files[name]
    try:
        content = (directory / name).read_bytes()
    except FileNotFoundError:
        problems.append(f"{name} is missing")
        return b""
    if len(content) != record.size or hashlib.sha256(content).hexdigest() != record.sha256:
        problems.append(f"{name} is not the file the manifest describes (size or sha256 differs)")
    return content


def _parse(content: bytes, name: str, manifest: AdapterManifest, problems: list[str]) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_tensors(content)
    except SafetensorError as error:
        problems.append(f"{name} is not a safetensors file: {error}")
        return {}
    if tensor_records(tensors) != manifest.tensors.get(name):
        problems.append(f"{name} holds other tensors than the manifest lists")
    problems += [
        f"{name}: {key} is not finite" for key, tensor in tensors.items() if not tensor.isfinite().all()
    ]
    return tensors


def _config_problems(content: bytes, manifest: AdapterManifest) -> list[str]:
    """adapter_config.json is for other peft users; it must agree with what the manifest makes us build."""
    expected: dict[str, Any] = {
        "peft_type": "LORA",
        "r": manifest.lora.rank,
        "lora_alpha": manifest.lora.alpha,
        "target_modules": LORA_TARGETS,
        "bias": "none",
    }
    try:
        config = json.loads(content)
    except ValueError as error:
        return [f"{ADAPTER_CONFIG} is not JSON: {error}"]
    return [
        f"{ADAPTER_CONFIG}: {key} must be {value!r}, got {config.get(key)!r}"
        for key, value in expected.items()
        if config.get(key) != value
    ]


def _mismatches(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    problems = [f"missing tensor {name}" for name in sorted(wanted.keys() - got.keys())]
    problems += [f"unexpected tensor {name}" for name in sorted(got.keys() - wanted.keys())]
    return problems + [
        f"{name} has shape {tuple(got[name].shape)} and dtype {got[name].dtype}, "
        f"expected {tuple(wanted[name].shape)} and {wanted[name].dtype}"
        for name in sorted(wanted.keys() & got.keys())
        if got[name].shape != wanted[name].shape or got[name].dtype != wanted[name].dtype
    ]


def _named(source: SourceRecord) -> str:
    revision = f"@{source.revision[:12]}" if source.revision else ""
    return f"{source.repo}{revision} ({source.content_sha256[:12]})"


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
