"""The normaliser of training and serving, under the name that the request gives it."""

from kronos_shared.normalization import (
    CLIP,
    EPSILON,
    denormalize,
    feature_matrix,
    normalize,
    statistics,
    time_features,
)

__all__ = ["CLIP", "EPSILON", "denormalize", "feature_matrix", "normalize", "statistics", "time_features"]
