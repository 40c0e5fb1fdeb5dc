"""The predictor: from a history of token pairs to the next bar's coarse token s1, then to its fine one, s2.

State-dict compatible with NeoQuasar/Kronos-mini, -small and -base.
Letters: B batch, T bars, P positions asked for, C event channels, D width, V vocabulary, K head size.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.model.event_embedding import TAPS, EventEmbedding
from kronos_service.model.layers import Attention, BlockStack, RMSNorm, TransformerBlock, rotate

DEPENDENCY_HEADS = 4
STAMP_SIZES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}


def take_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Rows of x (B, T, D) at int64 positions (B, P) -> (B, P, D)."""
    return x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class HierarchicalEmbedding(nn.Module):
    """One vector per bar from its two token ids."""

    def __init__(self, s1_bits: int, s2_bits: int, d_model: int) -> None:
        super().__init__()
        self.emb_s1 = nn.Embedding(2**s1_bits, d_model)
        self.emb_s2 = nn.Embedding(2**s2_bits, d_model)
        self.fusion_proj = nn.Linear(2 * d_model, d_model)
        self.scale = math.sqrt(d_model)

    def forward(self, s1_ids: Tensor, s2_ids: Tensor) -> Tensor:
        pair = torch.cat((self.emb_s1(s1_ids) * self.scale, self.emb_s2(s2_ids) * self.scale), dim=-1)
        out: Tensor = self.fusion_proj(pair)
        return out


class FixedEmbedding(nn.Module):
    """A sinusoidal table that is not trained; a checkpoint's own table replaces it."""

    def __init__(self, size: int, d_model: int) -> None:
        super().__init__()
        frequencies = (torch.arange(0, d_model, 2).float() * -(math.log(10000.0) / d_model)).exp()
        angles = torch.arange(size).float().unsqueeze(1) * frequencies
        self.emb = nn.Embedding(size, d_model)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
        self.emb.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.emb(ids)
        return out


class TemporalEmbedding(nn.Module):
    """Sum of one vector per calendar field of the stamp (B, T, 5) [minute, hour, weekday, day, month]."""

    def __init__(self, d_model: int, learn_te: bool) -> None:
        super().__init__()
        table = nn.Embedding if learn_te else FixedEmbedding
        for field, size in STAMP_SIZES.items():
            self.add_module(f"{field}_embed", table(size, d_model))

    def forward(self, stamp: Tensor) -> Tensor:
        minute, hour, weekday, day, month = (
            self.get_submodule(f"{field}_embed")(stamp[..., i]) for i, field in enumerate(STAMP_SIZES)
        )
        # upstream's order of summation, so that the last bit agrees
        out: Tensor = hour + weekday + day + month + minute
        return out


class CrossAttention(Attention):
    """Queries from the sibling token, keys and values from the hidden states."""

    def forward(self, query: Tensor, h: Tensor, positions: Tensor | None, rotary: bool) -> Tensor:
        q, k, v = self.split(self.q_proj(query)), self.split(self.k_proj(h)), self.split(self.v_proj(h))
        keys = torch.arange(h.shape[1], device=h.device)
        if rotary:
            q = rotate(q, self.rotary(keys if positions is None else positions))
            k = rotate(k, self.rotary(keys))
        if positions is None:
            return self.attend(q, k, v, mask=None, causal=True)
        mask = (keys <= positions.unsqueeze(-1)).unsqueeze(1)  # (B, 1, P, T)
        return self.attend(q, k, v, mask=mask, causal=False)


