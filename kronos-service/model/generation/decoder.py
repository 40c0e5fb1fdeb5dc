"""The predictor bar by bar: each history is read once, then many paths continue from it.

Letters: B series, P paths, R = B P rows, T bars of history, H horizon in bars, C event channels, D width,
V vocabulary size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kronos_service.model.event_embedding import EventEmbedding
from kronos_service.model.generation.cached_blocks import CachedStack, heads_of, prefill, rows_of
from kronos_service.model.generation.kv_cache import PathCache, Prefix
from kronos_service.model.generation.packed_linear import PackedLinear
from kronos_service.model.kronos import Kronos
from kronos_service.model.layers import Attention, Rope, rotate


@dataclass(frozen=True, kw_only=True)
class ReadHistory:
    """What the predictor keeps of one history, and what stamps and events say about the bars to come."""

    bars: int
    hidden: Tensor
    """(1, D), of the last bar."""
    blocks: Sequence[Prefix]
    dependency: Prefix
    future: Tensor
    """(H - 1, D), what stamps and events add to the embedding of each forecast bar's tokens."""
    scale: Tensor
    shift: Tensor
    """(H - 1, D), what events do to the hidden state of each forecast bar."""


def read_history(
    model: Kronos, tokens: Tensor, stamps: Tensor, events: Tensor | None, *, upstream_decode: bool
) -> ReadHistory:
    """Tokens (T, 2), stamps (T + H - 1, 5) and events (T + H - 1, C), in one pass over the T bars."""
    bars = len(tokens)
    conditioning = _Conditioning.of(model, events)
    time = model.time_emb(stamps)
    x = model.embedding(tokens[:, 0], tokens[:, 1]) + time[:bars]
    h, blocks = prefill(model.transformer, conditioning.input(x, slice(bars)).unsqueeze(0))
    h = conditioning.output(model.norm(h), slice(bars))
    ahead = slice(bars, len(stamps))
    # What events do to a hidden state is affine, so probing it at 0 and 1 gives shift and scale of every
    # forecast bar at once; a step then costs two vector operations instead of a pass through the embedding.
    shift = conditioning.output(torch.zeros_like(time[ahead]), ahead)
    return ReadHistory(
        bars=bars,
        hidden=h[0, -1:],
        blocks=blocks,
        dependency=_dependency(model, h, rotary=not upstream_decode),
        future=conditioning.input(time[ahead], ahead),
        scale=conditioning.output(torch.ones_like(time[ahead]), ahead) - shift,
        shift=shift,
    )


def _dependency(model: Kronos, h: Tensor, *, rotary: bool) -> Prefix:
    attention = model.dep_layer.cross_attn
    keys, values = attention.split(attention.k_proj(h)), attention.split(attention.v_proj(h))
    if rotary:
        keys = rotate(keys, attention.rotary(torch.arange(h.shape[1], device=h.device)))
    return Prefix.of(keys[0], values[0])


@dataclass(frozen=True)
class _Conditioning:
    """The event embedding and its features (N, F) of some bars; None is the plain base."""

    known: tuple[EventEmbedding, Tensor] | None

    @classmethod
    def of(cls, model: Kronos, events: Tensor | None) -> "_Conditioning":
        if events is None:
            return cls(None)
        if model.event_emb is None:
            raise ValueError("events were given, but the model has no event embedding: attach one first")
        return cls((model.event_emb, model.event_emb.features(events)))

    def input(self, x: Tensor, bars: slice) -> Tensor:
        return x if self.known is None else self.known[0].add_to_input(x, self.known[1][bars])

    def output(self, h: Tensor, bars: slice) -> Tensor:
        return h if self.known is None else self.known[0].modulate_output(h, self.known[1][bars])


