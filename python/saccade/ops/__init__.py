"""The operators as functions: checked, differentiable, each on the fastest rung that can run."""

from saccade.ops._gem_parts import combine, gram_dot, nnqp
from saccade.ops._natten import na1d, na2d, na3d
from saccade.ops._scan_conv import causal_conv1d, causal_conv1d_update
from saccade.ops._scan_ssd import ssd_scan
from saccade.ops._select import explain
from saccade.ops._spiking_linear import spike_linear
from saccade.ops._statevector_program import (
    Program,
    fixed_angle,
    input_angle,
    instruction,
    param_angle,
    pauli_sums,
)
from saccade.ops._transport_assignment import Assignment, assignment
from saccade.ops._transport_emd import emd
from saccade.ops._transport_lowrank import LowRankResult, sinkhorn_lowrank
from saccade.ops.gem import agem_project, gem_project, gem_project_
from saccade.ops.kan import group_rational, kan_basis, kan_linear
from saccade.ops.logpolar import logpolar_inverse, logpolar_sample
from saccade.ops.neighborhood_attention import merge_attentions, neighborhood_attention
from saccade.ops.scan import selective_scan
from saccade.ops.spiking import affine_lif, lif
from saccade.ops.statevector import probabilities, sample, statevector, statevector_expval
from saccade.ops.transport import OTResult, sinkhorn, sinkhorn_divergence, sinkhorn_points

__all__ = [
    "Assignment",
    "LowRankResult",
    "OTResult",
    "Program",
    "affine_lif",
    "agem_project",
    "assignment",
    "causal_conv1d",
    "causal_conv1d_update",
    "combine",
    "emd",
    "explain",
    "fixed_angle",
    "gem_project",
    "gem_project_",
    "gram_dot",
    "group_rational",
    "input_angle",
    "instruction",
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
    "nnqp",
    "param_angle",
    "pauli_sums",
    "probabilities",
    "sample",
    "selective_scan",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_lowrank",
    "sinkhorn_points",
    "spike_linear",
    "ssd_scan",
    "statevector",
    "statevector_expval",
]
