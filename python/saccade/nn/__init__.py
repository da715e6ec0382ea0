"""The operators as torch modules."""

from saccade.nn.kan import FasterKAN, KANLinear
from saccade.nn.neighborhood_attention import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)
from saccade.nn.scan import Mamba, MambaState, SelectiveScan, SelectiveScan2d

__all__ = [
    "FasterKAN",
    "KANLinear",
    "Mamba",
    "MambaState",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "SelectiveScan",
    "SelectiveScan2d",
]
