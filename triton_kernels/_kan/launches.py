"""From tensors to launches: which kernel, how many programs, which tiles, which tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import triton
from torch import Tensor

from saccade.triton_kernels._kan.bases import BSPLINE, FOURIER, GAUSSIAN, RSWAF, SILU, WAVELET
from saccade.triton_kernels._kan.forward import transform
from saccade.triton_kernels._kan.input_gradient import differentiate_inputs
from saccade.triton_kernels._kan.rational import differentiate_rational, evaluate_rational
from saccade.triton_kernels._kan.wavelet import (
    differentiate_edges,
    differentiate_points,
    transform_edges,
)
from saccade.triton_kernels._kan.weight_gradient import differentiate_weights
from saccade.triton_kernels._launch import Launch

ROWS = 64
# Inputs x functions of a tile: what a product sums over in one step.
DEPTH = 32
# A weight gradient whose tiles do not fill a GPU shares its rows out, by sizes alone.
WANTED_PROGRAMS = 512
LEAST_STEPS = 4
RATIONAL_TILE = 2048


@dataclass
class Gradients:
    """Results of a backward: finished tensors, and tables of partial sums whose first axes are
    summed.
    """

    done: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def collect(self, inputs: dict[str, Tensor | None], like: Tensor) -> tuple[Tensor, ...]:
        """Add the slots up, after the launches; one tensor an input, empty where none was asked
        for.
        """
        for name, (table, target) in self.tables.items():
            extra = tuple(range(table.dim() - target.dim()))
            self.done[name] = target.copy_(table.sum(extra).sum_to_size(target.shape))
        return tuple(
            self.done.get(name, (like if tensor is None else tensor).new_empty(0))
            for name, tensor in inputs.items()
        )


def forward_launch(
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    bias: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
) -> tuple[Launch, Tensor]:
    """The launch of the forward, and the tensor that it fills."""
    heads, rows, inputs = x.shape
    outputs = weight.shape[1]
    out = weight.new_empty((heads, rows, outputs))
    arguments = {
        "x": x.contiguous(),
        "weight": _strided(weight),
        "base_weight": None if base_weight is None else _strided(base_weight),
        "bias": None if bias is None else bias.contiguous(),
        "out": out,
        "rows": rows,
        "inputs": inputs,
        "outputs": outputs,
    }
    # an edge's wavelet is evaluated by every row: a small tile keeps it in registers
    width = _width(outputs, 32 if basis == WAVELET else _most_outputs(weight))
    constants = {"ROWS": ROWS, "OUTPUTS": width, "BASE_INPUTS": DEPTH, "PRECISION": "ieee"}
    grid = heads * triton.cdiv(rows, ROWS) * triton.cdiv(outputs, width)
    if basis == WAVELET:
        arguments |= {"shift": _dense(points), "scale": _dense(scales)}
        return Launch(transform_edges, grid, arguments, constants | {"KIND": options[0]}, 4, 2), out
    arguments |= _functions(x, weight, points, scales, basis)
    constants |= _basis(basis, options) | _depth(weight.shape[3])
    return Launch(transform, grid, arguments, constants, _warps(weight, width), 2), out


def backward_launches(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    base_weight: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
    wanted: Sequence[int],
) -> tuple[list[Launch], Gradients]:
    """The launches of a backward, in order, and the tensors that they fill."""
    x, grad_out = x.contiguous(), grad_out.contiguous()
    launches: list[Launch] = []
    gradients = Gradients()
    base = None
    if base_weight is not None and wanted[2]:
        target = torch.empty_like(base_weight, memory_format=torch.contiguous_format)
        launches.append(
            _weight_gradient(gradients, "base_weight", target, x, grad_out, None, None, SILU, ())
        )
    if base_weight is not None and wanted[0]:
        base = x.new_empty(x.shape, dtype=torch.float32)
        launches.append(
            _input_gradient({"grad_x": base}, x, base_weight, grad_out, None, None, None, SILU, ())
        )
    if wanted[3]:
        total = grad_out.sum(1, dtype=torch.float32)
        gradients.done["bias"] = total.to(weight.dtype)
    if basis == WAVELET:
        edges = _edge_launches(
            gradients, grad_out, x, weight, base, points, scales, options[0], wanted
        )
        return launches + edges, gradients
    if wanted[1]:
        target = torch.empty_like(weight)
        launches.append(
            _weight_gradient(
                gradients, "weight", target, x, grad_out, points, scales, basis, options
            )
        )
    results = _result_tensors(gradients, x, weight, points, scales, basis, wanted)
    if any(result is not None for result in results.values()):
        launches.append(
            _input_gradient(results, x, weight, grad_out, base, points, scales, basis, options)
        )
    return launches, gradients


def rational_forward_launch(
    x: Tensor, numerator: Tensor, denominator: Tensor
) -> tuple[Launch, Tensor]:
    """The launch of a rational function, and the tensor that it fills."""
    out = x.new_empty(x.shape)
    grid, arguments, constants = _rational(x, numerator, denominator)
    return Launch(evaluate_rational, grid, arguments | {"out": out}, constants, 4, 1), out


def rational_backward_launch(
    grad_out: Tensor, x: Tensor, numerator: Tensor, denominator: Tensor
) -> tuple[Launch, Gradients]:
    """The launch of a rational function's backward, and what it fills."""
    grad_x = x.new_empty(x.shape)
    grid, arguments, constants = _rational(x, numerator, denominator)
    tiles, most = grid // x.shape[1], numerator.shape[1]
    slots = x.new_empty((tiles, x.shape[1], most + denominator.shape[1]), dtype=torch.float32)
    arguments |= {"grad_out": grad_out.contiguous(), "grad_x": grad_x, "slots": slots}
    gradients = Gradients({"x": grad_x})
    gradients.tables["numerator"] = slots[..., :most], numerator.new_empty(numerator.shape)
    gradients.tables["denominator"] = slots[..., most:], denominator.new_empty(denominator.shape)
    return Launch(differentiate_rational, grid, arguments, constants, 4, 1), gradients


