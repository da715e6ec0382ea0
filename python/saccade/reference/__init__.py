"""Every operator in plain torch: float64-capable, differentiable, the truth of the tests."""

from saccade.reference.kan import kan_basis, kan_linear
from saccade.reference.logpolar import logpolar_inverse, logpolar_sample
from saccade.reference.neighborhood_attention import neighborhood_attention
from saccade.reference.spiking import lif, spike_linear

__all__ = [
    "kan_basis",
    "kan_linear",
    "lif",
    "logpolar_inverse",
    "logpolar_sample",
    "neighborhood_attention",
    "spike_linear",
]
