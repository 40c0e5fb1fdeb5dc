"""The known model shapes: constructor arguments, context limits and where the weights come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

PresetName = Literal["nano", "mini", "small", "base"]
BASES: Final = f"{', '.join(get_args(PresetName))} (nano is embedded), a directory, or a hub id owner/name"
"""What a base may be named by, in the words of help and of messages."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One released (or packaged) pair of tokenizer and predictor."""

    tokenizer: Mapping[str, Any]
    """Arguments of `KronosTokenizer`."""
    predictor: Mapping[str, Any]
    """Arguments of `Kronos`."""
    context: int
    """Longest sequence in bars that the predictor was trained on."""
    hub_id: str | None = None
    """Hub repository of the predictor; None for the packaged base."""
    hub_revision: str | None = None
    """Pinned commit; None where we know none and the user must name one."""
    hub_sha256: str | None = None
    """Hash of the predictor's weights file at the pinned commit, where known."""
    tokenizer_hub_id: str | None = None
    tokenizer_revision: str | None = None
    tokenizer_sha256: str | None = None


_DROPOUTS: Final = ("ffn_dropout_p", "attn_dropout_p", "resid_dropout_p", "token_dropout_p")


def _tokenizer(*, d_model: int, ff_dim: int, layers: int, bits: int, group_size: int) -> dict[str, Any]:
    return {
        **{"d_in": 6, "d_model": d_model, "n_heads": 4, "ff_dim": ff_dim},
        **{"n_enc_layers": layers, "n_dec_layers": layers, "s1_bits": bits, "s2_bits": bits},
        **dict.fromkeys(_DROPOUTS[:3], 0.0),
        **{"beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05, "group_size": group_size},
    }


def _predictor(
    *,
    n_layers: int,
    d_model: int,
    n_heads: int,
    ff_dim: int,
    bits: int = 10,
    dropouts: tuple[float, float, float, float] = (0.2, 0.0, 0.2, 0.0),
) -> dict[str, Any]:
    return {
        **{"s1_bits": bits, "s2_bits": bits, "learn_te": True},
        **{"n_layers": n_layers, "d_model": d_model, "n_heads": n_heads, "ff_dim": ff_dim},
        **dict(zip(_DROPOUTS, dropouts, strict=True)),
    }


_TOKENIZER_2K = _tokenizer(d_model=256, ff_dim=512, layers=4, bits=10, group_size=5)
_TOKENIZER_BASE = _tokenizer(d_model=256, ff_dim=512, layers=4, bits=10, group_size=4)
_TOKENIZER_BASE_REVISION = "0e0117387f39004a9016484a186a908917e22426"
_TOKENIZER_BASE_SHA256 = "59d85f6af76a2c3b8240ea06cb21db4213b4eeca053f246b23e29cf832fc6bee"

PRESETS: Final[Mapping[PresetName | str, Preset]] = {
    "nano": Preset(
        tokenizer=_tokenizer(d_model=64, ff_dim=128, layers=2, bits=8, group_size=4),
        predictor=_predictor(
            n_layers=3, d_model=96, n_heads=4, ff_dim=192, bits=8, dropouts=(0.0, 0.0, 0.0, 0.0)
        ),
        context=128,
    ),
    "mini": Preset(
        tokenizer=_TOKENIZER_2K,
        predictor=_predictor(n_layers=4, d_model=256, n_heads=4, ff_dim=512),
        context=2048,
        hub_id="NeoQuasar/Kronos-mini",
        tokenizer_hub_id="NeoQuasar/Kronos-Tokenizer-2k",
    ),
    "small": Preset(
        tokenizer=_TOKENIZER_BASE,
        predictor=_predictor(
            n_layers=8, d_model=512, n_heads=8, ff_dim=1024, dropouts=(0.25, 0.1, 0.25, 0.1)
        ),
        context=512,
        hub_id="NeoQuasar/Kronos-small",
        hub_revision="901c26c1332695a2a8f243eb2f37243a37bea320",
        hub_sha256="b082dfcbd8e8c142a725c8bbb99781802f38fec81210e13479effb32b3c3e020",
        tokenizer_hub_id="NeoQuasar/Kronos-Tokenizer-base",
        tokenizer_revision=_TOKENIZER_BASE_REVISION,
        tokenizer_sha256=_TOKENIZER_BASE_SHA256,
    ),
    "base": Preset(
        tokenizer=_TOKENIZER_BASE,
        predictor=_predictor(n_layers=12, d_model=832, n_heads=16, ff_dim=2048),
        context=512,
        hub_id="NeoQuasar/Kronos-base",
        hub_revision="2b554741eca47781b64468546e77fef3e85130e6",
        tokenizer_hub_id="NeoQuasar/Kronos-Tokenizer-base",
        tokenizer_revision=_TOKENIZER_BASE_REVISION,
        tokenizer_sha256=_TOKENIZER_BASE_SHA256,
    ),
}
"""By short name. The three released ones are NeoQuasar's; nano is ours and ships with the package."""
