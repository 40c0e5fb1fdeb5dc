"""Which base to run on: the one its operator chose, or the one that an adapter's manifest names."""

from dataclasses import dataclass

from kronos_service.model.factory import Bundle, load_bundle
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import AdapterManifest, SourceRecord
from kronos_shared.errors import KronosError

PACKAGED = "kronos-nano"


class BaseUnknownError(KronosError):
    """No base was configured, and the manifest names none that can be found by its name."""


@dataclass(frozen=True, kw_only=True)
class BaseChoice:
    """A base as `load_bundle` takes it."""

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    tokenizer_revision: str | None = None

    def load(self, device: str) -> Bundle:
        """The bundle on a device.

        Raises:
            BaseModelError: it cannot be found, or does not fit.
        """
        return load_bundle(
            self.model,
            tokenizer=self.tokenizer,
            revision=self.revision,
            tokenizer_revision=self.tokenizer_revision,
            device=device,
        )


def base_named_by(manifest: AdapterManifest) -> BaseChoice:
    """The base that a manifest names: the packaged one, or a released one at its revision.

    A directory is never followed, since a manifest holds its name without a path and may have come from
    anywhere.

    Raises:
        BaseUnknownError: it names another.
    """
    base, tokenizer = manifest.base, manifest.tokenizer
    if base.repo == PACKAGED and tokenizer.repo == PACKAGED:
        return BaseChoice(model=PACKAGED)
    released = {preset.hub_id for preset in PRESETS.values() if preset.hub_id}
    tokenizers = {preset.tokenizer_hub_id for preset in PRESETS.values() if preset.tokenizer_hub_id}
    if base.repo not in released or tokenizer.repo not in tokenizers:
        raise BaseUnknownError(
            f"the adapter was made for base {_short(base)} with tokenizer {_short(tokenizer)}, which "
            "cannot be found by name; configure the base to serve"
        )
    return BaseChoice(
        model=base.repo,
        tokenizer=tokenizer.repo,
        revision=base.revision,
        tokenizer_revision=tokenizer.revision,
    )


def _short(source: SourceRecord) -> str:
    return f"{source.repo[:80]!r} ({source.content_sha256[:12]})"
