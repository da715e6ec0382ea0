"""NATTEN's function names and argument order, so that its users change one import."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from saccade.ops import _checks
from saccade.ops.neighborhood_attention import Bools, Ints, neighborhood_attention

_NATTEN_BACKENDS = ("cutlass-fna", "hopper-fna", "blackwell-fna", "flex-fna")

# How NATTEN cuts its tiles: our kernels choose for themselves.
_TUNING = (
    "q_tile_shape",
    "kv_tile_shape",
    "backward_q_tile_shape",
    "backward_kv_tile_shape",
    "backward_kv_splits",
    "backward_use_pt_reduction",
    "run_persistent_kernel",
    "kernel_schedule",
    "torch_compile",
    "try_fuse_additional_kv",
)

_Result = Tensor | tuple[Tensor, Tensor]


def _call(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    *,
    attention_kwargs: Any,
    backend: str | None,
    tuning: dict[str, Any],
    **options: Any,
) -> _Result:
    axes = int(name[2])
    _checks.floating_tensor("query", query)
    if query.dim() != axes + 3:
        letters = ["B", *"XYZ"[:axes], "h", "D"]
        raise ValueError(
            f"{name} takes a query of rank {axes + 3} [{', '.join(letters)}], "
            f"got rank {query.dim()} with shape {tuple(query.shape)}."
        )
    for argument in tuning:
        if argument not in _TUNING:
            raise TypeError(f"{name}() got an unexpected keyword argument {argument!r}.")
    if attention_kwargs is not None and not isinstance(attention_kwargs, dict):
        raise TypeError(
            f"attention_kwargs must be a dict or None, got {type(attention_kwargs).__name__}."
        )
    chosen = "auto" if backend is None or backend in _NATTEN_BACKENDS else backend
    result: _Result = neighborhood_attention(
        query, key, value, kernel_size, backend=chosen, **options
    )
    return result


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    backend: str | None = None,
    *,
    bias: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> _Result:
    """Neighborhood attention of a sequence [B, X, h, D], with NATTEN's argument order.

    The arguments are those of :func:`neighborhood_attention`, which does the work. NATTEN's own
    backend names and None mean "auto"; attention_kwargs and NATTEN's tile arguments (q_tile_shape
    and so on) are accepted and ignored.

    Source:
        The arguments of natten.na1d 0.21, arXiv 2504.16922.

    >>> import torch
    >>> x = torch.randn(1, 14, 2, 8)
    >>> na1d(x, x, x, 7, 1, 2).shape
    torch.Size([1, 14, 2, 8])
    """
    return _call(
        "na1d",
        query,
        key,
        value,
        kernel_size,
        stride=stride,
        dilation=dilation,
        is_causal=is_causal,
        scale=scale,
        additional_keys=additional_keys,
        additional_values=additional_values,
        attention_kwargs=attention_kwargs,
        backend=backend,
        bias=bias,
        return_lse=return_lse,
        tuning=tuning,
    )


def na2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    backend: str | None = None,
    *,
    bias: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> _Result:
    """Neighborhood attention of a feature map [B, X, Y, h, D], with NATTEN's argument order.

    The arguments are those of :func:`neighborhood_attention`, which does the work. NATTEN's own
    backend names and None mean "auto"; attention_kwargs and NATTEN's tile arguments (q_tile_shape
    and so on) are accepted and ignored.

    Source:
        The arguments of natten.na2d 0.21, arXiv 2504.16922.

    >>> import torch
    >>> x = torch.randn(1, 14, 9, 2, 8)
    >>> na2d(x, x, x, (7, 9), 1, (2, 1)).shape
    torch.Size([1, 14, 9, 2, 8])
    """
    return _call(
        "na2d",
        query,
        key,
        value,
        kernel_size,
        stride=stride,
        dilation=dilation,
        is_causal=is_causal,
        scale=scale,
        additional_keys=additional_keys,
        additional_values=additional_values,
        attention_kwargs=attention_kwargs,
        backend=backend,
        bias=bias,
        return_lse=return_lse,
        tuning=tuning,
    )


def na3d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Ints,
    stride: Ints = 1,
    dilation: Ints = 1,
    is_causal: Bools = False,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    attention_kwargs: dict[str, Any] | None = None,
    backend: str | None = None,
    *,
    bias: Tensor | None = None,
    return_lse: bool = False,
    **tuning: Any,
) -> _Result:
    """Neighborhood attention of a volume [B, X, Y, Z, h, D], with NATTEN's argument order.

    The arguments are those of :func:`neighborhood_attention`, which does the work. NATTEN's own
    backend names and None mean "auto"; attention_kwargs and NATTEN's tile arguments (q_tile_shape
    and so on) are accepted and ignored.

    Source:
        The arguments of natten.na3d 0.21, arXiv 2504.16922.

    >>> import torch
    >>> x = torch.randn(1, 4, 6, 6, 2, 8)
    >>> na3d(x, x, x, (4, 3, 3)).shape
    torch.Size([1, 4, 6, 6, 2, 8])
    """
    return _call(
        "na3d",
        query,
        key,
        value,
        kernel_size,
        stride=stride,
        dilation=dilation,
        is_causal=is_causal,
        scale=scale,
        additional_keys=additional_keys,
        additional_values=additional_values,
        attention_kwargs=attention_kwargs,
        backend=backend,
        bias=bias,
        return_lse=return_lse,
        tuning=tuning,
    )
