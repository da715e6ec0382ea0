"""cosFormer's attention: ReLU features and a cosine of the distance, in time linear in the tokens.

"cosFormer: Rethinking Softmax in Attention", Zhen Qin et al., 2022. https://arxiv.org/abs/2202.08791
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from saccade.models._layers import no_autocast

# Tokens that are compared pair by pair in the causal form; between such groups runs a state.
CHUNK = 64


def cosformer_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    eps: float = 1e-6,
    max_length: int | None = None,
) -> Tensor:
    r"""Attention with a similarity that splits into a product, so that no N x N matrix is made.

    .. math:: s_{ij} = \mathrm{ReLU}(q_i) \cdot \mathrm{ReLU}(k_j) \cos \frac{\pi (i - j)}{2 M},
              \quad y_i = \frac{\sum_j s_{ij} v_j}{\max(\sum_j s_{ij}, \epsilon)}

    Args:
        q: [..., N, D].
        k: [..., L, D]; L = N where `causal`.
        v: [..., L, E].
        causal: token i sees tokens 1 to i alone.
        eps: least denominator; a query without a positive component gives 0.
        max_length: M, at least N and L; default the larger of both.

    Returns:
        [..., N, E], in the type of v; computed in float32 at least.

    Raises:
        ValueError: M or eps out of range, or sequences of two lengths where `causal`.

    Notes:
        4 N D E multiply-accumulates, where the explicit form has N^2 (D + E): less from N = 2 D on.
        The causal form works in chunks of 64 tokens: a value that is not finite makes its chunk so.

    Source:
        equations 9 to 12; positions count from 1.

    >>> x = torch.ones(1, 3, 2)
    >>> cosformer_attention(x, x, torch.tensor([[[1.0], [1.0], [1.0]]])).flatten().tolist()
    [1.0, 1.0, 1.0]
    """
    queries, keys = q.shape[-2], k.shape[-2]
    longest = max(queries, keys)
    length = longest if max_length is None else max_length
    if length < longest:
        raise ValueError(f"max_length must be at least {longest}, the tokens, got {length}.")
    if not eps > 0:
        raise ValueError(f"eps must be above 0, got {eps}.")
    if causal and queries != keys:
        raise ValueError(
            f"causal attention needs as many queries as keys, got {queries} and {keys}."
        )
    wide = torch.promote_types(v.dtype, torch.float32)
    with no_autocast(q.device):
        q, k = (_features(x.to(wide), length) for x in (q, k))
        # a last column of ones gives the denominator
        values = F.pad(v.to(wide), (0, 1), value=1.0)
        sums = _causal(q, k, values) if causal else q @ (k.mT @ values)
        y = sums[..., :-1] / sums[..., -1:].clamp(min=eps)
    return y.to(v.dtype)


def _features(x: Tensor, length: int) -> Tensor:
    """[..., N, D] -> [..., N, 2 D]: ReLU(x) by the sine and by the cosine of the position."""
    angle = torch.arange(1, x.shape[-2] + 1, device=x.device, dtype=x.dtype)
    angle = (angle * (math.pi / (2 * length))).unsqueeze(-1)
    x = x.relu()
    return torch.cat([x * angle.sin(), x * angle.cos()], -1)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Sums over the tokens up to each one, by chunks: inside them pairs, before them a state."""
    tokens = q.shape[-2]
    q, k, v = (F.pad(x, (0, 0, 0, -tokens % CHUNK)).unflatten(-2, (-1, CHUNK)) for x in (q, k, v))
    state = (k.mT @ v).cumsum(-3)
    before = F.pad(state[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    sums = (q @ k.mT).tril() @ v + q @ before
    return sums.flatten(-3, -2)[..., :tokens, :]
