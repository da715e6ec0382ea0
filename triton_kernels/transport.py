"""Entropic optimal transport in Triton, and the ops `saccade_triton::sinkhorn_*`.

    P_ij = exp((f_i + g_j - C_ij) / eps),  f_i = eps (log a_i - log sum_j exp((g_j - C_ij) / eps))

Layouts, arguments and results are those of `saccade::sinkhorn_*`. A problem of up to 16,384 padded
numbers is solved in the registers of one program, in one launch, and so is the system of its
gradient; others take a launch a side and sweep, with costs of points computed tile by tile and
never stored. Everything is float32, sums over a whole problem float64; matrices are read where they
lie. A problem that is done makes its part of later launches return at once; whether all are done is
looked up every 16 sweeps or steps, except while a CUDA graph is captured.

Source: Cuturi, arXiv 1306.0895; Chizat et al., arXiv 1607.05816.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saccade.triton_kernels._launch import Launch, device_of, interpreted
from saccade.triton_kernels._transport.adjoint_launches import (
    Adjoint,
    begin,
    cost_launch,
    kept_launch,
    multiply_launch,
    points_launch,
    set_residual,
    step_launch,
    weigh_launch,
    weights_launch,
)
from saccade.triton_kernels._transport.launches import (
    METRICS,
    Costs,
    Options,
    Solving,
    conclude_launch,
    finish_launch,
    most_sweeps,
    range_launch,
    solve_launch,
    start,
    update_launch,
)
from saccade.triton_kernels._transport.sweeps import conclude

__all__ = ["backward", "forward", "points_backward", "points_forward"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LOOK = 16

_OPTIONS = (
    "float eps, float rho_a, float rho_b, bool kl, int max_iter, float tol, float eps_scaling"
)
_SMALL = (
    "Tensor f, Tensor g, Tensor value, Tensor value_linear, Tensor n_iter, Tensor err, "
    "Tensor status"
)
_GRADS = "Tensor? grad_f, Tensor? grad_g, Tensor? grad_value, Tensor? grad_value_linear"
_SCHEMAS = {
    "sinkhorn_backward": (
        f"(Tensor? grad_plan, {_GRADS}, Tensor cost, Tensor a, Tensor b, Tensor plan, Tensor f, "
        "Tensor g, float eps, float rho_a, float rho_b, bool kl) "
        "-> (Tensor grad_cost, Tensor grad_a, Tensor grad_b)"
    ),
    "sinkhorn_forward": (
        f"(Tensor cost, Tensor a, Tensor b, Tensor? init_f, Tensor? init_g, {_OPTIONS}) "
        f"-> (Tensor plan, {_SMALL})"
    ),
    "sinkhorn_points_backward": (
        f"({_GRADS}, Tensor x, Tensor y, Tensor a, Tensor b, Tensor f, Tensor g, int metric, "
        "float eps, float rho_a, float rho_b, bool kl) "
        "-> (Tensor grad_x, Tensor grad_y, Tensor grad_a, Tensor grad_b)"
    ),
    "sinkhorn_points_forward": (
        "(Tensor x, Tensor y, Tensor a, Tensor b, Tensor? init_f, Tensor? init_g, int metric, "
        f"{_OPTIONS}) -> ({_SMALL})"
    ),
}


def _check(name: str, main: Tensor, a: Tensor, b: Tensor, n: int, m: int) -> None:
    if main.dtype not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES)
        raise NotImplementedError(f"The Triton kernels take {known}, got {main.dtype}.")
    for weight, count, letter, axis in ((a, n, "a", "n"), (b, m, "b", "m")):
        if weight.shape != (main.shape[0], count):
            raise ValueError(
                f"{letter} must have shape [B, {axis}] = [{main.shape[0]}, {count}], "
                f"got {tuple(weight.shape)}."
            )
        if weight.dtype != torch.float32:
            raise TypeError(f"{letter} must be float32, got {weight.dtype}.")
    if interpreted(conclude):
        if main.dtype == torch.bfloat16:
            raise NotImplementedError(
                "Triton's interpreter computes bfloat16 wrongly: use float32 or float16 there."
            )
    elif not main.is_cuda:
        raise NotImplementedError(
            f"The Triton kernels run on a GPU, got {name} on {main.device}; with "
            "TRITON_INTERPRET=1 set before the first import they run on the CPU, in Triton's "
            "interpreter."
        )


def _matrix(cost: Tensor, a: Tensor, b: Tensor) -> Costs:
    if cost.dim() != 3:
        raise ValueError(f"cost must have shape [B, n, m], got {tuple(cost.shape)}.")
    _check("cost", cost, a, b, *cost.shape[1:])
    return Costs.of_matrix(cost)


def _points(x: Tensor, y: Tensor, a: Tensor, b: Tensor, metric: int) -> Costs:
    if x.dim() != 3 or y.dim() != 3 or x.shape[::2] != y.shape[::2]:
        raise ValueError(
            "x must have shape [B, n, D] and y [B, m, D], "
            f"got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if x.dtype != y.dtype:
        raise TypeError(f"y must have x's dtype {x.dtype}, got {y.dtype}.")
    if metric not in METRICS:
        raise ValueError(f"metric must be 0, 1 or 2, got {metric}.")
    _check("x", x, a, b, x.shape[1], y.shape[1])
    return Costs.of_points(x, y, metric)


def all_done(done: Tensor) -> bool:
    """Ask the device, which waits for it; not while a graph is being captured."""
    if done.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return bool((done != 0).all())


def _sweep(s: Solving) -> None:
    """All sweeps of problems of many programs."""
    costs, options = s.costs, s.options
    if options.scaling > 0:
        launch, least, largest = range_launch(costs)
        launch.run()
        low, high = least.amin(1).double(), largest.amax(1).double()
        spread = torch.where(high > low, high - low, 0.0)
        s.states[0][:, 0] = torch.maximum(s.states[0][:, 0], spread)
    pairs: list[tuple[Launch, Launch]] = [
        (update_launch(s, True, turn), update_launch(s, False, turn)) for turn in range(2)
    ]
    may_end = options.tol > 0 or options.scaling > 0
    for sweep in range(most_sweeps(options)):
        for launch in pairs[sweep % 2]:
            launch.run()
        if may_end and sweep % LOOK == LOOK - 1 and all_done(s.states[1 - sweep % 2][:, 2]):
            break
    if sweep % 2 == 0:
        s.states = s.states[1], s.states[0]
    finish_launch(s).run()


def _run(
    costs: Costs, main: Tensor, a: Tensor, b: Tensor, init_f: Tensor | None,
    init_g: Tensor | None, options: Options, plan: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    init = None if init_f is None or init_g is None else (init_f.contiguous(), init_g.contiguous())
    tolerance = 1e-5 if main.dtype == torch.float32 else 1e-2
    with device_of(main):
        s = start(costs, a.contiguous(), b.contiguous(), init, options, plan)
        if costs.kept:
            solve_launch(s).run()
        else:
            _sweep(s)
        launch, results = conclude_launch(s, tolerance, s.states[0])
        launch.run()
    return s.f, s.g, *results


def forward(
    cost: Tensor, a: Tensor, b: Tensor, init_f: Tensor | None, init_g: Tensor | None, eps: float,
    rho_a: float, rho_b: float, kl: bool, max_iter: int, tol: float, eps_scaling: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Plan, f, g, value, value_linear, n_iter, err and status of costs [B, n, m]."""
    options = Options(eps, rho_a, rho_b, kl, max_iter, tol, eps_scaling)
    costs = _matrix(cost, a, b)
    plan = cost.new_empty(cost.shape)
    return plan, *_run(costs, cost, a, b, init_f, init_g, options, plan)


