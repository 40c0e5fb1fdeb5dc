"""The linear layers of a base that LoRA can adapt, by the names a user gives them.

A name is the end of the layer's full name, as in peft. `q_proj` to `w2` mean this layer of every transformer
block; in peft `q_proj` alone would also mean the dependency layer's, which is `cross_attn.q_proj` here.
"""

import re
from collections.abc import Collection, Iterable
from typing import Final, Literal, cast, get_args

LinearName = Literal[
    "fusion_proj",
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    "w1",
    "w3",
    "w2",
    "cross_attn.q_proj",
    "cross_attn.k_proj",
    "cross_attn.v_proj",
    "cross_attn.out_proj",
    "proj_s1",
    "proj_s2",
]
ALL_LINEAR: Final = "all-linear"
TargetName = Literal[LinearName, "all-linear"]

LINEAR_NAMES: Final = cast("tuple[LinearName, ...]", get_args(LinearName))
"""In the order in which the network has them."""
HEADS: Final[tuple[LinearName, ...]] = ("proj_s1", "proj_s2")
"""Output layers: as in peft, `all-linear` leaves them out, and a list may name them."""
DEFAULT_TARGETS: Final[tuple[LinearName, ...]] = ("q_proj", "v_proj")

_PARENTS: Final = {
    r"embedding": ("fusion_proj",),
    r"transformer\.\d+\.self_attn": ("q_proj", "k_proj", "v_proj", "out_proj"),
    r"transformer\.\d+\.ffn": ("w1", "w3", "w2"),
    r"dep_layer\.cross_attn": tuple(f"cross_attn.{name}_proj" for name in ("q", "k", "v", "out")),
    r"head": HEADS,
}


def linear_names(chosen: Collection[str]) -> tuple[LinearName, ...]:
    """The layers that a choice means, each once and in the network's order; `all-linear` is all but heads."""
    everything = ALL_LINEAR in chosen
    return tuple(name for name in LINEAR_NAMES if name in chosen or (everything and name not in HEADS))


def target_pattern(names: Collection[LinearName]) -> str:
    """The full names of these layers, as peft's full-match pattern."""
    parts = []
    for parent, children in _PARENTS.items():
        found = [child.removeprefix("cross_attn.") for child in children if child in names]
        if found:
            parts.append(rf"{parent}\.({'|'.join(found)})")
    return "|".join(parts)


def names_of(layers: Iterable[str]) -> tuple[LinearName, ...]:
    """The names that stand for these layers, which are given by their full names."""
    full = list(layers)
    return tuple(
        name for name in LINEAR_NAMES if any(re.fullmatch(target_pattern((name,)), layer) for layer in full)
    )
