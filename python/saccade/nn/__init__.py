"""The operators as torch modules."""

from saccade.nn.kan import (
    BSplineKAN,
    BSplineKANLinear,
    ChebyKANLayer,
    FasterKAN,
    FastKAN,
    FastKANLayer,
    FourierKANLayer,
    GroupRational,
    KANLinear,
    WavKANLayer,
)
from saccade.nn.neighborhood_attention import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)

__all__ = [
    "BSplineKAN",
    "BSplineKANLinear",
    "ChebyKANLayer",
    "FastKAN",
    "FastKANLayer",
    "FasterKAN",
    "FourierKANLayer",
    "GroupRational",
    "KANLinear",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "WavKANLayer",
]
