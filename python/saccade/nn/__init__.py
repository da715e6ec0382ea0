"""The operators as torch modules."""

from saccade.nn.kan import FasterKAN, KANLinear
from saccade.nn.logpolar import LogPolar, LogPolarInverse
from saccade.nn.neighborhood_attention import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)
from saccade.nn.spiking import IFNode, Leaky, LIFNode, ParametricLIFNode, reset_net

__all__ = [
    "FasterKAN",
    "IFNode",
    "KANLinear",
    "LIFNode",
    "Leaky",
    "LogPolar",
    "LogPolarInverse",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "ParametricLIFNode",
    "reset_net",
]
