"""What the model learns about events: a small network with two injection points that start as exact zeros.

Letters: B batch, T positions, C event channels, D width of the predictor.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

TAPS = ("input", "output")


class EventEmbedding(nn.Module):
    """Events (B, T, C) -> what to add to the token embedding, and scale and shift of the final hidden state.

    Both injection points are zero at first, so a fresh embedding changes no bit of the model it joins.
    """

    def __init__(
        self, d_model: int, taps: Sequence[str] = TAPS, *, n_channels: int, width: int = 256
    ) -> None:
        super().__init__()
        if not taps or not set(taps) <= set(TAPS):
            raise ValueError(f"taps must be one or both of {', '.join(TAPS)}, got {tuple(taps)}")
        self.taps = tuple(tap for tap in TAPS if tap in taps)
        self.n_channels = n_channels
        self.fc_in = nn.Linear(n_channels, width)
        self.fc_out = nn.Linear(width, width)
        for layer in (self.fc_in, self.fc_out):
            nn.init.xavier_normal_(layer.weight)
        # fc_in keeps its random bias: with every channel at 0 the features are not 0, so an injection point
        # can learn a constant as fast as it learns from events (docs/decisions.md, "The control")
        nn.init.zeros_(self.fc_out.bias)
        self.to_input = nn.Linear(width, d_model) if "input" in taps else None
        self.to_output = nn.Linear(width, 2 * d_model) if "output" in taps else None
        for tap in (self.to_input, self.to_output):
            if tap is not None:
                nn.init.zeros_(tap.weight)
                nn.init.zeros_(tap.bias)

    def features(self, events: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, width); compute once per forward and hand it to both injection points."""
        hidden = F.silu(self.fc_in(events.to(self.fc_in.weight.dtype)))
        out: Tensor = self.fc_out(hidden)
        return out

    def add_to_input(self, x: Tensor, features: Tensor) -> Tensor:
        """Token embedding x (B, T, D) plus what the input point adds."""
        return x if self.to_input is None else x + self.to_input(features)

    def modulate_output(self, h: Tensor, features: Tensor) -> Tensor:
        """Final hidden state h (B, T, D), scaled and shifted by the output point."""
        if self.to_output is None:
            return h
        scale, shift = self.to_output(features).chunk(2, dim=-1)
        modulated: Tensor = h * (1 + scale) + shift
        return modulated
