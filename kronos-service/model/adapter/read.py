"""Find and read an adapter, reject it with every reason at once, or load it onto a base: the one way in for
evaluation, the forecast command and the service.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from kronos_service.events.sessions import Interval
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, TaxonomyError, taxonomy_of
from kronos_service.model.adapter.canary import check_canary
from kronos_service.model.adapter.files import AdapterError, AdapterFiles, header_problems, read_files
from kronos_service.model.adapter.hub import hub_directory
from kronos_service.model.base_files import Fingerprint
from kronos_service.model.factory import Bundle
from kronos_service.model.kronos import Kronos
from kronos_service.model.packaged import adapter_path
from kronos_shared import strict_json
from kronos_shared.adapter_location import HubName, adapter_location
from kronos_shared.adapter_manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    EVENT_WEIGHTS,
    MANIFEST,
    AdapterManifest,
    ChannelsRecord,
    LoraRecord,
    SourceRecord,
    TensorRecord,
)
from kronos_shared.adapter_store import latest_version
from kronos_shared.lora_targets import target_pattern

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A checked adapter, not yet attached to anything."""

    directory: Path
    manifest: AdapterManifest
    digest: str
    """sha256 of the manifest."""
    lora: dict[str, Tensor]
    event_emb: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class LoadedAdapter:
    """An adapter on its base, proven by its canary."""

    adapter: Adapter
    attached: PeftModel
    """LoRA beside the frozen weights, as in training."""
    merged: Kronos
    """LoRA merged into copies of the weights that it touches: what serves."""
    context: int
    """Bars of history and forecast together that the model reads at most."""


class NoAdapterError(AdapterError):
    """A path that is neither an adapter nor a store with a LATEST."""


def find_adapter(place: Path | str) -> Path:
    """The adapter directory that a user means: a directory itself, the latest version of a store in a
    directory or a bucket, or `hub:owner/name@commit`; `sample` names the adapter that ships with the package.

    Raises:
        NoAdapterError: there is none, or it is named otherwise.
        StoreError, BaseModelError: it cannot be fetched.
    """
    try:
        found = adapter_location(adapter_path(place))
    except ValueError as error:
        raise NoAdapterError(str(error)) from None
    if isinstance(found, HubName):
        return hub_directory(found)
    is_adapter = isinstance(found, Path) and (found / MANIFEST).exists()
    directory = found if is_adapter else latest_version(found)
    if directory is None:
        raise NoAdapterError(
            f"{found} holds no adapter: expected a {MANIFEST} or a LATEST.json; train one with event-lora"
        )
    return Path(directory)


def load_adapter(adapter: Adapter, bundle: Bundle) -> LoadedAdapter:
    """Attach an adapter to its base, merge a copy, and compare that with the logits that its trainer saw.

    Raises:
        AdapterError: it was made for something else, does not fit, or computes something else.
    """
    attached = attach(adapter, bundle)
    merged = merge(attached)
    check_canary(merged, adapter.manifest.canary)
    context = min(bundle.context, adapter.manifest.normalization.context)
    return LoadedAdapter(adapter=adapter, attached=attached, merged=merged, context=context)


def read_adapter(directory: Path, *, digest: str | None = None) -> Adapter:
    """Read each file once, check the bytes that were read against the manifest, and parse them.

    Raises:
        AdapterNotWholeError: a file missing, extra, or of another size or hash than the manifest says.
        AdapterError: not a valid manifest, not safetensors, other tensors than the manifest lists, or values
        that are not finite.
    """
    return parse_adapter(read_files(directory, digest=digest))


def parse_adapter(files: AdapterFiles) -> Adapter:
    """The adapter that these files hold.

    Raises:
        AdapterError: not safetensors, other tensors than the manifest lists, or values that are not finite.
    """
    problems: list[str] = []
    tensors = {name: _parse(files, name, problems) for name in (ADAPTER_WEIGHTS, EVENT_WEIGHTS)}
    problems += _config_problems(files.content[ADAPTER_CONFIG], files.manifest)
    if problems:
        raise AdapterError(f"{files.directory}: {'; '.join(problems)}")
    return Adapter(
        directory=files.directory,
        manifest=files.manifest,
        digest=files.digest,
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
    # a memo that maps each frozen tensor to itself: the copy has its own modules and none of their memory
    model = copy.deepcopy(base, {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())})
    record = manifest.event_embedding
    event_emb = model.attach_event_embedding(
        record.taps, record.width, n_channels=len(bundle.taxonomy.channels)
    )
    wrapped = get_peft_model(model, lora_config(manifest.lora))
    wanted = get_peft_model_state_dict(wrapped)
    problems = _mismatches(adapter.lora, wanted) + _mismatches(adapter.event_emb, event_emb.state_dict())
    if problems:
        raise AdapterError(f"{adapter.directory}: {'; '.join(problems)}")
    set_peft_model_state_dict(wrapped, adapter.lora)
    event_emb.load_state_dict(adapter.event_emb)
    return wrapped.to(next(base.parameters()).device).requires_grad_(False).eval()


