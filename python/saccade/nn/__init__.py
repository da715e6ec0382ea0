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
from saccade.nn.logpolar import LogPolar, LogPolarInverse
from saccade.nn.neighborhood_attention import (
    NeighborhoodAttention1d,
    NeighborhoodAttention2d,
    NeighborhoodAttention3d,
)
from saccade.nn.scan import Mamba, MambaState, SelectiveScan, SelectiveScan2d
from saccade.nn.spiking import IFNode, Leaky, LIFNode, ParametricLIFNode, reset_net
from saccade.nn.statevector import QuantumLayer
from saccade.nn.transport import Sinkhorn, SinkhornLoss

__all__ = [
    "BSplineKAN",
    "BSplineKANLinear",
    "ChebyKANLayer",
    "FastKAN",
    "FastKANLayer",
    "FasterKAN",
    "FourierKANLayer",
    "GroupRational",
    "IFNode",
    "KANLinear",
    "LIFNode",
    "Leaky",
    "LogPolar",
    "LogPolarInverse",
    "Mamba",
    "MambaState",
    "NeighborhoodAttention1d",
    "NeighborhoodAttention2d",
    "NeighborhoodAttention3d",
    "ParametricLIFNode",
    "QuantumLayer",
    "SelectiveScan",
    "SelectiveScan2d",
    "Sinkhorn",
    "SinkhornLoss",
    "WavKANLayer",
    "reset_net",
]
