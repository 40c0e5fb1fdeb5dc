"""Trains a base from scratch on a snapshot's bars: first a tokenizer, then a predictor of its tokens.

- Events are not used: what a scheduled release does is left for the adapter to learn.
- Windows are normalised by the bars before a random cut; the predictor is scored only on targets after it:
  a score before the cut would be helped by statistics that have seen its target.
- Everything random follows from the seed and the step, so an interrupted run resumes from the checkpoints in
  `out/state`, on a CPU to the same bits.

    python -m kronos_service.finetune pretrain --snapshot data/snapshots/2026-11 --out runs/base
"""

import hashlib
import json
import shutil
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.config import PretrainConfig
from kronos_service.finetune.event_conditioned.samples.dataset import TokenBatch
from kronos_service.finetune.event_conditioned.training.checkpoints import Checkpoints
from kronos_service.finetune.event_conditioned.training.loss import token_losses
from kronos_service.finetune.precision import fast_precision
from kronos_service.finetune.pretrain.loop import PretrainError, Stage, train_stage
from kronos_service.finetune.pretrain.windows import Batch, draw_batch, training_series, validation_batch
from kronos_service.model.factory import save_base
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared import cli
from kronos_shared.progress import say


def pretrain(config: PretrainConfig, console: Console | None = None) -> dict[str, Any]:
    """Train a base and write it to `config.out`; returns the record that joins base.json.

    Raises:
        WindowError: nothing long enough to train on.
        PretrainError: checkpoints of another run are in the way, or a loss is not finite.
    """
    started = time.monotonic()
    cli.require_writable(config.out, "--out")
    snapshot = load_snapshot(config.snapshot)
    state = _state_directory(config, snapshot.sha256)
    data = training_series(snapshot, until=config.until, heldout=config.heldout, context=config.context)
    held_out = validation_batch(data, context=config.context)
    draw = partial(draw_batch, data, size=config.batch_size, context=config.context)
    torch.manual_seed(config.seed)
    tokenizer = KronosTokenizer(**PRESETS[config.preset].tokenizer)
    model = Kronos(**PRESETS[config.preset].predictor)
    precision = fast_precision(config.precision, width=model.d_model)
    accelerator = Accelerator(mixed_precision=precision)
    console = console or Console(stderr=True, markup=False)
    train = partial(train_stage, draw=draw, accelerator=accelerator, console=console)

    spread_codes(tokenizer, held_out.x)
    loss_of = partial(reconstruction_loss, tokenizer)
    tokenizer_curve = train(_stage("tokenizer", config, state), tokenizer, loss_of=loss_of)
    tokenizer.eval().requires_grad_(False)
    loss_of = partial(prediction_loss, tokenizer, model)
    predictor_curve = train(_stage("predictor", config, state), model, loss_of=loss_of)
    model.eval()

    held_out = held_out.to(accelerator.device)
    record: dict[str, Any] = {
        "command": command_line(config),
        "snapshot_sha256": snapshot.sha256,
        "settings": _plain(config),
        "train_loss": {"tokenizer": tokenizer_curve, "predictor": predictor_curve},
        "validation": tokenizer_report(tokenizer, held_out) | predictor_report(tokenizer, model, held_out),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "torch": torch.__version__,
    }
    save_base(config.out, tokenizer, model, config.context, config.preset, record)
    shutil.rmtree(config.out / "state", ignore_errors=True)
    for name, figure in record["validation"].items():
        console.print(f"{name.replace('_', ' '):32} {figure}")
    next_command = cli.command_line(
        PROGRAM, "event-lora", {"snapshot": config.snapshot, "base_model": config.out}
    )
    for line in (f"base {config.out}; next:", next_command):
        say(line, on=console)
    return record


def command_line(config: PretrainConfig) -> str:
    """The command that repeats the run: what differs from the defaults, without the directories' parents."""
    changed = {
        name: value
        for name, value in _plain(config).items()
        if getattr(config, name) != PretrainConfig.model_fields[name].default
    }
    return cli.command_line(PROGRAM, "pretrain", changed)


def spread_codes(tokenizer: KronosTokenizer, x: Tensor) -> None:
    """Start the code with balanced, uncorrelated bits: the principal components of the encoded x (B, T, 6).

    From a random projection most bits begin constant or alike, and much of the code book stays empty.
    """
    with torch.no_grad():
        h = tokenizer.encoder(tokenizer.embed(x)).flatten(0, 1)  # (B x T, D)
        mean = h.mean(0)
        _, size, axes = torch.linalg.svd(h - mean, full_matrices=False)
        bits = tokenizer.s1_bits + tokenizer.s2_bits
        weight = axes[:bits] / (size[:bits, None] / len(h) ** 0.5)
        tokenizer.quant_embed.weight.copy_(weight)
        tokenizer.quant_embed.bias.copy_(-weight @ mean)


