"""A learnable rational activation, one a group of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.ops.kan import group_rational

# Numerator and denominator that start as a known function. "gelu_published" is the table that the
# Kolmogorov-Arnold transformer ships as "gelu": it was fitted for |b_1 x + ...| and misses GELU by
# up to 1.46 on [-3, 3] in the form that its kernels, and ours, evaluate. "gelu_old" misses by
# 0.0042; "gelu" is our fit of the largest error on [-3, 3], which is 0.0016.
INITIAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "identity": ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
    "gelu": (
        (
            -0.001400092063,
            0.5000897722,
            0.4088866743,
            0.1099694569,
            0.01058796092,
            0.0003417925034,
        ),
        (1.153638568e-05, 0.2199565546, 8.380266716e-06, -0.0006832535184),
    ),
    "gelu_old": (
        (
            -0.0012423594497,
            0.5080497063246,
            0.4158636318294,
            0.1302271868804,
            0.0243559000990,
            0.0029028394816,
        ),
        (-0.0667501569649, 0.1792764621700, 0.0374668260550, 1.656e-10),
    ),
    "gelu_published": (
        (-0.00153969, 0.51692871, 0.44075827, 0.0972553, -0.00884418, -0.00378675),
        (-0.14171056, -0.06481231, -0.0444695, 0.01283776),
    ),
    "swish": (
        (
            3.0549e-7,
            0.5000007853744,
            0.2499978342282,
            0.0532662827322,
            0.0058030345713,
            0.0002751961022,
        ),
        (-4.1116e-6, 0.1065289933501, -1.269e-6, 0.0005502331264),
    ),
    "tanh": (
        (
            -1.0805e-8,
            1.0003008043819,
            -2.5878e-8,
            0.0963212991839,
            3.4776e-9,
            0.0004255709235,
        ),
        (-0.0013027181209, 0.4283490174221, 1.4524e-9, 0.0107966481113),
    ),
}


class GroupRational(nn.Module):
    """A rational function of learnable coefficients, degrees 5 and 4, shared by groups of channels.

    Args:
        groups: G, divides the channels; default 8.
        init: the function to start from: "gelu" (default), "gelu_old", "gelu_published", "swish",
            "tanh" or "identity".
        shared_numerator: one numerator for all groups; default True.
        channel_dim: the axis of the channels; default -1.
        backend: see `saccade.ops.group_rational`.

    Shape:
        any -> the same.

    Source: Kolmogorov-Arnold transformer, arXiv 2409.10594, section 4.

    >>> GroupRational(2, init="identity")(torch.tensor([1.0, -2.0])).tolist()
    [1.0, -2.0]
    """

    def __init__(
        self,
        groups: int = 8,
        *,
        init: str = "gelu",
        shared_numerator: bool = True,
        channel_dim: int = -1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups must be at least 1, got {groups}.")
        if init not in INITIAL:
            raise ValueError(f"init must be one of {', '.join(INITIAL)}, got {init!r}.")
        self.groups, self.init = groups, init
        self.channel_dim, self.backend = channel_dim, backend
        a, b = (torch.tensor(row) for row in INITIAL[init])
        self.numerator = nn.Parameter(a.repeat(1 if shared_numerator else groups, 1))
        self.denominator = nn.Parameter(b.repeat(groups, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each group's function to its channels."""
        return group_rational(
            x,
            self.numerator,
            self.denominator,
            channel_dim=self.channel_dim,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """The arguments, as they stand in `repr`."""
        return f"{self.groups}, init={self.init!r}, channel_dim={self.channel_dim}"
