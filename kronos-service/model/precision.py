"""A model in another precision, beside the one it was made from."""

import copy
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # settings name the precisions, and load nothing heavy
    from torch import Tensor

    from kronos_service.model.kronos import Kronos

Precision = Literal["fp32", "bf16"]


def in_bf16(model: "Kronos") -> "Kronos":
    """A copy of a model with its weights in bf16; positions stay exact, and the original as it is."""
    from torch import nn

    rounded: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().bfloat16(), requires_grad=False)
        for parameter in model.parameters()
    }
    exact = {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, {**rounded, **exact})
