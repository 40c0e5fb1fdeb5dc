"""Reads one config.json and model.safetensors pair, and refuses what does not fit its class."""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from kronos_shared.errors import KronosError, first_line

M = TypeVar("M", bound=nn.Module)


class BaseModelError(KronosError):
    """A base or tokenizer that cannot be found, or is not what its class expects."""


@dataclass(frozen=True)
class Fingerprint:
    """Which weights: hub id or directory name (never a path), commit, sha256 of the weights file."""

    repo: str
    revision: str | None
    content_sha256: str


@dataclass(frozen=True, kw_only=True)
class Files:
    """The content of one checkpoint; weights are read once, so what was hashed is what is loaded."""

    repo: str
    revision: str | None
    config: Mapping[str, Any]
    weights: bytes

    @classmethod
    def in_directory(cls, directory: Path, *, repo: str) -> "Files":
        """Read config.json and model.safetensors of a directory."""
        hint = f"{repo} must hold config.json and model.safetensors in {directory.name}/"
        config = read_json(directory / "config.json", hint=hint)
        return cls(
            repo=repo, revision=None, config=config, weights=_read(directory / "model.safetensors", hint)
        )

    def fingerprint(self) -> Fingerprint:
        """Identity of these weights."""
        return Fingerprint(self.repo, self.revision, hashlib.sha256(self.weights).hexdigest())


def hub_files(repo: str, revision: str | None, *, sha256: str | None = None) -> Files:
    """Fetch a checkpoint from the hub, or from its local cache.

    Raises:
        BaseModelError: no revision, no such repository or file, no network, or another content than `sha256`.
    """
    revision = require_commit(repo, revision)
    files = Files(
        repo=repo,
        revision=revision,
        config=read_json(hub_file(repo, "config.json", revision), hint=f"config.json of {repo}"),
        weights=_read(hub_file(repo, "model.safetensors", revision), hint=f"weights of {repo}"),
    )
    got = files.fingerprint().content_sha256
    if sha256 and got != sha256:
        raise BaseModelError(
            f"weights of {repo} at {revision} should have sha256 {sha256}, got {got}; delete them from the "
            "hub cache and load again"
        )
    return files


def require_commit(repo: str, revision: str | None) -> str:
    """The revision; raise BaseModelError unless it is a commit."""
    if not revision:
        raise BaseModelError(f"no pinned revision of {repo} is known: name a commit as its revision")
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise BaseModelError(
            f"revision of {repo} must be a commit (40 hex digits), because branches move; got {revision!r}"
        )
    return revision


def hub_file(repo: str, name: str, revision: str) -> Path:
    """One file of a repository at a commit, from the hub or its local cache; raises BaseModelError."""
    where = f"{repo} at revision {revision}"
    with suppress(LocalEntryNotFoundError):  # a commit never changes, so a cached file needs no network
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=True))
    try:
        get_hf_file_metadata(hf_hub_url(repo, name, revision=revision))  # unlike a download, fails at once
        return Path(hf_hub_download(repo, name, revision=revision))
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        raise BaseModelError(f"the hub has no {name} for {where}; check the name and the revision") from error
    except Exception as error:  # the HTTP library, and with it the error, differs between hub versions
        raise BaseModelError(
            f"{name} of {where} is not in the local cache and cannot be fetched ({first_line(error)}); "
            "connect once, or give a directory"
        ) from error


def read_json(path: Path, *, hint: str) -> dict[str, Any]:
    """A JSON object from a file; `hint` tells the user what should be there."""
    try:
        content = json.loads(_read(path, hint))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BaseModelError(f"{path.name} is not valid JSON ({first_line(error)}): {hint}") from error
    if not isinstance(content, dict):
        raise BaseModelError(f"{path.name} must be a JSON object, got {type(content).__name__}: {hint}")
    return content


def _read(path: Path, hint: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BaseModelError(f"cannot read {path.name} ({error.strerror}): {hint}") from error


def build(kind: type[M], files: Files) -> M:
    """A frozen model in `eval()` from its files.

    Raises:
        BaseModelError: one message that lists every wrong setting, or every missing, unexpected, misshapen or
            non-finite tensor.
    """
    model = _construct(kind, files)
    tensors = _parse(files)
    expected = model.state_dict()
    problems = _mismatches(expected, tensors)
    if problems:
        raise BaseModelError(f"weights of {files.repo} do not fit {kind.__name__}: " + "; ".join(problems))
    # a copy in the model's dtype, because parsed tensors share the file's (perhaps unaligned) buffer
    state = {name: tensors[name].to(value.dtype, copy=True) for name, value in expected.items()}
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


class _NoRandomFills(TorchFunctionMode):
    """Skips random fills of weights: on the meta device they do nothing and take most of the time."""

    FILLS = ("normal_", "uniform_", "kaiming_uniform_")

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _construct(kind: type[M], files: Files) -> M:
    wanted = set(inspect.signature(kind).parameters)
    problems = [f"missing {key}" for key in sorted(wanted - set(files.config))]
    problems += [f"unexpected {key}" for key in sorted(set(files.config) - wanted)]
    problems += [
        f"{key} must be a number, got {value!r}"
        for key, value in files.config.items()
        if not isinstance(value, (int, float))
    ]
    if problems:
        raise BaseModelError(
            f"config.json of {files.repo} does not fit {kind.__name__}: " + "; ".join(problems)
        )
    try:
        # weights follow at once, so nothing is allocated or initialised here
        with torch.device("meta"), _NoRandomFills():
            return kind(**files.config)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise BaseModelError(f"config.json of {files.repo} is not usable: {first_line(error)}") from error


def _parse(files: Files) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(files.weights)
    except SafetensorError as error:
        raise BaseModelError(
            f"weights of {files.repo} are not a safetensors file: {first_line(error)}"
        ) from error


def _mismatches(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    for name in expected.keys() & tensors.keys():
        got, want = tensors[name], expected[name]
        if got.shape != want.shape:
            problems.append(f"{name} has shape {tuple(got.shape)}, expected {tuple(want.shape)}")
        elif got.is_floating_point() != want.is_floating_point():
            problems.append(f"{name} has dtype {got.dtype}, expected {want.dtype}")
        elif not torch.isfinite(got).all():
            problems.append(f"{name} has values that are not finite")
    return sorted(problems)
