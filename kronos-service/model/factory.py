"""Builds what training and serving start from: a frozen base, its tokenizer, and fingerprints of both.

A base is a preset's name, a hub repository at a revision, or a directory as `save_base` writes it:

    base.json                             {"context": bars, "preset": name, ...}
    tokenizer/, predictor/                each config.json and model.safetensors
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save

from kronos_service.events.encoder import EventEncoder
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy
from kronos_service.model.base_files import (
    BaseModelError,
    Files,
    Fingerprint,
    build,
    hub_files,
    read_json,
    require_commit,
)
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import BASES, PRESETS, Preset
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.adapter_manifest import AdapterManifest
from kronos_shared.atomic import replace_file
from kronos_shared.cli import did_you_mean

PACKAGED: Final = "kronos-nano"
NANO_DIRECTORY: Final = Path(__file__).with_name("kronos_nano")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A frozen base, in `eval()` and without gradients, with everything needed to feed it."""

    tokenizer: KronosTokenizer
    model: Kronos
    context: int
    """Longest sequence in bars."""
    event_encoder: EventEncoder
    base: Fingerprint
    tokenizer_print: Fingerprint
    pretrained_until: date | None = None
    """The base has seen no bar from this date on; None where its base.json does not say."""

    @property
    def taxonomy(self) -> Taxonomy:
        """What the channels of its adapters mean."""
        return self.event_encoder.taxonomy


@dataclass(frozen=True, kw_only=True)
class BaseChoice:
    """Which base to load: see `load_bundle`."""

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    tokenizer_revision: str | None = None

    def load(self, device: str, taxonomy: Taxonomy = DEFAULT_TAXONOMY) -> Bundle:
        """The bundle on a device, for adapters of a taxonomy; raises as `load_bundle`."""
        require_device(device)
        parts = _find(self)
        tokenizer, model = build(KronosTokenizer, parts.tokenizer), build(Kronos, parts.predictor)
        ours, theirs = (tokenizer.s1_bits, tokenizer.s2_bits), (model.s1_bits, model.s2_bits)
        if ours != theirs:
            raise BaseModelError(
                f"tokenizer {parts.tokenizer.repo} makes tokens of {ours} bits, but predictor "
                f"{parts.predictor.repo} reads {theirs}; name the tokenizer it was trained with"
            )
        return Bundle(
            tokenizer=tokenizer.to(device),
            model=model.to(device),
            context=_context(parts, model.config),
            event_encoder=EventEncoder(taxonomy),
            base=parts.predictor.fingerprint(),
            tokenizer_print=parts.tokenizer.fingerprint(),
            pretrained_until=parts.pretrained_until,
        )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    tokenizer: Files
    predictor: Files
    context: int | None
    pretrained_until: date | None = None


def load_bundle(
    base: str,
    *,
    tokenizer: str | None = None,
    revision: str | None = None,
    tokenizer_revision: str | None = None,
    device: str = "cpu",
    taxonomy: Taxonomy = DEFAULT_TAXONOMY,
) -> Bundle:
    """Load a base.

    Args:
        base: nano, mini, small or base; a directory; or a hub id "owner/name".
        tokenizer: a directory or hub id instead of the base's own; a hub id that is no preset needs one.
        revision, tokenizer_revision: commits on the hub; required where the presets pin none.
        taxonomy: what the event encoder's channels mean.

    Raises:
        BaseModelError: nothing of that name, no network, weights that do not fit (all misfits at once), or no
            such device.
    """
    choice = BaseChoice(
        model=base, tokenizer=tokenizer, revision=revision, tokenizer_revision=tokenizer_revision
    )
    return choice.load(device, taxonomy)


