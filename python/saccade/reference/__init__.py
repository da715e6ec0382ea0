"""Every operator in plain torch: float64-capable, differentiable, the truth of the tests."""

from saccade.reference._transport_exact import assignment, emd
from saccade.reference.gem import combine, gem_project, gram_dot, nnqp
from saccade.reference.kan import group_rational, kan_basis, kan_linear
from saccade.reference.logpolar import logpolar_inverse, logpolar_sample
from saccade.reference.neighborhood_attention import neighborhood_attention
from saccade.reference.scan import causal_conv1d, selective_scan, ssd_scan
from saccade.reference.spiking import lif, spike_linear
from saccade.reference.statevector import statevector, statevector_expval
from saccade.reference.transport import point_costs, sinkhorn, sinkhorn_gradients

__all__ = [
    "assignment",
    "causal_conv1d",
    "combine",
    "emd",
    "gem_project",
    "gram_dot",
    "group_rational",
    "kan_basis",
    "kan_linear",
    "lif",
    "logpolar_inverse",
    "logpolar_sample",
    "neighborhood_attention",
    "nnqp",
    "point_costs",
    "selective_scan",
    "sinkhorn",
    "sinkhorn_gradients",
    "spike_linear",
    "ssd_scan",
    "statevector",
    "statevector_expval",
]