def _result_tensors(
    gradients: Gradients,
    x: Tensor,
    weight: Tensor,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    wanted: Sequence[int],
) -> dict[str, Tensor | None]:
    """grad_x and the tables of points and scales, those that are wanted."""
    heads, rows, inputs = x.shape
    slots = heads * triton.cdiv(rows, ROWS)
    results: dict[str, Tensor | None] = dict.fromkeys(("grad_x", "grad_points", "grad_scales"))
    if wanted[0]:
        results["grad_x"] = gradients.done["x"] = x.new_empty(x.shape)
    for place, name, tensor in ((4, "points", points), (5, "scales", scales)):
        if tensor is None or not wanted[place]:
            continue
        if basis == BSPLINE:
            table = tensor.new_empty((slots, inputs, tensor.shape[1]))
        else:
            tiles = triton.cdiv(inputs, _depth(weight.shape[3])["INPUTS"])
            table = tensor.new_empty((slots * tiles, weight.shape[3]))
        results[f"grad_{name}"] = table
        gradients.tables[name] = table, tensor.new_empty(tensor.shape)
    return results


def _input_gradient(
    results: dict[str, Tensor | None],
    x: Tensor,
    weight: Tensor,
    grad_out: Tensor,
    base: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
) -> Launch:
    heads, rows, inputs = x.shape
    arguments: dict[str, Any] = {
        "x": x,
        "weight": _strided(weight),
        "grad_out": grad_out,
        "base": base,
        "grad_points": None,
        "grad_scales": None,
        **results,
        "rows": rows,
        "inputs": inputs,
        "outputs": weight.shape[1],
        **_functions(x, weight, points, scales, basis),
    }
    depth = _depth(weight.shape[3] if weight.dim() == 4 else 1)
    constants = {"ROWS": ROWS, "OUTPUTS": 32, **_basis(basis, options), **depth}
    grid = heads * triton.cdiv(rows, ROWS) * triton.cdiv(inputs, depth["INPUTS"])
    return Launch(
        differentiate_inputs, grid, arguments, constants | {"PRECISION": "ieee"},
        _warps(weight, 16), 2,
    )  # fmt: skip


def _weight_gradient(
    gradients: Gradients,
    name: str,
    target: Tensor,
    x: Tensor,
    grad_out: Tensor,
    points: Tensor | None,
    scales: Tensor | None,
    basis: int,
    options: Sequence[int],
) -> Launch:
    heads, rows, inputs = x.shape
    outputs = target.shape[1]
    depth = _depth(target.shape[3] if target.dim() == 4 else 1)
    width = _width(outputs, _most_outputs(grad_out))
    count = target.shape[3] if target.dim() == 4 else 1
    tiles = heads * triton.cdiv(outputs, width) * triton.cdiv(inputs, depth["INPUTS"])
    tiles *= triton.cdiv(count, depth["FUNCTIONS"])
    shares = _shares(tiles, rows, 32)
    if shares == 1:
        gradients.done[name] = target
        into = (*_strided(target), 0)
    else:
        table = target.new_empty((shares, *target.shape), dtype=torch.float32)
        gradients.tables[name] = table, target
        into = (*_strided(table[0]), table.stride(0))
    arguments = {
        "x": x,
        "grad_out": grad_out,
        "target": into,
        "rows": rows,
        "inputs": inputs,
        "outputs": outputs,
        "shares": shares,
        "heads": heads,
        **_functions(x, target, points, scales, basis),
    }
    constants = {"ROWS": 32, "OUTPUTS": width, **_basis(basis, options), **depth}
    return Launch(
        differentiate_weights, tiles * shares, arguments, constants | {"PRECISION": "ieee"},
        _warps(grad_out, width), 2,
    )  # fmt: skip


