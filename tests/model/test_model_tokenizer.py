"""The autoencoder around the quantizer: causal, consistent, trainable."""

import torch
from tiny_models import TOKENIZER, tiny_tokenizer

from kronos_service.model.tokenizer import KronosTokenizer


def candles(seed: int, batch: int = 2, bars: int = 24) -> torch.Tensor:
    return torch.randn(batch, bars, 6, generator=torch.Generator().manual_seed(seed))


def test_later_bars_change_no_earlier_id_or_candle(tokenizer: KronosTokenizer) -> None:
    x, other = candles(0), candles(1)
    for t in (0, 7, 22):
        mixed = torch.cat((x[:, : t + 1], other[:, t + 1 :]), dim=1)
        ids, mixed_ids = tokenizer.encode(x), tokenizer.encode(mixed)
        for a, b in zip(ids, mixed_ids, strict=True):
            assert torch.equal(a[:, : t + 1], b[:, : t + 1])
        decoded, mixed_decoded = tokenizer.decode(*ids), tokenizer.decode(*mixed_ids)
        assert torch.equal(decoded[:, : t + 1], mixed_decoded[:, : t + 1])


def test_decoding_ids_gives_the_reconstruction(tokenizer: KronosTokenizer) -> None:
    x = candles(0)
    torch.testing.assert_close(tokenizer.decode(*tokenizer.encode(x)), tokenizer(x).recon)


def test_unequal_bit_counts_come_back_too() -> None:
    uneven = tiny_tokenizer(s1_bits=3, s2_bits=5)
    x = candles(0)
    s1, s2 = uneven.encode(x)
    assert int(s1.max()) < 8
    assert int(s2.max()) > 7
    torch.testing.assert_close(uneven.decode(s1, s2), uneven(x).recon)


def test_the_coarse_reconstruction_ignores_the_fine_bits(tokenizer: KronosTokenizer) -> None:
    x = candles(0)
    before = tokenizer(x).recon_s1
    with torch.no_grad():
        tokenizer.quant_embed.weight[tokenizer.s1_bits :] *= -1
        tokenizer.quant_embed.bias[tokenizer.s1_bits :] *= -1
    assert torch.equal(tokenizer(x).recon_s1, before)


def test_layer_counts_include_the_projection_as_upstream() -> None:
    four = tiny_tokenizer(n_enc_layers=4, n_dec_layers=3)
    assert (len(four.encoder), len(four.decoder)) == (3, 2)


def test_the_constructor_arguments_are_kept(tokenizer: KronosTokenizer) -> None:
    assert tokenizer.config == TOKENIZER


def test_a_few_steps_lower_reconstruction_and_quantizer_loss() -> None:
    tokenizer, x = tiny_tokenizer().train(), candles(3, batch=8)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        out = tokenizer(x)
        loss = ((out.recon - x) ** 2).mean() + ((out.recon_s1 - x) ** 2).mean() + out.quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
