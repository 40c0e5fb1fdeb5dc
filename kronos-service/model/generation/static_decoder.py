"""The predictor bar by bar with shapes that never change, so that a CUDA graph can replay a step.

On a GPU a decoding step is hundreds of kernels that each take less time than starting it; a graph starts them
all at once. It needs every tensor at the same address in the same shape, so caches are as long as they can
become, and what is not there yet is masked. `PathDecoder` computes the same from growing caches.
Letters: B series, P paths, R = B P rows, H heads, T bars of history, S bars of a path, K head size, D width.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from kronos_service.model.generation.cached_blocks import heads_of, rows_of
from kronos_service.model.generation.decoder import ReadHistory
from kronos_service.model.generation.kv_cache import Prefix
from kronos_service.model.kronos import Kronos
from kronos_service.model.layers import Rope, rotate

MOST_IDLE: Final = 4
"""Decoders kept per model: each holds caches of its own, and capturing another takes a second."""
WARM_UPS: Final = 3
"""Steps before a capture: libraries allocate what they need in their first calls."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a decoder is built for; rounded up, so that few of them serve all requests."""

    series: int
    paths: int
    bars: int
    """Of the longest history."""
    ahead: int
    """Bars of a path that are attended to."""
    upstream_decode: bool

    @classmethod
    def of(
        cls, histories: Sequence[ReadHistory], paths: int, horizon: int, *, upstream_decode: bool
    ) -> "Shape":
        """The next larger shape for these histories: a power of two of series, 128 bars, 8 bars ahead."""
        longest = max(one.bars for one in histories)
        return cls(
            series=1 << (len(histories) - 1).bit_length(),
            paths=paths,
            bars=-(-longest // 128) * 128,
            ahead=-(-max(horizon - 1, 1) // 8) * 8,
            upstream_decode=upstream_decode,
        )


class StaticCache:
    """Keys and values of one attention layer, at their full length from the start."""

    def __init__(self, like: Tensor, shape: Shape, heads: int, head_size: int) -> None:
        part = (shape.series, heads)
        self.keys = like.new_zeros(*part, head_size, shape.bars)
        self.values = like.new_zeros(*part, shape.bars, head_size)
        own = (*part, shape.paths, shape.ahead, head_size)
        self.own_keys, self.own_values = like.new_zeros(own), like.new_zeros(own)

    def load(self, prefixes: Sequence[Prefix]) -> None:
        """Take over histories; the bars of the paths are masked until they are written."""
        for series, prefix in enumerate(prefixes):
            bars = prefix.keys.shape[2]
            self.keys[series, :, :, :bars] = prefix.keys
            self.values[series, :, :bars] = prefix.values

    def append(self, keys: Tensor, values: Tensor, step: Tensor) -> None:
        """Keys and values (B, H, P, K) of each path's bar number `step` (1,)."""
        self.own_keys.index_copy_(3, step, keys.unsqueeze(3))
        self.own_values.index_copy_(3, step, values.unsqueeze(3))

    def attend(self, queries: Tensor, masks: tuple[Tensor, Tensor]) -> Tensor:
        """Queries (B, H, P, K) over history and own bars, each with what is added to its scores."""
        queries = queries * queries.shape[-1] ** -0.5
        shared = queries @ self.keys + masks[0]
        own = (queries.unsqueeze(3) @ self.own_keys.mT).squeeze(3) + masks[1]
        weights = torch.cat((shared, own), dim=-1).softmax(-1)
        bars = self.keys.shape[3]
        return weights[..., :bars] @ self.values + (
            weights[..., bars:].unsqueeze(3) @ self.own_values
        ).squeeze(3)


class StaticDecoder:
    """As `PathDecoder`: P paths of each history, all at the same step. On a CUDA device it replays graphs."""

    def __init__(self, model: Kronos, shape: Shape) -> None:
        self.shape = shape
        self._reference = weakref.ref(model)
        like = model.head.proj_s1.weight
        rows, width = shape.series * shape.paths, like.shape[1]
        with torch.inference_mode(False), torch.no_grad():  # so that any later mode may write to them
            whole = torch.zeros(rows, dtype=torch.int64, device=like.device)
            self._s1, self._s2, self._picked = whole, whole.clone(), whole.clone()
            self._hidden = like.new_zeros(rows, width)
            self._future, self._scale, self._shift = (
                like.new_zeros(shape.series, shape.ahead, width) for _ in range(3)
            )
            self._bars = torch.ones(shape.series, 1, dtype=torch.int64, device=like.device)
            self._step = whole.new_zeros(1)
            self._s1_logits = like.new_zeros(rows, like.shape[0])
            self._s2_logits = like.new_zeros(rows, model.head.proj_s2.weight.shape[0])
            blocks = [block.self_attn for block in model.transformer.blocks]
            caches = [
                StaticCache(like, shape, one.n_heads, width // one.n_heads)
                for one in (*blocks, model.dep_layer.cross_attn)
            ]
        self._blocks, self._dependency = caches[:-1], caches[-1]
        self._rows = self._rows_of(range(shape.series))
        self._advance, self._choose = self._compute_advance, self._compute_choice
        if like.device.type == "cuda":
            self._advance, self._choose = _captured(self._advance, self._choose)

    def load(self, histories: Sequence[ReadHistory]) -> None:
        """Start at the last bar of these histories."""
        for part, cache in enumerate(self._blocks):
            cache.load([one.blocks[part] for one in histories])
        self._dependency.load([one.dependency for one in histories])
        self._bars.fill_(1)
        for series, one in enumerate(histories):
            ahead = len(one.future)
            self._bars[series] = one.bars
            self._future[series, :ahead] = one.future
            self._scale[series, :ahead] = one.scale
            self._shift[series, :ahead] = one.shift
            self._hidden.view(self.shape.series, self.shape.paths, -1)[series] = one.hidden
        self._step.zero_()
        self._s1_logits.copy_(self._model.head.proj_s1(self._hidden))
        self._rows = self._rows_of(range(len(histories)))

    def s1_logits(self) -> Tensor:
        """(R, V) of the next bar's s1."""
        return self._s1_logits[self._rows]

    def s2_logits(self, s1: Tensor) -> Tensor:
        """(R, V) of the next bar's s2, given its s1 (R,)."""
        self._picked[self._rows] = s1
        self._choose()
        return self._s2_logits[self._rows]

    def advance(self, s1: Tensor, s2: Tensor) -> None:
        """Append the chosen tokens (R,), (R,) to the paths."""
        self._s1[self._rows], self._s2[self._rows] = s1, s2
        self._advance()

    def keep(self, series: Sequence[int]) -> None:
        """Show the paths of these series only; the others are computed on, for shapes never change."""
        self._rows = self._rows.view(-1, self.shape.paths)[list(series)].flatten()

    @property
    def _model(self) -> Kronos:
        model = self._reference()
        assert model is not None, "the model is gone"
        return model

    def _rows_of(self, series: Sequence[int]) -> Tensor:
        first = torch.tensor(series, device=self._bars.device).unsqueeze(1) * self.shape.paths
        return (first + torch.arange(self.shape.paths, device=first.device)).flatten()

    def _compute_advance(self) -> None:
        """One step of all rows: from the tokens of the newest bar to its hidden state and the next logits."""
        model, shape, embedding = self._model, self.shape, self._model.embedding
        pair = (embedding.emb_s1(self._s1) * embedding.scale, embedding.emb_s2(self._s2) * embedding.scale)
        x = embedding.fusion_proj(torch.cat(pair, -1)) + self._of_step(self._future)
        positions = self._bars + self._step
        masks = self._masks(self._step + 1)
        for block, cache in zip(model.transformer.blocks, self._blocks, strict=True):
            attention, normed = block.self_attn, block.norm1(x)
            rope = attention.rotary(positions)
            queries, keys, values = (
                heads_of(projection(normed), shape.series, attention.n_heads)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            cache.append(rotate(keys, rope), values, self._step)
            x = x + attention.out_proj(rows_of(cache.attend(rotate(queries, rope), masks)))
            x = x + block.ffn(block.norm2(x))
        hidden = model.norm(x) * self._of_step(self._scale) + self._of_step(self._shift)
        self._hidden.copy_(hidden)
        dependency = model.dep_layer.cross_attn
        keys, values = (
            heads_of(projection(hidden), shape.series, dependency.n_heads)
            for projection in (dependency.k_proj, dependency.v_proj)
        )
        self._dependency.append(self._turned(keys, positions), values, self._step)
        self._step += 1
        self._s1_logits.copy_(model.head.proj_s1(hidden))

    def _compute_choice(self) -> None:
        """Logits of s2 of all rows, given the picked s1."""
        model, layer = self._model, self._model.dep_layer
        attention = layer.cross_attn
        sibling = attention.q_proj(model.embedding.emb_s1(self._picked))
        queries = heads_of(sibling, self.shape.series, attention.n_heads)
        queries = self._turned(queries, self._bars + self._step - 1)
        attended = self._dependency.attend(queries, self._masks(self._step))
        conditioned = layer.norm(self._hidden + attention.out_proj(rows_of(attended)))
        self._s2_logits.copy_(model.head.proj_s2(conditioned))

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        # the released code rotates by a query of length 1, which leaves every key at position 0
        rope: Rope = self._model.dep_layer.cross_attn.rotary(positions)
        return x if self.shape.upstream_decode else rotate(x, rope)

    def _of_step(self, ahead: Tensor) -> Tensor:
        """(B, S, D) -> (R, D) of the step."""
        return ahead.index_select(1, self._step).expand(-1, self.shape.paths, -1).flatten(0, 1)

    def _masks(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to scores of history (B, 1, 1, T) and of the first `own` bars of a path (S,)."""
        history = torch.arange(self.shape.bars, device=own.device) >= self._bars
        ahead = torch.arange(self.shape.ahead, device=own.device) >= own
        nothing = self._hidden.new_zeros(())
        shared = nothing.expand(history.shape).masked_fill(history, -torch.inf)
        return shared[:, None, None], nothing.expand(ahead.shape).masked_fill(ahead, -torch.inf)


_idle: "weakref.WeakKeyDictionary[Kronos, list[StaticDecoder]]" = weakref.WeakKeyDictionary()


@contextmanager
def static_decoder(
    model: Kronos, histories: Sequence[ReadHistory], *, paths: int, horizon: int, upstream_decode: bool
) -> Iterator[StaticDecoder]:
    """An idle decoder of the model, or a new one, with these histories; nobody else has it meanwhile."""
    shape = Shape.of(histories, paths, horizon, upstream_decode=upstream_decode)
    idle = _idle.setdefault(model, [])
    found = next((one for one in idle if one.shape == shape), None)
    if found is not None:
        try:
            idle.remove(found)
        except ValueError:  # another thread was faster
            found = None
    decoder = found or StaticDecoder(model, shape)
    decoder.load(histories)
    yield decoder
    idle.insert(0, decoder)
    del idle[MOST_IDLE:]


def _captured(*steps: Callable[[], None]) -> list[Callable[[], None]]:
    """The same steps as CUDA graphs, in one memory pool; each works on tensors that stay where they are."""
    stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
    replays: list[Callable[[], None]] = []
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad():
        for step in steps:
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    step()
            graph = torch.cuda.CUDAGraph()
            # other threads go on using the device meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                step()
            replays.append(graph.replay)
    torch.cuda.current_stream().wait_stream(stream)
    return replays