def require_device(device: str) -> None:
    """Check that a model can be moved there; raises `BaseModelError`."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # which of them depends on how torch was built
        reason = str(error).partition("\n")[0]
        raise BaseModelError(
            f"cannot compute on device {device} ({reason}): name cpu, or see what "
            "`python -m kronos_service.finetune doctor --device cuda` finds"
        ) from None


def hub_repositories(choice: BaseChoice) -> dict[str, str]:
    """Repository -> commit of what `BaseChoice.load` reads from the hub, or from its local cache.

    Empty, too, for a name that loading raises at.

    Raises:
        BaseModelError: a revision that is missing, or is no commit.
    """
    preset = None if _directory(choice) else _preset(choice)
    found: dict[str, str | None] = {}
    if preset is not None:
        found[str(preset.hub_id)] = choice.revision or preset.hub_revision
        if not choice.tokenizer:
            found[str(preset.tokenizer_hub_id)] = choice.tokenizer_revision or preset.tokenizer_revision
    elif not _directory(choice):
        if choice.model.count("/") != 1 or not choice.tokenizer:
            return {}
        found[choice.model] = choice.revision
    if choice.tokenizer and not Path(choice.tokenizer).is_dir():
        known = _preset_of_tokenizer(choice.tokenizer)
        found[choice.tokenizer] = choice.tokenizer_revision or (known.tokenizer_revision if known else None)
    return {repo: require_commit(repo, revision) for repo, revision in found.items()}


def base_named_by(manifest: AdapterManifest) -> BaseChoice:
    """The base that an adapter's manifest names: the packaged one, or a released one at its revision.

    A directory is never followed: a manifest holds its name without a path, and may come from anywhere.

    Raises:
        BaseModelError: it names another.
    """
    base, tokenizer = manifest.base, manifest.tokenizer
    if base.repo == tokenizer.repo == PACKAGED:
        return BaseChoice(model=PACKAGED)
    released = {preset.hub_id for preset in PRESETS.values() if preset.hub_id}
    tokenizers = {preset.tokenizer_hub_id for preset in PRESETS.values() if preset.tokenizer_hub_id}
    if base.repo not in released or tokenizer.repo not in tokenizers:
        named = [f"{one.repo[:80]!r} ({one.content_sha256[:12]})" for one in (base, tokenizer)]
        raise BaseModelError(
            f"the adapter was made for base {named[0]} with tokenizer {named[1]}, which cannot be found by "
            "name; configure the base: give its directory as the base model"
        )
    return BaseChoice(
        model=base.repo,
        tokenizer=tokenizer.repo,
        revision=base.revision,
        tokenizer_revision=tokenizer.revision,
    )


def save_base(
    directory: str | Path,
    tokenizer: KronosTokenizer,
    model: Kronos,
    context: int,
    preset: str,
    extra: Mapping[str, Any],
) -> None:
    """Write a base that `load_bundle` reads; `extra` (how it was made) joins base.json, written last."""
    if model.event_emb is not None:
        raise ValueError("a base is saved without an event embedding: that belongs to an adapter")
    root = Path(directory)
    marker = root / "base.json"
    marker.unlink(missing_ok=True)
    parts: dict[str, KronosTokenizer | Kronos] = {"tokenizer": tokenizer, "predictor": model}
    for name, part in parts.items():
        state = {key: value.detach().cpu().contiguous() for key, value in part.state_dict().items()}
        replace_file(root / name / "config.json", _json(part.config))
        replace_file(root / name / "model.safetensors", save(state, metadata={"format": "pt"}))
    # base.json last: a directory without it is no base, so a killed writer leaves nothing that loads
    replace_file(marker, _json({"context": context, "preset": preset, **extra}))


def _json(content: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(content, indent=1, sort_keys=True)}\n".encode()


def _find(choice: BaseChoice) -> _Parts:
    directory = _directory(choice)
    if directory:
        return _in_directory(directory, PACKAGED if directory == NANO_DIRECTORY else directory.name, choice)
    base, preset = choice.model, _preset(choice)
    if preset is None and base.count("/") != 1:
        near = did_you_mean(base.removeprefix("kronos-"), PRESETS)
        raise BaseModelError(f"expected {BASES}; got {base!r}{near}")
    return _on_hub(choice, preset)


def _directory(choice: BaseChoice) -> Path | None:
    """Where the base is on this machine; None for one of the hub."""
    if choice.model.removeprefix("kronos-") == "nano":
        return NANO_DIRECTORY
    if choice.model not in PRESETS and Path(choice.model).is_dir():
        return Path(choice.model).resolve()
    return None


def _preset(choice: BaseChoice) -> Preset | None:
    """The released model that a short name or a hub id names."""
    by_id = next((preset for preset in PRESETS.values() if preset.hub_id == choice.model), None)
    return PRESETS.get(choice.model.removeprefix("kronos-")) or by_id


def _preset_of_tokenizer(repo: str) -> Preset | None:
    return next((preset for preset in PRESETS.values() if preset.tokenizer_hub_id == repo), None)


def _in_directory(root: Path, name: str, choice: BaseChoice) -> _Parts:
    if choice.revision:
        raise BaseModelError(f"a revision belongs to a hub id, but {name} is a directory; leave it out")
    about = read_json(root / "base.json", hint=f"{name} must hold base.json, tokenizer/ and predictor/")
    context = about.get("context")
    if not isinstance(context, int) or context < 2:
        raise BaseModelError(f"base.json of {name} must give context as a number of bars, got {context!r}")
    if choice.tokenizer:
        own = _override(choice.tokenizer, choice.tokenizer_revision)
    else:
        own = Files.in_directory(root / "tokenizer", repo=name)
    return _Parts(
        tokenizer=own,
        predictor=Files.in_directory(root / "predictor", repo=name),
        context=context,
        pretrained_until=_until(about, name),
    )


def _until(about: Mapping[str, Any], name: str) -> date | None:
    """The `--until` of the pretraining, as base.json records it."""
    settings = about.get("settings")
    until = settings.get("until") if isinstance(settings, Mapping) else None
    try:
        return None if until is None else date.fromisoformat(until)
    except (TypeError, ValueError):
        raise BaseModelError(
            f"base.json of {name} must give settings.until as a date YYYY-MM-DD, got {until!r}"
        ) from None


def _override(tokenizer: str, revision: str | None) -> Files:
    """A tokenizer named by the user, instead of the base's own."""
    path = Path(tokenizer)
    if path.is_dir():
        path = path.resolve()
        inner = path / "tokenizer"
        return Files.in_directory(inner if inner.is_dir() else path, repo=path.name)
    preset = _preset_of_tokenizer(tokenizer)
    return hub_files(tokenizer, revision) if preset is None else _own_tokenizer(preset, revision)