def reconstruction_loss(tokenizer: KronosTokenizer, batch: Batch) -> Tensor:
    """(mse from the coarse bits + mse from all bits + quantizer loss) / 2, as upstream."""
    out = tokenizer(batch.x)
    errors = F.mse_loss(out.recon_s1, batch.x) + F.mse_loss(out.recon, batch.x)
    loss: Tensor = (errors + out.quantizer_loss) / 2
    return loss


def prediction_loss(tokenizer: KronosTokenizer, model: Kronos, batch: Batch) -> Tensor:
    """Sum of the two mean cross-entropies."""
    ce_s1, ce_s2 = mean_losses(tokenizer, model, batch)
    return ce_s1 + ce_s2


def mean_losses(tokenizer: KronosTokenizer, model: Kronos, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropies in nats of the next bar's s1 and s2, over the targets from the cut on."""
    # Ids must not depend on the precision that the predictor trains in.
    with torch.no_grad(), torch.autocast(batch.x.device.type, enabled=False):
        s1, s2 = tokenizer.encode(batch.x)
    tokens = TokenBatch(
        stamps=batch.stamps,
        s1_ids=s1,
        s2_ids=s2,
        s1_targets=s1.roll(-1, dims=1),  # its last entry wraps around, but is never scored
        positions=torch.arange(batch.cut - 1, s1.shape[1] - 1, device=s1.device).expand(len(s1), -1),
        s2_targets=s2[:, batch.cut :],
    )
    ce_s1, ce_s2 = token_losses(model, tokens, events=None)
    return ce_s1.mean(), ce_s2.mean()


@torch.no_grad()
def tokenizer_report(tokenizer: KronosTokenizer, batch: Batch) -> dict[str, float]:
    """How finely tokens resolve the rows from the cut on, and how much of the code book they use.

    Errors of the close and of the high-low range are root mean squares in units of the root mean square daily
    move, the median over windows; perplexities are out of 2 ** bits.
    """
    s1, s2 = tokenizer.encode(batch.x)
    x, again = batch.x[:, batch.cut :], tokenizer.decode(s1, s2)[:, batch.cut :]
    move = _rms(batch.x[:, batch.cut :, 3] - batch.x[:, batch.cut - 1 : -1, 3])
    close = _rms(again[..., 3] - x[..., 3]) / move
    spread = _rms(again[..., 1] - again[..., 2] - (x[..., 1] - x[..., 2])) / move
    return {
        "reconstruction_rms": round(float((again - x).pow(2).mean().sqrt()), 4),
        "close_error_in_daily_moves": round(float(close.median()), 4),
        "range_error_in_daily_moves": round(float(spread.median()), 4),
        "s1_perplexity": round(_perplexity(s1, tokenizer.s1_bits), 1),
        "s2_perplexity": round(_perplexity(s2, tokenizer.s2_bits), 1),
    }


@torch.no_grad()
def predictor_report(tokenizer: KronosTokenizer, model: Kronos, batch: Batch) -> dict[str, float]:
    """Cross-entropies of the targets from the cut on, in nats."""
    s1, s2 = (float(loss) for loss in mean_losses(tokenizer, model, batch))
    return {
        "s1_loss": round(s1, 4),
        "s2_loss": round(s2, 4),
        "loss": round(s1 + s2, 4),
        "targets": batch.x[:, batch.cut :, 0].numel(),
    }


def _rms(rows: Tensor) -> Tensor:
    return rows.pow(2).mean(dim=1).sqrt()


def _perplexity(ids: Tensor, bits: int) -> float:
    share = torch.bincount(ids.flatten(), minlength=2**bits).float() / ids.numel()
    return float(torch.special.entr(share).sum().exp())


def _plain(config: PretrainConfig) -> dict[str, Any]:
    """The settings as JSON values; a directory is its name only, for the rest belongs to one machine."""
    values = {name: value.name if isinstance(value, Path) else value for name, value in config}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in values.items()}


def _state_directory(config: PretrainConfig, data_hash: str) -> Path:
    """Where the checkpoints are: named by settings and data, so that no other run resumes from them."""
    identity = json.dumps(_plain(config) | {"data": data_hash}, sort_keys=True)
    state = config.out / "state" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if any(path != state for path in state.parent.glob("*")):
        raise PretrainError(
            f"{state.parent} belongs to a run with other settings or data, or to an earlier version: remove "
            "it or change --out"
        )
    return state


def _stage(name: str, config: PretrainConfig, state: Path) -> Stage:
    return Stage(
        name=name,
        steps=getattr(config, f"{name}_steps"),
        peak_lr=getattr(config, f"{name}_lr"),
        seed=config.seed,
        checkpoints=Checkpoints(state / name, every=config.save_every),
    )