class DependencyAwareLayer(nn.Module):
    """Tells the hidden state which s1 was chosen, so that s2 can depend on it; causal in either mode."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.cross_attn = CrossAttention(d_model, DEPENDENCY_HEADS)
        self.norm = RMSNorm(d_model)

    def forward(
        self, h: Tensor, sibling: Tensor, positions: Tensor | None = None, rotary: bool = True
    ) -> Tensor:
        """h (B, T, D) and sibling embeddings (B, P, D) at `positions` (B, P); None means all T."""
        residual = h if positions is None else take_positions(h, positions)
        out: Tensor = self.norm(residual + self.cross_attn(sibling, h, positions, rotary))
        return out


class DualHead(nn.Module):
    """One projection per token half."""

    def __init__(self, s1_bits: int, s2_bits: int, d_model: int) -> None:
        super().__init__()
        self.proj_s1 = nn.Linear(d_model, 2**s1_bits)
        self.proj_s2 = nn.Linear(d_model, 2**s2_bits)


class Kronos(nn.Module):
    """The predictor; arguments as in the released config.json.

    Batches are padded on the right; causality makes a padding mask unnecessary. `event_emb` starts as None.
    """

    event_emb: EventEmbedding | None

    def __init__(
        self,
        s1_bits: int,
        s2_bits: int,
        n_layers: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        token_dropout_p: float,
        learn_te: bool,
    ) -> None:
        self_config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.config: dict[str, Any] = self_config
        self.s1_bits, self.s2_bits, self.d_model = s1_bits, s2_bits, d_model
        dropouts = (ffn_dropout_p, attn_dropout_p, resid_dropout_p)
        self.token_drop = nn.Dropout(token_dropout_p)
        self.embedding = HierarchicalEmbedding(s1_bits, s2_bits, d_model)
        self.time_emb = TemporalEmbedding(d_model, learn_te)
        self.transformer = BlockStack(
            TransformerBlock(d_model, n_heads, ff_dim, *dropouts) for _ in range(n_layers)
        )
        self.norm = RMSNorm(d_model)
        self.dep_layer = DependencyAwareLayer(d_model)
        self.head = DualHead(s1_bits, s2_bits, d_model)
        self.register_module("event_emb", None)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding) and module.weight.requires_grad:
            nn.init.normal_(module.weight, std=self.d_model**-0.5)

    @property
    def n_channels(self) -> int:
        """Channels that its event embedding reads; 0 without one."""
        return 0 if self.event_emb is None else self.event_emb.n_channels

    def attach_event_embedding(
        self,
        taps: Sequence[str] = TAPS,
        width: int = 256,
        *,
        n_channels: int = len(DEFAULT_TAXONOMY.channels),
    ) -> EventEmbedding:
        """Give the model a fresh event embedding (it changes nothing until trained) and return it."""
        reference = self.head.proj_s1.weight
        event_emb = EventEmbedding(self.d_model, taps, n_channels=n_channels, width=width)
        self.event_emb = event_emb.to(reference.device, reference.dtype)
        return self.event_emb

    def forward(
        self,
        s1_ids: Tensor,
        s2_ids: Tensor,
        stamp: Tensor,
        *,
        events: Tensor | None = None,
        s1_targets: Tensor,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Teacher-forced logits of the next bar's tokens.

        Args:
            s1_ids, s2_ids: (B, T) int64 tokens of the bars.
            stamp: (B, T, 5) int64 calendar fields of the same bars.
            events: (B, T, C) conditioning about each position's next bar; None is the plain base.
            s1_targets: (B, T) int64, at position i the s1 of bar i + 1.
            positions: (B, P) int64; compute logits only there. None means all T.

        Returns:
            s1 and s2 logits, each (B, P, V); those at a position depend on nothing after it.
        """
        h = self.hidden(s1_ids, s2_ids, stamp, events=events)
        if positions is None:
            return self.s1_logits(h), self.s2_logits(h, s1_targets)
        s1_logits = self.s1_logits(take_positions(h, positions))
        return s1_logits, self.s2_logits(h, s1_targets.gather(1, positions), positions)

    def hidden(
        self, s1_ids: Tensor, s2_ids: Tensor, stamp: Tensor, *, events: Tensor | None = None
    ) -> Tensor:
        """Final hidden states (B, T, D) after the last norm and, with events, the output injection."""
        x = self.embedding(s1_ids, s2_ids) + self.time_emb(stamp)
        if events is None:
            plain: Tensor = self.norm(self.transformer(self.token_drop(x)))
            return plain
        if self.event_emb is None:
            raise ValueError("events were given, but the model has no event embedding: attach one first")
        features = self.event_emb.features(events)
        x = self.event_emb.add_to_input(x, features)
        h = self.norm(self.transformer(self.token_drop(x)))
        return self.event_emb.modulate_output(h, features)

    def s1_logits(self, h: Tensor) -> Tensor:
        """Hidden states (..., D) -> logits (..., V) of the next s1."""
        logits: Tensor = self.head.proj_s1(h)
        return logits

    def s2_logits(
        self, h: Tensor, s1_ids: Tensor, positions: Tensor | None = None, *, upstream_decode: bool = False
    ) -> Tensor:
        """Logits of the next s2 where s1 is chosen.

        Args:
            h: (B, T, D) hidden states.
            s1_ids: the chosen s1, (B, P) at `positions` (B, P), or (B, T) when that is None. Positions may
                repeat: several choices at one position are scored in one call.
            upstream_decode: leave out the rotary angles, as the released single-step code does in effect (it
                rotates by the query's length of 1, so every key sits at position 0). For parity only.
        """
        sibling = self.embedding.emb_s1(s1_ids)
        conditioned = self.dep_layer(h, sibling, positions, rotary=not upstream_decode)
        logits: Tensor = self.head.proj_s2(conditioned)
        return logits
