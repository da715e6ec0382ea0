"""The operators as functions: checked, differentiable, each on the fastest rung that can run."""

from saccade.ops._gem_parts import combine, gram_dot, nnqp
from saccade.ops._natten import na1d, na2d, na3d
from saccade.ops._select import explain
from saccade.ops.gem import agem_project, gem_project, gem_project_
from saccade.ops.kan import kan_basis, kan_linear
from saccade.ops.neighborhood_attention import merge_attentions, neighborhood_attention

__all__ = [
    "agem_project",
    "combine",
    "explain",
    "gem_project",
    "gem_project_",
    "gram_dot",
    "kan_basis",
    "kan_linear",
    "merge_attentions",
    "na1d",
    "na2d",
    "na3d",
    "neighborhood_attention",
    "nnqp",
]
