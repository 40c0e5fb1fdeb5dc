"""Token ids of every window, from the frozen tokenizer, computed once and cached on disk.

The tokenizer never changes and neither do the windows, so an epoch would only repeat its work.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.windows import Window
from kronos_service.model.factory import Bundle
from kronos_shared.atomic import replace_file
from kronos_shared.normalization import CLIP, EPSILON, normalize, statistics

Tokens = dict[str, npt.NDArray[np.uint16]]


def normalized_window(series: Sequence[Series], window: Window) -> npt.NDArray[np.float32]:
    """The (stop - start, 6) bars of a window, z-scored by the statistics of its bars before the first
    scored target.
    """
    features = series[window.series].features
    mean, std = statistics(features[window.start : window.first_target])
    return normalize(features[window.start : window.stop], mean, std)


def tokenize(
    bundle: Bundle, series: Sequence[Series], windows: Sequence[Window], *, snapshot_sha256: str, cache: Path
) -> Tokens:
    """Ids `s1` and `s2`, each (W, longest window) uint16 and right-padded with 0, from the cache if they are
    there.

    The cache file is named by the hashes of snapshot and tokenizer, the windows and how they are normalised;
    a damaged one is computed again.
    """
    key = hashlib.sha256(
        json.dumps(
            [
                snapshot_sha256,
                bundle.tokenizer_print.content_sha256,
                [one.symbol for one in series],
                [*map(astuple, windows)],
                [CLIP, EPSILON],
            ]
        ).encode()
    ).hexdigest()[:32]
    path = cache / f"tokens-{key}.safetensors"
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        tokens = _encode(bundle, series, windows)
    replace_file(path, save(tokens))
    return tokens


@torch.inference_mode()
def _encode(bundle: Bundle, series: Sequence[Series], windows: Sequence[Window], batch: int = 64) -> Tokens:
    device = next(bundle.tokenizer.parameters()).device
    longest = max(window.stop - window.start for window in windows)
    tokens = {name: np.zeros((len(windows), longest), dtype=np.uint16) for name in ("s1", "s2")}
    for begin in range(0, len(windows), batch):
        chunk = windows[begin : begin + batch]
        # The tokenizer is causal: padding on the right changes no id before it.
        padded = np.zeros((len(chunk), longest, 6), dtype=np.float32)
        for row, window in enumerate(chunk):
            padded[row, : window.stop - window.start] = normalized_window(series, window)
        ids = bundle.tokenizer.encode(torch.from_numpy(padded).to(device))
        for name, values in zip(("s1", "s2"), ids, strict=True):
            tokens[name][begin : begin + batch] = values.cpu().numpy().astype(np.uint16)
    return tokens
