"""The operators as functions: checked, differentiable, each on the fastest rung that can run."""

from saccade.ops._natten import na1d, na2d, na3d
from saccade.ops._scan_conv import causal_conv1d, causal_conv1d_update
from saccade.ops._scan_ssd import ssd_scan
from saccade.ops._select import explain
from saccade.ops.kan import kan_basis, kan_linear
from saccade.ops.neighborhood_attention import merge_attentions, neighborhood_attention
from saccade.ops.scan import selective_scan

__all__ = [
    "causal_conv1d",
    "causal_conv1d_update",
    "explain",
    "kan_basis",
    "kan_linear",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention",
    "selective_scan",
    "ssd_scan",
]
