"""Every operator in plain torch: float64-capable, differentiable, the truth of the tests."""

from saccade.reference.kan import group_rational, kan_basis, kan_linear
from saccade.reference.neighborhood_attention import neighborhood_attention

__all__ = ["group_rational", "kan_basis", "kan_linear", "neighborhood_attention"]
