"""The operators as functions: checked, differentiable, each on the fastest rung that can run."""

from saccade.ops._natten import na1d, na2d, na3d
from saccade.ops._select import explain
from saccade.ops.kan import group_rational, kan_basis, kan_linear
from saccade.ops.neighborhood_attention import merge_attentions, neighborhood_attention

__all__ = [
    "explain",
    "group_rational",
    "kan_basis",
    "kan_linear",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention",
]
