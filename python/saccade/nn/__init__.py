"""The operators as torch modules."""

from saccade.nn.kan import FasterKAN, KANLinear
from saccade.nn.logpolar import LogPolar, LogPolarInverse
from saccade.nn.neighborhood_attention import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)

__all__ = [
    "FasterKAN",
    "KANLinear",
    "LogPolar",
    "LogPolarInverse",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
]
