"""The operators as functions: checked, differentiable, each on the fastest rung that can run."""

from saccade.ops._natten import na1d, na2d, na3d
from saccade.ops._select import explain
from saccade.ops._spike_linear import spike_linear
from saccade.ops.kan import kan_basis, kan_linear
from saccade.ops.logpolar import logpolar_inverse, logpolar_sample
from saccade.ops.neighborhood_attention import merge_attentions, neighborhood_attention
from saccade.ops.spiking import affine_lif, lif

__all__ = [
    "affine_lif",
    "explain",
    "kan_basis",
    "kan_linear",
    "lif",
    "logpolar_inverse",
    "logpolar_sample",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention",
    "spike_linear",
]
