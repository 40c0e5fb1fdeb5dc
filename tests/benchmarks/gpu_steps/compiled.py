"""The full-size step with its blocks compiled: how long that takes, and what it gains."""

import torch
from accelerate import Accelerator
from gpu_steps.lab import Lab
from gpu_steps.memory import speed
from peft import PeftModel

from kronos_service.model.adapter.read import kronos_of

MICRO_BATCH, DRY_MICRO_BATCH = 16, 2


def run(lab: Lab) -> None:
    lab.cap_memory()
    backend = "eager" if lab.dry_run else "inductor"  # a dry run traces, and needs no compiler

    def compile_blocks(model: PeftModel) -> None:
        for block in kronos_of(model).transformer.blocks:
            block.compile(backend=backend)

    torch._dynamo.config.suppress_errors = False
    accelerator = Accelerator(mixed_precision="bf16", cpu=lab.dry_run)
    windows = DRY_MICRO_BATCH if lab.dry_run else MICRO_BATCH
    speed(lab, accelerator, windows, "compiled blocks", fused=True, change=compile_blocks)
