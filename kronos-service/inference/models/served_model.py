"""What answers a request: a base, alone or with an adapter merged into it. It never changes once built."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from kronos_service.data.sample import is_synthetic
from kronos_service.model.adapter.files import AdapterError, AdapterFiles, read_files
from kronos_service.model.adapter.hub import adapter_name
from kronos_service.model.adapter.read import find_adapter, load_adapter, parse_adapter, taxonomy_named_by
from kronos_service.model.factory import PACKAGED, BaseChoice, Bundle, base_named_by
from kronos_service.model.kronos import Kronos
from kronos_shared.adapter_manifest import AdapterManifest, RecalibrationRecord
from kronos_shared.normalization import CLIP, EPSILON, MIN_HISTORY, UPSTREAM_EPSILON

NORMALIZATIONS: Final = ((CLIP, EPSILON, True), (CLIP, UPSTREAM_EPSILON, False))
"""Clip, epsilon and whether that is a share of the mean: what an adapter may have been trained with. The
second is of earlier adapters: at ordinary prices both rules give the same tokens (docs/decisions.md).
"""


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model and all that its answers must say about it; a request keeps the one it began with."""

    base: Bundle
    model: Kronos
    """With LoRA merged and the event embedding attached; the plain base where there is no adapter."""
    version: str | None = None
    """Name of the adapter's version; None is the base alone, as in the next three."""
    generation: int | None = None
    """The generation of LATEST that brought it here; the one that published it where it was pinned."""
    digest: str | None = None
    """sha256 of the adapter's manifest."""
    manifest: AdapterManifest | None = None
    loaded_at: datetime
    """When it began to serve, in UTC."""
    longest: int | None = None
    """Bars that it reads, where they are fewer than its base could."""

    @property
    def context(self) -> int:
        """Bars of history and forecast together: as many as the adapter was trained with."""
        limit = self.base.context if self.longest is None else self.longest
        return limit if self.manifest is None else min(limit, self.manifest.normalization.context)

    @cached_property
    def without_adapter(self) -> "ServedModel":
        """The base alone, which reads as many bars: only the adapter makes their forecasts differ."""
        if self.manifest is None:
            return self
        return replace(base_alone(self.base), loaded_at=self.loaded_at, longest=self.context)

    @property
    def min_history(self) -> int:
        """Bars of history that it needs at least."""
        return MIN_HISTORY if self.manifest is None else self.manifest.normalization.min_history

    @property
    def recalibration(self) -> RecalibrationRecord | None:
        """The width factors of the adapter; None where it has none, and for the base alone."""
        return None if self.manifest is None else self.manifest.recalibration

    @property
    def is_synthetic(self) -> bool:
        """Whether it has learned from a sample market alone: what it says is of no real market."""
        if self.manifest is None:
            return self.base.base.repo == PACKAGED
        data = self.manifest.data
        return is_synthetic(data.sha256, marked=data.synthetic)


def base_alone(bundle: Bundle) -> ServedModel:
    """The base without an adapter."""
    return ServedModel(base=bundle, model=bundle.model, loaded_at=datetime.now(UTC))


def adapter_at(path: Path | str, *, base: BaseChoice | None = None, device: str = "cpu") -> ServedModel:
    """The adapter that `find_adapter` finds, on the base that it names unless one is given.

    Raises:
        NoAdapterError: there is neither.
        AdapterError, BaseModelError: the adapter or its base cannot be used.
    """
    directory = find_adapter(path)
    files = read_files(directory)
    bundle = (base or base_named_by(files.manifest)).load(device, taxonomy_named_by(files.manifest))
    return build(files, bundle, version=adapter_name(directory))


def build(files: AdapterFiles, bundle: Bundle, *, version: str, generation: int | None = None) -> ServedModel:
    """The base with an adapter merged into copies of the weights that it touches, proven by its canary.

    Args:
        version, generation: what its answers say.

    Raises:
        AdapterError: damaged, made for something else, or computes something else than its trainer saw.
    """
    manifest = files.manifest
    problems = _setting_problems(manifest, bundle)
    if problems:
        raise AdapterError(f"{files.directory}: {'; '.join(problems)}")
    loaded = load_adapter(parse_adapter(files), bundle)
    return ServedModel(
        base=bundle,
        model=loaded.merged,
        version=version,
        generation=generation,
        digest=files.digest,
        manifest=manifest,
        loaded_at=datetime.now(UTC),
    )


def _setting_problems(manifest: AdapterManifest, bundle: Bundle) -> list[str]:
    """How the inputs that the adapter was trained on differ from those that this service makes."""
    trained = manifest.normalization
    problems = []
    if (trained.clip, trained.epsilon, trained.relative) not in NORMALIZATIONS:
        share = " of the mean" if trained.relative else ""
        problems.append(
            f"made for inputs with clip {trained.clip:g} and epsilon {trained.epsilon:g}{share}, "
            f"not {CLIP:g} and {EPSILON:g} of the mean"
        )
    if max(trained.context, manifest.canary.length) > bundle.context:
        problems.append(
            f"made for windows of {trained.context} bars (canary: {manifest.canary.length}), "
            f"the base takes {bundle.context}"
        )
    return problems
