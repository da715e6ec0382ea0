"""Every operator in plain torch: float64-capable, differentiable, the truth of the tests."""

from saccade.reference.gem import combine, gem_project, gram_dot, nnqp
from saccade.reference.kan import kan_basis, kan_linear
from saccade.reference.neighborhood_attention import neighborhood_attention

__all__ = [
    "combine",
    "gem_project",
    "gram_dot",
    "kan_basis",
    "kan_linear",
    "neighborhood_attention",
    "nnqp",
]