def _own_tokenizer(preset: Preset, revision: str | None) -> Files:
    pinned = preset.tokenizer_revision
    return _pinned(str(preset.tokenizer_hub_id), revision, pinned, preset.tokenizer_sha256)


def _pinned(repo: str, revision: str | None, pinned: str | None, sha256: str | None) -> Files:
    """A repository at the revision asked for, or else at ours, whose hash we know."""
    wanted = revision or pinned
    return hub_files(repo, wanted, sha256=sha256 if wanted == pinned else None)


def _on_hub(choice: BaseChoice, preset: Preset | None) -> _Parts:
    if preset is not None:
        context: int | None = preset.context
        predictor = _pinned(str(preset.hub_id), choice.revision, preset.hub_revision, preset.hub_sha256)
    elif choice.tokenizer:
        context, predictor = None, hub_files(choice.model, choice.revision)
    else:
        ours = [one.hub_id for one in PRESETS.values() if one.hub_id]
        raise BaseModelError(
            f"{choice.model!r} is no directory here{did_you_mean(choice.model, ours)}; as a hub id it is not "
            "one of ours, so name its tokenizer and both revisions"
        )
    if preset is None or choice.tokenizer:
        own = _override(str(choice.tokenizer), choice.tokenizer_revision)
    else:
        own = _own_tokenizer(preset, choice.tokenizer_revision)
    return _Parts(tokenizer=own, predictor=predictor, context=context)


def _context(parts: _Parts, config: Mapping[str, Any]) -> int:
    if parts.context is not None:
        return parts.context
    for preset in PRESETS.values():
        if dict(preset.predictor) == dict(config):
            return preset.context
    raise BaseModelError(
        f"{parts.predictor.repo} has the shape of no preset, so its context length is unknown; download it "
        'and add a base.json {"context": bars, "preset": name} beside tokenizer/ and predictor/'
    )
