"""Random models small enough for a test, inputs for them, and the goldens of the upstream code."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer

GOLDENS = Path(__file__).parents[1] / "goldens" / "parity"
DROPOUTS = {"ffn_dropout_p": 0.0, "attn_dropout_p": 0.0, "resid_dropout_p": 0.0}
TOKENIZER: dict[str, Any] = {
    **{"d_in": 6, "d_model": 16, "n_heads": 2, "ff_dim": 32, "n_enc_layers": 2, "n_dec_layers": 2},
    **{"s1_bits": 4, "s2_bits": 4, "beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05, "group_size": 4},
    **DROPOUTS,
}
PREDICTOR: dict[str, Any] = {
    **{"s1_bits": 4, "s2_bits": 4, "n_layers": 2, "d_model": 32, "n_heads": 2, "ff_dim": 48},
    **{"token_dropout_p": 0.0, "learn_te": True},
    **DROPOUTS,
}


def tiny_tokenizer(seed: int = 0, **changes: Any) -> KronosTokenizer:
    torch.manual_seed(seed)
    return KronosTokenizer(**(TOKENIZER | changes)).eval()


def tiny_predictor(seed: int = 0, **changes: Any) -> Kronos:
    torch.manual_seed(seed)
    return Kronos(**(PREDICTOR | changes)).eval()


@dataclass(frozen=True)
class Inputs:
    """Random bars as a predictor reads them: ids (B, T), stamps (B, T, 5), events (B, T, 20)."""

    s1: Tensor
    s2: Tensor
    stamp: Tensor
    events: Tensor
    s1_targets: Tensor


def random_inputs(seed: int, batch: int, bars: int, vocabulary: int = 16) -> Inputs:
    g = torch.Generator().manual_seed(seed)
    s1, s2, targets = torch.randint(vocabulary, (3, batch, bars), generator=g)
    events = torch.randn(batch, bars, 20, generator=g)
    return Inputs(s1, s2, random_stamps(g, batch, bars), events, targets)


def random_stamps(g: torch.Generator, batch: int, bars: int) -> Tensor:
    limits = (60, 24, 7, 32, 13)
    return torch.stack([torch.randint(n, (batch, bars), generator=g) for n in limits], dim=-1)


@dataclass(frozen=True)
class Golden:
    name: str
    settings: dict[str, Any]
    cases: dict[str, Tensor]
    states: dict[str, dict[str, Tensor]]
    tokenizer: KronosTokenizer
    model: Kronos


def load_golden(name: str) -> Golden:
    settings = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
    weights = load_file(GOLDENS / f"{name}.weights.safetensors")
    states = {
        part: {k.removeprefix(f"{part}."): v for k, v in weights.items() if k.startswith(f"{part}.")}
        for part in ("tokenizer", "predictor")
    }
    tokenizer = KronosTokenizer(**settings["tokenizer"]).eval()
    tokenizer.load_state_dict(states["tokenizer"])
    model = Kronos(**settings["predictor"]).eval()
    model.load_state_dict(states["predictor"])
    cases = load_file(GOLDENS / f"{name}.cases.safetensors")
    return Golden(name, settings, cases, states, tokenizer, model)


def count_parameters(module: nn.Module) -> int:
    """Scalar parameters, trainable or not; buffers do not count."""
    return sum(parameter.numel() for parameter in module.parameters())
