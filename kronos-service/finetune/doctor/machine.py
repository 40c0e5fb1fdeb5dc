"""Torch, the GPU, cores and memory, disk, and the variables of the databases."""

import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from kronos_service.finetune.doctor.finding import GB, Finding, Status
from kronos_service.finetune.event_conditioned.config import Recipe
from kronos_shared.atomic import why_not_writable
from kronos_shared.errors import first_line

LITTLE_MEMORY: Final = 4 * GB
"""A round figure: weights, gradients and activations of a released base on a CPU, beside the data."""
LITTLE_DISK: Final = 5 * GB
"""A released base and a few runs."""
LEAST_DISK: Final = GB
"""Below it a run is likely to end with a full disk: checkpoints, tokens, report and adapter."""


def check_torch() -> Finding:
    """Version and build."""
    try:
        import torch
    except Exception as error:
        return Finding(
            "fault",
            f"torch does not load ({first_line(error)})",
            "pip uninstall torch, then pip install torch",
        )
    hip = getattr(torch.version, "hip", None)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {hip}" if hip else "the CPU only"
    return Finding("ok", f"{torch.__version__}, built for {build}")


def check_device(wanted: str) -> Finding:
    """The GPU: name, compute capability, bf16, free memory, and whether it computes; or that there is none.

    Args:
        wanted: auto, cpu or cuda.
    """
    import torch

    if wanted == "cpu":
        return Finding("ok", "the CPU, as asked")
    with warnings.catch_warnings(record=True) as caught:  # torch warns where it sees a GPU it cannot use
        warnings.simplefilter("always")
        present = torch.cuda.is_available()
        finding = _gpu() if present else None
    said = "".join(f" ({first_line(one)})" for one in [_warning(caught)] if one)
    if finding is not None:
        return finding._replace(text=finding.text + said)
    status: Status = "fault" if wanted == "cuda" else "note"
    if torch.version.cuda is None:
        remedy = "where there is an NVIDIA GPU, install torch for CUDA (https://pytorch.org/get-started)"
    else:
        remedy = (
            "where there is a GPU, see that nvidia-smi lists it and CUDA_VISIBLE_DEVICES does not hide it"
        )
    return Finding(status, f"no CUDA device, so a run is slow{said}", remedy)


def _warning(caught: list[warnings.WarningMessage]) -> Warning | None:
    return next((one.message for one in caught if isinstance(one.message, Warning)), None)


def _gpu() -> Finding:
    import torch

    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    try:
        free, total = torch.cuda.mem_get_info()
        torch.ones(8, 8, device="cuda").matmul(torch.ones(8, 8, device="cuda")).sum().item()
    except RuntimeError as error:
        remedy = "install torch and a driver that support this GPU, or end what fills it"
        return Finding("fault", f"{name} (sm_{major}{minor}) does not compute: {first_line(error)}", remedy)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    text = (
        f"{name}, compute capability {major}.{minor}, {'bf16' if bf16 else 'no bf16'}, "
        f"{free / GB:.1f} of {total / GB:.1f} GB free"
    )
    budget = Recipe.model_fields["vram_budget"].default
    if free < budget * GB:
        return Finding(
            "note", text, f"a run plans for {budget:g} GB: free it, or give event-lora --vram-budget"
        )
    return Finding("ok", text) if bf16 else Finding("note", text, "a run uses fp32, at twice the memory")


def check_machine() -> Finding:
    """CPU cores of this process, and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    text = f"{cores} CPU cores, {memory.available / GB:.1f} of {memory.total / GB:.1f} GB of memory available"
    if memory.available < LITTLE_MEMORY:
        return Finding("note", text, f"end other programs: a released base wants {LITTLE_MEMORY / GB:g} GB")
    return Finding("ok", text)


def check_disk(directories: Sequence[Path]) -> Finding:
    """Room and permission where runs and adapters go."""
    free = {}
    for directory in directories:
        if why := why_not_writable(directory):
            return Finding(
                "fault", f"nothing can be written to {directory}/: {why}", "change its permissions"
            )
        there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
        free[directory] = shutil.disk_usage(there).free
    text = ", ".join(f"{size / GB:.1f} GB free for {directory}/" for directory, size in free.items())
    least = min(free.values())
    if least < LITTLE_DISK:
        return Finding(
            "fault" if least < LEAST_DISK else "note", text, f"make room for {LITTLE_DISK / GB:g} GB"
        )
    return Finding("ok", text)


def check_keys() -> Finding:
    """Which variables of the databases are set; never what they hold."""
    is_set = {name: bool(os.environ.get(name)) for name in ("SUPABASE_URL", "SUPABASE_KEY", "DATABASE_URL")}
    text = ", ".join(f"{name} {'set' if there else 'not set'}" for name, there in is_set.items())
    if is_set["SUPABASE_URL"] != is_set["SUPABASE_KEY"]:
        return Finding("note", text, "Supabase needs both of its variables")
    if not any(is_set.values()):
        return Finding(
            "note", text, "export needs Supabase's two or DATABASE_URL; import of files needs none"
        )
    return Finding("ok", text)