def points_forward(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, init_f: Tensor | None, init_g: Tensor | None,
    metric: int, eps: float, rho_a: float, rho_b: float, kl: bool, max_iter: int, tol: float,
    eps_scaling: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    """f, g, value, value_linear, n_iter, err and status of points [B, n, D] and [B, m, D]."""
    options = Options(eps, rho_a, rho_b, kl, max_iter, tol, eps_scaling)
    costs = _points(x, y, a, b, metric)
    return _run(costs, x, a, b, init_f, init_g, options, None)


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _solve_system(s: Adjoint) -> None:
    """Fill the sums and the solutions of both sides, a launch a product."""
    p, q = torch.empty_like(s.x), torch.empty_like(s.y)
    weigh_launch(s, True, p).run()
    weigh_launch(s, False, q).run()
    if not s.system:
        s.x.zero_()
        s.y.zero_()
        return
    way = begin(s, p, q)
    multiply_launch(s, False, s.x, None, way.s, way.state).run()
    set_residual(s, way)
    step = [
        multiply_launch(s, True, way.d, way.inverse, way.t, way.state),
        multiply_launch(s, False, way.t, None, way.s, way.state),
        step_launch(s, way.r, way.d, way.s, way.state),
    ]
    for count in range(s.most):
        if count % LOOK == 0 and all_done(way.state[:, 2]):
            break
        for launch in step:
            launch.run()
    way.state.zero_()
    multiply_launch(s, True, s.y, None, way.t, way.state).run()
    s.x = way.inverse * (way.p - way.t)


def _weights(s: Adjoint) -> tuple[Tensor, Tensor]:
    grads = []
    for rows in (True, False):
        launch, out = weights_launch(s, rows)
        launch.run()
        grads.append(out)
    return grads[0], grads[1]


def backward(
    grad_plan: Tensor | None, grad_f: Tensor | None, grad_g: Tensor | None,
    grad_value: Tensor | None, grad_value_linear: Tensor | None, cost: Tensor, a: Tensor,
    b: Tensor, plan: Tensor, f: Tensor, g: Tensor, eps: float, rho_a: float, rho_b: float,
    kl: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of cost, a and b, by the implicit function theorem."""
    s = Adjoint(
        _matrix(cost, a, b), a.contiguous(), b.contiguous(), f.contiguous(), g.contiguous(), plan,
        grad_plan, _dense(grad_f), _dense(grad_g), _dense(grad_value), _dense(grad_value_linear),
        Options(eps, rho_a, rho_b, kl),
    )  # fmt: skip
    of_cost = cost.new_empty(cost.shape)
    with device_of(cost):
        if s.costs.kept:
            kept_launch(s, of_cost).run()
        else:
            _solve_system(s)
            cost_launch(s, of_cost).run()
        return of_cost, *_weights(s)


def points_backward(
    grad_f: Tensor | None, grad_g: Tensor | None, grad_value: Tensor | None,
    grad_value_linear: Tensor | None, x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor,
    g: Tensor, metric: int, eps: float, rho_a: float, rho_b: float, kl: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, y, a and b."""
    s = Adjoint(
        _points(x, y, a, b, metric), a.contiguous(), b.contiguous(), f.contiguous(),
        g.contiguous(), None, None, _dense(grad_f), _dense(grad_g), _dense(grad_value),
        _dense(grad_value_linear), Options(eps, rho_a, rho_b, kl),
    )  # fmt: skip
    with device_of(x):
        _solve_system(s)
        grads = []
        for rows in (True, False):
            launch, out = points_launch(s, rows, x.dtype)
            launch.run()
            grads.append(out)
        return *grads, *_weights(s)


def _small(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    batch = a.shape[:1]
    whole = a.new_empty(batch, dtype=torch.int32)
    return (
        a.new_empty(a.shape), b.new_empty(b.shape), a.new_empty(batch), a.new_empty(batch), whole,
        a.new_empty(batch), torch.empty_like(whole),
    )  # fmt: skip


def _fake_forward(cost: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return cost.new_empty(cost.shape), *_small(a, b)


def _fake_points_forward(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return _small(a, b)


def _fake_backward(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(given.new_empty(given.shape) for given in arguments[5:8])


def _fake_points_backward(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(given.new_empty(given.shape) for given in arguments[4:8])


def _register() -> None:
    """Define the ops once in a process: a second import of this module finds them."""
    implementations: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "sinkhorn_backward": (backward, _fake_backward),
        "sinkhorn_forward": (forward, _fake_forward),
        "sinkhorn_points_backward": (points_backward, _fake_points_backward),
        "sinkhorn_points_forward": (points_forward, _fake_points_forward),
    }
    for name, (function, fake) in implementations.items():
        if not hasattr(torch.ops.saccade_triton, name):
            operator = f"saccade_triton::{name}"
            torch.library.define(operator, _SCHEMAS[name], tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(operator, ("cpu", "cuda"), function)
            torch.library.register_fake(operator, fake)


_register()
