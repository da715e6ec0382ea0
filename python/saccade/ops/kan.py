"""Kolmogorov-Arnold layers: `kan_linear`, `kan_basis` and `group_rational`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade import _load
from saccade.ops import _kan_checks as _arguments
from saccade.ops._autocast import autocast, autocast_dtype
from saccade.ops._kan_op import (
    BASES,
    KanLinear,
    Rational,
    call,
    reference_forward,
    reference_options,
)
from saccade.ops._kernels import wanted
from saccade.ops._select import cuda_obstacle, offer, select_reverse_mode, triton_obstacle
from saccade.reference import kan as reference


def _cpu(x: Tensor) -> str | None:
    if x.device.type not in ("cpu", "meta"):
        return f"the tensors are on {x.device}"
    return None if _load.has("_C") else _load.reason("_C")


def _limits(x: Tensor) -> str | None:
    if x.dtype == torch.float64:
        return "the GPU kernels compute in float32, float64 needs the reference"
    return None


def _cuda(x: Tensor) -> str | None:
    return cuda_obstacle(x) or _limits(x)


def _triton(x: Tensor) -> str | None:
    return triton_obstacle("kan", x) or _limits(x)


offer("kan", cpu=_cpu, cuda=_cuda, triton=_triton)


def kan_basis(x: Tensor, basis: str, **options: Any) -> Tensor:
    r"""Expand every feature of x in a basis of functions.

    .. math::
        \text{bspline: } & \Phi_n = N_{n,k}, \text{ Cox and de Boor's} \\
        \text{gaussian: } & \Phi_n(x) = e^{-((x - c_n) / w)^2} \\
        \text{rswaf: } & \Phi_n(x) = 1 - \tanh^2((x - c_n) s) \\
        \text{chebyshev: } & \Phi_n(x) = T_n(\tanh x), \; n = 0, 1, \ldots \\
        \text{fourier: } & \cos x, \ldots, \cos g x, \sin x, \ldots, \sin g x \\
        \text{wavelet: } & \Phi_{io}(x_i) = \psi((x_i - t_{oi}) / s_{oi})

    Args:
        x: [..., I], any floating dtype, any strides.
        basis: "bspline", "gaussian", "rswaf", "chebyshev", "fourier" or "wavelet".
        options: by basis; tensors among them may want gradients.

            bspline: `grid`, knots in rising order, [m] or [I, m], m = n + order + 1; default: equal
            knots for [-1, 1], 5 intervals here. `order` k, 0 to 5, default 3. `out_of_range`, for
            inputs beyond [a, b] = [t_k, t_n]: "zero" (default) lets the functions run out, "clamp"
            takes the value at the border, "extend" goes on along the tangent.

            gaussian: `centres` [n], default 8 from -2 to 2; `width` > 0, a number or a tensor (one,
            or [n]), default the mean distance of the centres.

            rswaf: `centres` [n], default 8 from -1.2 to 0.2; `inv_width` > 0, as width, default
            0.5; `mode`, "exact" (default) or "fasterkan".

            chebyshev: `num_basis` n, degree + 1, default 8.

            fourier: `include_dc`, put the constant 1 first, default False; `num_basis` n = 2 g (one
            more with the constant), default 8.

            wavelet: `scale`, `shift` [O, I]; `kind`, "mexican_hat" (default), "morlet", "dog",
            "meyer" or "shannon".

    Returns:
        [..., I, n] in the dtype of x; wavelet [..., I, O].

    Raises:
        ValueError: an option's value or shape is wrong, or the basis is unknown.
        TypeError: x is not a floating tensor, or the basis has no such option.

    Notes:
        Plain torch, differentiable to any order (mode "fasterkan" once), deterministic; the
        features and what autograd keeps of them stand in memory, which `kan_linear` avoids.

        Splines are half-open: an input at a knot belongs to the interval above; with "clamp" and
        "extend" the last interval is closed. Where knots coincide 0 / 0 counts as 0. NaN gives NaN.

        Mode "fasterkan" repeats FasterKAN's published code: the forward leaves inv_width out, the
        gradient of x is multiplied by it; centres and inv_width are constants there.

    Source: arXiv 2404.19756 (bspline, as efficient-kan has it), 2405.06721 (gaussian), FasterKAN
        (rswaf; MedViTV2, arXiv 2502.13693, uses centres linspace(-2, 2, 8) and inv_width 1 / 0.33),
        2405.07200 (chebyshev), FourierKAN (fourier), 2405.12832 (wavelet).

    >>> kan_basis(torch.zeros(3), "rswaf", centres=[-1.0, 0.0, 1.0], inv_width=1.0)[0]
    tensor([0.4200, 1.0000, 0.4200])
    """
    _arguments.features(x)
    found = _arguments.options(x, basis, options, None)
    given = reference_options(found.basis, found.options, found.points, found.scales)
    if basis != "wavelet":
        given["num_basis"] = found.num_basis
    return reference.kan_basis(x, basis, **given)


def kan_linear(
    x: Tensor,
    weight: Tensor,
    *,
    basis: str,
    base_weight: Tensor | None = None,
    bias: Tensor | None = None,
    backend: str = "auto",
    **options: Any,
) -> Tensor:
    r"""Apply a learnable sum of basis functions on every edge from input i to output o.

    .. math::
        y_o = \sum_i \sum_n \Phi_n(x_i) W_{oin} \; (+ \sum_i \mathrm{silu}(x_i) W^0_{oi})
        \; (+ b_o)

    Args:
        x: [..., I]; or [..., h, M, I] for one map a head.
        weight: [O, I, n], n >= 1; or [h, O, I, n]. Wavelets have n = 1. Weights that stand in
            memory as [I, n, O] (a permuted view) are read in place, and so is their gradient
            written.
        basis: as in `kan_basis`.
        base_weight: [O, I] ([h, O, I]), the silu branch; default none.
        bias: [O] ([h, O]); default none.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` says which
            and why); "cpu", "cuda", "triton" and "reference" are taken or refused, never replaced.
        options: those of `kan_basis` but num_basis; defaults are made for n = weight.shape[-1].
            A wavelet's scale (default 1) and shift (default 0) are [O, I] ([h, O, I]).

    Returns:
        [..., O] ([..., h, M, O]) in the dtype of x; under autocast in the autocast dtype, the basis
        in float32.

    Raises:
        ValueError: shapes, dtypes, devices, option values or the backend's name are wrong.
        TypeError: a tensor is not floating, or the basis has no such option.
        NotImplementedError: forward-mode derivatives, or the gradient of a grid with
            out_of_range="extend", with a forced backend.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost for B rows: 2 B I O n flops; for splines on the CPU 2 B I O (order + 1), whatever the
        number of intervals; for wavelets B I O evaluations. The backward pass costs twice that.
        Compiled rungs hold no [B, I, n] tensor, in neither pass; the reference does.

        Every input is differentiable: x, weight, base_weight, bias, and the basis's tensors.
        Deterministic; on the CPU the bits do not depend on the number of threads. Half types are
        computed in float32 and rounded once. Double backward recomputes the reference formula, with
        its memory, and only where create_graph=True asks for it. Forward-mode derivatives run on
        the reference.

    Source: arXiv 2404.19756, equation 2.10; the bases as in `kan_basis`.

    >>> x, weight = torch.randn(4, 5, 16), torch.randn(32, 16, 8)
    >>> kan_linear(x, weight, basis="bspline", out_of_range="extend").shape
    torch.Size([4, 5, 32])
    """
    _arguments.features(x)
    _arguments.weights(x, weight, base_weight, bias)
    found = _arguments.options(x, basis, options, weight.shape)
    rung = select_reverse_mode("kan", backend, x)
    if rung != "reference" and _wants_extended_grid(found):
        if backend != "auto":
            raise NotImplementedError(
                'the gradient of a grid with out_of_range="extend" is the reference\'s alone, '
                f"got backend={backend!r}."
            )
        rung = "reference"
    if autocast_dtype(x.device.type) is not None and x.dtype != torch.float64:
        # the basis stays in the type of x, the product is the autocast type's
        weight, base_weight, bias = autocast(x.device.type, (weight, base_weight, bias))
    tensors: tuple[Any, ...] = (weight, base_weight, bias, found.points, found.scales)
    if weight.dim() == 3:
        edge = found.basis == BASES.index("wavelet")
        places = (0, 1, 2, 3, 4) if edge else (0, 1, 2)
        tensors = tuple(
            t.unsqueeze(0) if t is not None and i in places else t for i, t in enumerate(tensors)
        )
        rows = x.reshape(1, -1, x.shape[-1])
    else:
        rows = x.movedim(-3, 0)
        lead = rows.shape[:-1]
        rows = rows.reshape(lead[0], -1, x.shape[-1])
    arguments: tuple[Any, ...] = (rows, *tensors, found.basis, found.options)
    # there is nothing to launch on an empty batch
    if rung == "reference" or 0 in (*rows.shape, *weight.shape):
        y = reference_forward(*arguments)
    elif wanted(*arguments[:6]):
        y = KanLinear.apply(*arguments, rung)
    else:
        y = call(rung, *arguments)
    if weight.dim() == 3:
        return y.reshape(*x.shape[:-1], weight.shape[0])
    return y.reshape(*lead, weight.shape[1]).movedim(0, -3)


def _wants_extended_grid(found: _arguments.Options) -> bool:
    return (
        BASES[found.basis] == "bspline"
        and found.options[1] == 2
        and found.points is not None
        and found.points.requires_grad
        and torch.is_grad_enabled()
    )


def group_rational(
    x: Tensor,
    numerator: Tensor,
    denominator: Tensor,
    *,
    channel_dim: int = -1,
    backend: str = "auto",
) -> Tensor:
    r"""Apply a learnable rational function to every element, one function a group of channels.

    .. math::
        F_g(x) = \frac{a_{g0} + a_{g1} x + \ldots + a_{g,m-1} x^{m-1}}
                      {1 + |b_{g1}| |x| + \ldots + |b_{gn}| |x|^n}

    Args:
        x: any shape with C channels on channel_dim, any floating dtype; channels-last images are
            read in place.
        numerator: a, [G, m] or [1, m] for all groups; 1 <= m <= 9.
        denominator: b, [G, n] or [1, n]; 0 <= n <= 8.
        channel_dim: the axis of the channels; default -1. G divides C; neighbours form a group.
        backend: see `kan_linear`.

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: shapes, dtypes or devices do not fit together.
        TypeError: a tensor is not floating.
        RuntimeError: the forced backend cannot run.

    Notes:
        One pass over x forward, one backward, which recomputes. The gradients of the coefficients
        are summed over a fixed partition, without atomics: two runs give the same bits. The sign of
        0 counts as +1, as in the published kernels; Q has no pole. Half types are computed in
        float32. Under autocast the coefficients take the type of x. Differentiable twice.

    Source: Kolmogorov-Arnold transformer, arXiv 2409.10594, equations 9 to 12; FlashKAT, arXiv
        2505.13813.

    >>> identity = torch.tensor([[0.0, 1.0]]), torch.zeros(1, 4)
    >>> group_rational(torch.arange(3.0), *identity)
    tensor([0., 1., 2.])
    """
    axis = _arguments.rational(x, numerator, denominator, channel_dim)
    numerator, denominator = numerator.to(x.dtype), denominator.to(x.dtype)
    rung = select_reverse_mode("kan", backend, x)
    groups = max(numerator.shape[0], denominator.shape[0])
    last = x.movedim(axis, -1)
    # the memory's order decides: channels inside, or outside, of what follows them
    inside = axis != x.dim() - 1 and last.is_contiguous() and not x.is_contiguous()
    view = last if inside else x
    lead = x.dim() - 1 if inside else axis
    count = 1
    for size in view.shape[:lead]:
        count *= size
    if 0 in x.shape:
        return x.clone()
    rows = view.reshape(count, groups, -1)
    tensors = (rows, numerator, denominator)
    if rung == "reference":
        y = reference.group_rational(*tensors)
    else:
        y = Rational.apply(*tensors, rung)
    y = y.reshape(view.shape)
    return y.movedim(-1, axis) if inside else y