class _CachedDependency:
    """The dependency layer's attention from the drawn coarse token to all hidden states so far."""

    def __init__(self, attention: Attention, prefixes: Sequence[Prefix], paths: int, bars: int) -> None:
        self._series, self._heads = len(prefixes), attention.n_heads
        self._query, self._out = PackedLinear(attention.q_proj), PackedLinear(attention.out_proj)
        self._kv = PackedLinear(attention.k_proj, attention.v_proj)
        self._cache = PathCache(prefixes, paths, bars)

    def append(self, hidden: Tensor, rope: Rope | None) -> None:
        """Remember hidden states (R, D); no `rope` leaves them unrotated."""
        keys, values = (heads_of(x, self._series, self._heads) for x in self._kv(hidden).chunk(2, dim=1))
        self._cache.append(keys if rope is None else rotate(keys, rope), values)

    def keep(self, series: Sequence[int]) -> None:
        """Drop the paths of all other series."""
        self._series = len(series)
        self._cache.keep(series)

    def attend(self, sibling: Tensor, rope: Rope | None) -> Tensor:
        """Embeddings (R, D) of the chosen s1 -> (R, D)."""
        queries = heads_of(self._query(sibling), self._series, self._heads)
        queries = queries if rope is None else rotate(queries, rope)
        return self._out(rows_of(self._cache.attend(queries)))


class PathDecoder:
    """P paths of each history, all at the same step; it starts at the last bar of the histories.

    At each step take `s1_logits`, draw, take `s2_logits`, draw, and `advance` to the drawn bar.
    """

    def __init__(
        self,
        model: Kronos,
        histories: Sequence[ReadHistory],
        *,
        paths: int,
        horizon: int,
        upstream_decode: bool,
    ) -> None:
        self._model, self._histories, self._paths = model, histories, paths
        self._blocks = CachedStack(model.transformer, [one.blocks for one in histories], paths, horizon - 1)
        self._dependency = _CachedDependency(
            model.dep_layer.cross_attn, [one.dependency for one in histories], paths, horizon - 1
        )
        self._fusion = PackedLinear(model.embedding.fusion_proj)
        self._s1_head, self._s2_head = PackedLinear(model.head.proj_s1), PackedLinear(model.head.proj_s2)
        self._hidden = torch.cat([one.hidden for one in histories]).repeat_interleave(paths, 0)
        last = [[one.bars - 1] for one in histories]  # positions differ where histories have other lengths
        self._positions = torch.tensor(last, device=self._hidden.device)
        # the released code rotates by a query of length 1, which leaves every key at position 0
        self._rotary = None if upstream_decode else model.dep_layer.cross_attn.rotary
        self._step = 0

    def s1_logits(self) -> Tensor:
        """(R, V) of the next bar's s1."""
        return self._s1_head(self._hidden)

    def s2_logits(self, s1: Tensor) -> Tensor:
        """(R, V) of the next bar's s2, given its s1 (R,)."""
        sibling = self._model.embedding.emb_s1(s1)
        conditioned = self._hidden + self._dependency.attend(sibling, self._dependency_rope())
        return self._s2_head(self._model.dep_layer.norm(conditioned))

    def advance(self, s1: Tensor, s2: Tensor) -> None:
        """Append the chosen tokens (R,), (R,) to the paths."""
        embedding = self._model.embedding
        pair = torch.cat((embedding.emb_s1(s1) * embedding.scale, embedding.emb_s2(s2) * embedding.scale), -1)
        self._positions = self._positions + 1
        h = self._blocks(self._fusion(pair) + self._of_step("future"), self._positions)
        self._hidden = self._model.norm(h) * self._of_step("scale") + self._of_step("shift")
        self._step += 1
        self._dependency.append(self._hidden, self._dependency_rope())

    def keep(self, series: Sequence[int]) -> None:
        """Drop the paths of all other series; those kept are the same to the last bit."""
        self._histories = [self._histories[one] for one in series]
        self._hidden = self._hidden.view(-1, self._paths, self._hidden.shape[1])[list(series)].flatten(0, 1)
        self._positions = self._positions[list(series)]
        self._blocks.keep(series)
        self._dependency.keep(series)

    def _of_step(self, name: str) -> Tensor:
        rows = torch.stack([getattr(one, name)[self._step] for one in self._histories])
        return rows.repeat_interleave(self._paths, 0)

    def _dependency_rope(self) -> Rope | None:
        return None if self._rotary is None else self._rotary(self._positions)