def lora_config(lora: LoraRecord) -> LoraConfig:
    """peft's settings of an adapter: the trainer wraps the base by the same ones."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_pattern(lora.target_modules),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        bias="none",
    )


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
    """Whether a parameter is LoRA's, or of a layer that LoRA wraps, whichever layers these are."""
    return ".lora_" in name or ".base_layer." in name


def compatibility_problems(manifest: AdapterManifest, bundle: Bundle) -> list[str]:
    """Every way in which an adapter was made for something other than this bundle."""
    channels, made_for = channels_record(bundle.taxonomy), manifest.channels
    problems = []
    if manifest.base.content_sha256 != bundle.base.content_sha256:
        problems.append(f"made for base {_named(manifest.base)}, not {_named(source_record(bundle.base))}")
    if manifest.tokenizer.content_sha256 != bundle.tokenizer_print.content_sha256:
        problems.append(
            f"made for tokenizer {_named(manifest.tokenizer)}, "
            f"not {_named(source_record(bundle.tokenizer_print))}"
        )
    if (made_for.version, made_for.sha256) != (channels.version, channels.sha256):
        problems.append(
            f"made for event channels version {made_for.version} ({made_for.sha256[:12]}), "
            f"not version {channels.version} ({channels.sha256[:12]}), the taxonomy in use here"
        )
    return problems


def require_interval(manifest: AdapterManifest, interval: Interval, what: str) -> None:
    """Refuse an adapter for bars of another length than those that it is to forecast.

    Args:
        what: whose bars these are, for the message.

    Raises:
        AdapterError: both lengths are named.
    """
    made_for = manifest.data.interval
    if made_for != interval:
        raise AdapterError(
            f"the adapter was trained on {made_for} bars, and {what} has {interval} ones: take an adapter of "
            f"{interval} bars, or data of {made_for} ones"
        )


def source_record(fingerprint: Fingerprint) -> SourceRecord:
    """A fingerprint as the manifest spells it."""
    return SourceRecord(
        repo=fingerprint.repo, revision=fingerprint.revision, content_sha256=fingerprint.content_sha256
    )


def channels_record(taxonomy: Taxonomy) -> ChannelsRecord:
    """A taxonomy as the manifest spells it."""
    content = None if taxonomy.is_default else taxonomy.content()
    return ChannelsRecord(version=taxonomy.version, sha256=taxonomy.sha256, taxonomy=content)


def taxonomy_named_by(manifest: AdapterManifest) -> Taxonomy:
    """The taxonomy that an adapter carries; the default one where it carries none.

    Raises:
        AdapterError: it cannot be read, or is another than its hash says.
    """
    record = manifest.channels
    if record.taxonomy is None:
        return DEFAULT_TAXONOMY
    try:
        taxonomy = taxonomy_of(record.taxonomy, "the adapter's taxonomy")
    except TaxonomyError as error:
        raise AdapterError(str(error)) from None
    if taxonomy.sha256 != record.sha256:
        raise AdapterError(
            f"the adapter's taxonomy has the hash {taxonomy.sha256[:12]}, its manifest says "
            f"{record.sha256[:12]}: publish it again"
        )
    return taxonomy


def tensor_records(tensors: dict[str, Tensor]) -> dict[str, TensorRecord]:
    """Shape and dtype of each tensor."""
    return {
        name: TensorRecord(shape=tuple(tensor.shape), dtype=_DTYPES.get(tensor.dtype, str(tensor.dtype)))
        for name, tensor in tensors.items()
    }


def _parse(files: AdapterFiles, name: str, problems: list[str]) -> dict[str, Tensor]:
    content = files.content[name]
    wrong = header_problems(content, files.manifest.tensors.get(name, {}))
    problems += [f"{name}: {one}" for one in wrong]
    if wrong:
        return {}
    try:
        tensors: dict[str, Tensor] = load_tensors(content)
    except (SafetensorError, ValueError, RuntimeError) as error:
        problems.append(f"{name} is not a safetensors file: {error}")
        return {}
    problems += [
        f"{name}: {key} is not finite" for key, tensor in tensors.items() if not tensor.isfinite().all()
    ]
    return tensors


def peft_config(lora: LoraRecord) -> dict[str, Any]:
    """adapter_config.json, for other users of peft: it holds exactly these settings, so it cannot ask for
    anything that the manifest does not say.
    """
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "r": lora.rank,
        "target_modules": target_pattern(lora.target_modules),
        **{name: True for name in ("use_rslora", "use_dora") if getattr(lora, name)},
    }


def _config_problems(content: bytes, manifest: AdapterManifest) -> list[str]:
    try:
        config = strict_json.parse(content)
    except ValueError as error:
        return [f"{ADAPTER_CONFIG} is not JSON: {error}"]
    if not isinstance(config, dict):
        return [f"{ADAPTER_CONFIG} is not a JSON object"]
    expected = peft_config(manifest.lora)
    problems = [
        f"{ADAPTER_CONFIG}: {key[:80]} is not a setting of ours" for key in sorted(config.keys() - expected)
    ]
    return problems + [
        f"{ADAPTER_CONFIG}: {key} must be {value!r}, got {repr(config.get(key))[:80]}"
        for key, value in expected.items()
        if key not in config or config[key] != value or type(config[key]) is not type(value)
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
