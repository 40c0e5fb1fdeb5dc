"""Candles to pairs of tokens and back: a causal transformer autoencoder around a binary spherical quantizer.

Letters: B batch, T bars, D width, C = s1_bits + s2_bits code components.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from kronos_service.model.layers import BlockStack, TransformerBlock
from kronos_service.model.quantizer import BSQuantizer


class TokenizerOutput(NamedTuple):
    """What pretraining needs: two reconstructions (B, T, d_in) and the quantizer's scalar loss."""

    recon_s1: Tensor
    """From the coarse bits alone."""
    recon: Tensor
    """From all bits."""
    quantizer_loss: Tensor


class KronosTokenizer(nn.Module):
    """State-dict compatible with NeoQuasar/Kronos-Tokenizer-base and -2k; arguments as in their config.json.

    As upstream, `n_enc_layers` counts the input projection, so 4 builds 3 blocks; likewise `n_dec_layers`.
    """

    def __init__(
        self,
        d_in: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        n_enc_layers: int,
        n_dec_layers: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        s1_bits: int,
        s2_bits: int,
        beta: float,
        gamma0: float,
        gamma: float,
        zeta: float,
        group_size: int,
    ) -> None:
        self_config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.config: dict[str, Any] = self_config
        self.s1_bits, self.s2_bits = s1_bits, s2_bits

        def blocks(n: int) -> BlockStack:
            dropouts = (ffn_dropout_p, attn_dropout_p, resid_dropout_p)
            return BlockStack(TransformerBlock(d_model, n_heads, ff_dim, *dropouts) for _ in range(n))

        self.embed = nn.Linear(d_in, d_model)
        self.encoder = blocks(n_enc_layers - 1)
        self.quant_embed = nn.Linear(d_model, s1_bits + s2_bits)
        self.tokenizer = BSQuantizer(
            s1_bits, s2_bits, beta=beta, gamma0=gamma0, gamma=gamma, zeta=zeta, group_size=group_size
        )
        self.post_quant_embed_pre = nn.Linear(s1_bits, d_model)
        self.post_quant_embed = nn.Linear(s1_bits + s2_bits, d_model)
        self.decoder = blocks(n_dec_layers - 1)
        self.head = nn.Linear(d_model, d_in)

    def forward(self, x: Tensor) -> TokenizerOutput:
        """Both reconstructions of normalised candles x (B, T, d_in), and the quantizer's loss."""
        codes, loss = self.tokenizer(self._to_codes(x))
        coarse = self.post_quant_embed_pre(codes[..., : self.s1_bits])
        recon_s1 = self.head(self.decoder(coarse))
        recon = self.head(self.decoder(self.post_quant_embed(codes)))
        return TokenizerOutput(recon_s1, recon, loss)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised candles (B, T, d_in) to s1 and s2 ids, int64 (B, T); a bar's ids ignore later bars."""
        return self.tokenizer.ids(self._to_codes(x))

    def decode(self, s1_ids: Tensor, s2_ids: Tensor) -> Tensor:
        """Ids (B, T) to normalised candles (B, T, d_in), causally."""
        codes = self.tokenizer.codes(s1_ids, s2_ids).to(self.head.weight.dtype)
        candles: Tensor = self.head(self.decoder(self.post_quant_embed(codes)))
        return candles

    def _to_codes(self, x: Tensor) -> Tensor:
        z: Tensor = self.quant_embed(self.encoder(self.embed(x)))
        return z