def _edge_launches(
    gradients: Gradients,
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    base: Tensor | None,
    points: Tensor | None,
    scales: Tensor | None,
    kind: int,
    wanted: Sequence[int],
) -> list[Launch]:
    """A wavelet's backward: one pass for x, one for everything that belongs to an edge."""
    heads, rows, inputs = x.shape
    outputs = weight.shape[1]
    arguments: dict[str, Any] = {
        "x": x,
        "weight": _strided(weight),
        "grad_out": grad_out,
        "shift": _dense(points),
        "scale": _dense(scales),
        "rows": rows,
        "inputs": inputs,
        "outputs": outputs,
    }
    launches = []
    if wanted[0]:
        gradients.done["x"] = x.new_empty(x.shape)
        width = _width(inputs, 32)
        grid = heads * triton.cdiv(rows, ROWS) * triton.cdiv(inputs, width)
        constants = {"KIND": kind, "ROWS": ROWS, "INPUTS": width}
        own = {"base": base, "grad_x": gradients.done["x"]}
        launches.append(Launch(differentiate_points, grid, arguments | own, constants, 4, 2))
    if wanted[1] or wanted[4] or wanted[5]:
        high, width = _width(outputs, 32), _width(inputs, 32)
        tiles = heads * triton.cdiv(outputs, high) * triton.cdiv(inputs, width)
        shares = _shares(tiles, rows, 16)
        tables = x.new_empty((3, shares, heads, outputs, inputs), dtype=torch.float32)
        own = {"tables": tables, "shares": shares, "heads": heads}
        constants = {"KIND": kind, "OUTPUTS": high, "INPUTS": width}
        launches.append(
            Launch(differentiate_edges, tiles * shares, arguments | own, constants, 4, 2)
        )
        if wanted[1]:
            gradients.tables["weight"] = tables[0].unsqueeze(-1), torch.empty_like(weight)
        for place, table, tensor in ((4, "points", points), (5, "scales", scales)):
            if wanted[place] and tensor is not None:
                gradients.tables[table] = tables[place - 3], tensor.new_empty(tensor.shape)
    return launches


def _shares(tiles: int, rows: int, step: int) -> int:
    """Parts of the rows whose sums are held apart."""
    most = triton.cdiv(rows, LEAST_STEPS * step)
    return int(max(1, min(WANTED_PROGRAMS // tiles, most)))


def _width(size: int, most: int) -> int:
    return int(min(most, max(16, triton.next_power_of_2(size))))


def _most_outputs(tensor: Tensor) -> int:
    return 64 if tensor.dtype == torch.float32 else 128


def _warps(tensor: Tensor, width: int) -> int:
    """float32 products are made by every thread for itself, in registers."""
    return 8 if width > 64 or tensor.dtype == torch.float32 else 4


def _depth(count: int) -> dict[str, int]:
    functions = min(32, int(triton.next_power_of_2(count)))
    return {"INPUTS": DEPTH // functions, "FUNCTIONS": functions}


def _basis(basis: int, options: Sequence[int]) -> dict[str, int]:
    return {
        "BASIS": basis,
        "OPTION": options[0] if len(options) > 0 else 0,
        "RANGE": options[1] if len(options) > 1 else 0,
    }


def _functions(
    x: Tensor, weight: Tensor, points: Tensor | None, scales: Tensor | None, basis: int
) -> dict[str, Any]:
    """points, scales and the number of functions, as `bases.features` takes them."""
    count = weight.shape[3] if weight.dim() == 4 else 1
    if basis == BSPLINE and points is not None:
        stride = 0 if points.shape[0] == 1 else points.shape[1]
        given: dict[str, Any] = {"points": (points.contiguous(), stride, points.shape[1])}
    elif basis in (GAUSSIAN, RSWAF) and points is not None:
        given = {"points": (points.contiguous(), 0, count)}
    else:
        given = {"points": (None, 0, count if basis == FOURIER else 0)}
    step = 0 if scales is None or scales.numel() == 1 else 1
    given["scales"] = (None if scales is None else scales.contiguous(), step)
    return given | {"count": count}


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _strided(weight: Tensor) -> tuple[Any, ...]:
    """(tensor, head, output, input, function): strides, 0 for functions that are not there."""
    return (weight, *weight.stride(), *[0] * (4 - weight.dim()))


def _rational(
    x: Tensor, numerator: Tensor, denominator: Tensor
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    batch, groups, length = x.shape
    width = int(min(RATIONAL_TILE, triton.next_power_of_2(length)))
    items = RATIONAL_TILE // width
    arguments = {
        "x": x.contiguous(),
        "numerator": numerator.contiguous(),
        "denominator": denominator.contiguous(),
        "batch": batch,
        "groups": groups,
        "length": length,
    }
    constants = {
        "SHARED_A": numerator.shape[0] == 1,
        "SHARED_B": denominator.shape[0] == 1,
        "NUMERATOR": numerator.shape[1],
        "DENOMINATOR": denominator.shape[1],
        "ITEMS": items,
        "LENGTH": width,
    }
    grid = groups * triton.cdiv(batch, items) * triton.cdiv(length, width)
    return grid, arguments, constants
