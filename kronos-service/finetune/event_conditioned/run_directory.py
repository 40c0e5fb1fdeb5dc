"""The directory of one run: created once, locked by one process at a time, resumed if need be, finished once.

config.json     the settings, written before anything is trained
settled.json    what else the numbers depend on: data, base, device, micro-batch; the same when resumed
finished.json   written last
variant.json    only of an ablation's training: which variant it is; the ablate command resumes it
.lock           held by the process that trains
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.event_conditioned.config import EventLoraConfig, current
from kronos_service.finetune.event_conditioned.training.checkpoints import CheckpointError
from kronos_service.finetune.event_conditioned.training.distributed import on_main, process_number
from kronos_service.finetune.event_conditioned.training.setup import TrainingSetup
from kronos_service.finetune.event_conditioned.training.signals import Stopped
from kronos_service.model.factory import Bundle
from kronos_shared.atomic import replace_file
from kronos_shared.cli import command_line, flag
from kronos_shared.errors import KronosError

RUNS = Path("runs")
CONFIG, FINGERPRINT, FINISHED, LOCK = "config.json", "settled.json", "finished.json", ".lock"
VARIANT = "variant.json"

MAY_DIFFER = frozenset({"run_dir", "checkpoint_every", "keep_versions", "promote", "tracker"})
"""Settings that may change when a run is resumed: no number depends on them."""


class RunError(KronosError):
    """The run directory cannot be used."""


@dataclass(frozen=True, kw_only=True)
class RunFingerprint:
    """What a run's numbers depend on besides its settings; field names are those in settled.json."""

    snapshot: str
    base: str
    tokenizer: str
    """Hashes of the contents."""
    processes: int
    """How many train together: dropout is drawn per process."""
    device: str
    precision: str
    micro_batch: int


