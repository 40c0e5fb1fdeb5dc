"""What is measured on: versions, card, and how long the package takes to import."""

import platform
import time
from importlib.metadata import version

from gpu_steps.lab import Lab


def run(lab: Lab) -> None:
    lab.add("Python", platform.python_version())
    for name in ("torch", "peft", "accelerate", "pandas", "pyarrow"):
        lab.add(name, version(name))
    begun = time.perf_counter()
    import torch

    import kronos_service.finetune.event_conditioned.event_lora  # noqa: F401

    lab.add("import of the job", time.perf_counter() - begun, "s", "torch is loaded already")
    lab.add("card", lab.card)
    lab.add("CUDA of torch", str(torch.version.cuda))
    if lab.dry_run:
        return
    properties = torch.cuda.get_device_properties(0)
    lab.add("compute capability", f"sm{properties.major}{properties.minor}")
    lab.add("memory", properties.total_memory / 1e9, "GB")
    lab.add("TF32 in matrix products", str(torch.backends.cuda.matmul.allow_tf32))
    lab.add("bf16", str(torch.cuda.is_bf16_supported(including_emulation=False)))