@contextmanager
def new_run(config: EventLoraConfig) -> Iterator[Path]:
    """Start a run in an empty directory (by default a new one under runs/), and lock it.

    A start that fails before anything is trained leaves nothing behind that `--resume` could take for a run.

    Raises:
        RunError: the directory is not empty, or cannot be written.
    """
    directory = on_main(lambda: config.run_dir or RUNS / f"event-lora-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    on_main(lambda: _require_empty(directory))
    existed = directory.exists()
    with _locked(directory):
        on_main(lambda: _start(directory, config))
        try:
            yield directory
        except BaseException:
            if process_number() == 0:
                _remove_start(directory, keep=existed)
            raise


@contextmanager
def unfinished_run(given: Mapping[str, Any]) -> Iterator[tuple[Path, EventLoraConfig]]:
    """Lock the run that `given["run_dir"]` names, or else the newest unfinished one under runs/, and read
    its settings.

    Raises:
        RunError: there is none, it has finished, another process trains in it, or a setting in `given`
            contradicts it.
    """
    directory = on_main(lambda: _require_unfinished(given.get("run_dir") or _newest_unfinished()))
    with _locked(directory):
        yield directory, on_main(lambda: read_settings(directory, given))


@contextmanager
def variant_run(
    directory: Path, config: EventLoraConfig, variant: Mapping[str, object], fingerprint: RunFingerprint
) -> Iterator[None]:
    """Lock the directory of one training of an ablation, and start or resume it there.

    Raises:
        RunError: another process trains in it, it holds something else, or it cannot be written.
    """
    with _locked(directory):
        if not on_main((directory / CONFIG).exists):
            on_main(lambda: _start(directory, config))
        on_main(lambda: write_json(directory / VARIANT, variant))
        on_main(lambda: record_fingerprint(directory, fingerprint))
        yield


def fingerprint_of(setup: TrainingSetup, micro_batch: int) -> RunFingerprint:
    """What the numbers of a training with this setup depend on."""
    return RunFingerprint(
        **_inputs(setup.snapshot, setup.bundle),
        processes=setup.accelerator.num_processes,
        device=setup.accelerator.device.type,
        precision=setup.accelerator.mixed_precision,
        micro_batch=micro_batch,
    )


def _inputs(snapshot: Snapshot, bundle: Bundle) -> dict[str, str]:
    return {
        "snapshot": snapshot.sha256,
        "base": bundle.base.content_sha256,
        "tokenizer": bundle.tokenizer_print.content_sha256,
    }


def read_fingerprint(directory: Path) -> RunFingerprint | None:
    """The fingerprint that the run in this directory recorded, or None if it was cut off before."""
    path = directory / FINGERPRINT
    return RunFingerprint(**json.loads(path.read_bytes())) if path.exists() else None


def record_fingerprint(directory: Path, fingerprint: RunFingerprint) -> None:
    """Record what the numbers depend on, or check that a resumed run still has the same.

    Raises:
        RunError: something has changed since the run began; it is named.
    """
    before = read_fingerprint(directory)
    if before is None:
        write_json(directory / FINGERPRINT, asdict(fingerprint))
        return
    _require_same(directory, before, asdict(fingerprint))


def require_inputs(directory: Path, snapshot: Snapshot, bundle: Bundle) -> None:
    """Check that a run, which may have finished, was made from this data and base.

    Raises:
        RunError: from others; they are named.
    """
    before = read_fingerprint(directory)
    if before is not None:
        _require_same(directory, before, _inputs(snapshot, bundle))


def _require_same(directory: Path, before: RunFingerprint, now: Mapping[str, object]) -> None:
    for name, value in now.items():
        began = getattr(before, name)
        if value != began:
            raise RunError(
                f"{directory} began with {name.replace('_', ' ')} {began}, but now it is {value}: resume it "
                "as it began, or start a new run"
            )


def finish(directory: Path, summary: Mapping[str, object]) -> None:
    """Mark a run as finished: it can no longer be resumed."""
    write_json(
        directory / FINISHED, {"finished_at": datetime.now(UTC).isoformat(timespec="seconds"), **summary}
    )


def write_json(path: Path, content: object) -> None:
    """Replace the JSON file at `path` in one step."""
    replace_file(path, (json.dumps(content, indent=2, default=str) + "\n").encode())


def resume_command(directory: Path) -> str:
    """What to type to resume a run."""
    return command_line(PROGRAM, "event-lora --resume", {"run_dir": directory})


@contextmanager
def writing(directory: Path, command: str | None = None) -> Iterator[None]:
    """Add the command that resumes the run to the error of a full disk, or to a stop by a signal.

    Raises:
        RunError, Stopped: with that command.
    """
    command = command or resume_command(directory)
    try:
        yield
    except Stopped as stopped:
        raise Stopped(f"{stopped}; resume with {command}", stopped.exit_code) from None
    except CheckpointError as error:
        raise RunError(f"{error}; resume with {command}") from None
    except OSError as error:
        raise RunError(
            f"cannot write {error.filename or directory} ({error.strerror or error}): make room, then "
            f"resume with {command}"
        ) from None


def _remove_start(directory: Path, *, keep: bool) -> None:
    """Remove what a start writes before the first step, where there is nothing else; `keep` the directory
    itself.
    """
    if {path.name for path in directory.iterdir()} <= {CONFIG, FINGERPRINT, LOCK}:
        (directory / CONFIG).unlink()
        (directory / FINGERPRINT).unlink(missing_ok=True)
        with suppress(OSError):  # Windows removes no file that is open
            (directory / LOCK).unlink()
            if not keep:
                directory.rmdir()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock the directory; the operating system releases the lock however the process ends."""
    lock = FileLock(directory / LOCK)
    on_main(lambda: _acquire(lock, directory))
    try:
        yield
    finally:
        if process_number() == 0:
            lock.release()


def _acquire(lock: FileLock, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"another process is training in {directory}: wait for it, or end it first") from None
    except OSError as error:
        raise _not_writable(directory, error) from None


def _require_empty(directory: Path) -> None:
    try:
        if directory.exists() and any(path.name != LOCK for path in directory.iterdir()):
            raise RunError(
                f"{directory} is not empty: remove it, choose another (--run-dir of event-lora, --out of "
                "ablate and walk-forward), or resume an unfinished run with event-lora --resume"
            )
    except OSError as error:
        raise _not_writable(directory, error) from None


def _start(directory: Path, config: EventLoraConfig) -> None:
    _require_empty(directory)
    try:
        write_json(directory / CONFIG, config.model_dump(mode="json"))
    except OSError as error:
        raise _not_writable(directory, error) from None


def _not_writable(directory: Path, error: OSError) -> RunError:
    return RunError(f"cannot write to the run directory {directory}: {error.strerror}")


def _require_unfinished(directory: Path) -> Path:
    if not (directory / CONFIG).exists():
        raise RunError(f"{directory} holds no run to resume: it has no {CONFIG}")
    if (directory / VARIANT).exists():
        raise RunError(f"{directory} is one training of an ablation: resume it with the ablate command")
    if (directory / FINISHED).exists():
        raise RunError(f"the run in {directory} has finished: there is nothing to resume")
    return directory


def _newest_unfinished() -> Path:
    begun = sorted(RUNS.glob(f"*/{CONFIG}"), key=lambda path: (path.stat().st_mtime_ns, path))
    unfinished = [
        path.parent
        for path in begun
        if not (path.parent / FINISHED).exists() and not (path.parent / VARIANT).exists()
    ]
    idle = [directory for directory in unfinished if _is_idle(directory)]
    if not idle:
        busy = f" ({unfinished[-1]} is being trained by another process)" if unfinished else ""
        raise RunError(
            f"no unfinished run under {RUNS.resolve()}{busy}: name its directory with --run-dir, or start "
            "one: event-lora without --resume"
        )
    return idle[-1]


def _is_idle(directory: Path) -> bool:
    try:
        with FileLock(directory / LOCK, timeout=0):
            return True
    except Timeout:
        return False


def read_settings(directory: Path, given: Mapping[str, Any]) -> EventLoraConfig:
    """The settings that a run began with, under those in `given` that may differ.

    Raises:
        RunError: config.json is damaged, or a setting in `given` contradicts it.
    """
    try:
        config = EventLoraConfig(**current(json.loads((directory / CONFIG).read_bytes())))
    except ValueError as error:
        raise RunError(f"{directory / CONFIG} cannot be read back: {error}") from None
    changed = [
        f"{flag(name)} is {value} but the run began with {getattr(config, name)}"
        for name, value in given.items()
        if name not in MAY_DIFFER and value != getattr(config, name)
    ]
    if changed:
        raise RunError(
            f"{directory} keeps the settings it began with: {'; '.join(changed)}; leave that out, or start a "
            "new run"
        )
    return config.replace(**{name: value for name, value in given.items() if name in MAY_DIFFER})
