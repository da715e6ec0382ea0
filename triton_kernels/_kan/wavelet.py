"""Wavelets: every edge has a function of its own, so that its product is a sum, not a matmul."""

from __future__ import annotations

import triton
import triton.language as tl

from saccade.triton_kernels._kan.tile import edge_tile, load_x, tile_of

# 2 / (sqrt(3) pi^(1/4)), the norm of the Mexican hat
HAT = tl.constexpr(0.8673250705840776)
PI = tl.constexpr(3.141592653589793)


@triton.jit
def psi(z, KIND: tl.constexpr):
    """The mother wavelet: 0 Mexican hat, 1 Morlet, 2 derivative of Gaussian, 3 Meyer, 4 Shannon."""
    if KIND == 0:
        return (z * z - 1.0) * tl.exp(-0.5 * z * z) * HAT
    elif KIND == 1:
        return tl.cos(5.0 * z) * tl.exp(-0.5 * z * z)
    elif KIND == 2:
        return -z * tl.exp(-0.5 * z * z)
    elif KIND == 3:
        v = tl.abs(z)
        value = tl.sin(v * PI) * tl.cos(_step(v) * (0.5 * PI))
        return tl.where(v < 1.0, value, 0.0 * z)
    else:
        near = tl.where(z == 0.0, 1.0, z)
        return tl.where(z == 0.0, 1.0, tl.sin(near) / near)


@triton.jit
def psi_slope(z, KIND: tl.constexpr):
    """The derivative of `psi`."""
    if KIND == 0:
        return z * (3.0 - z * z) * tl.exp(-0.5 * z * z) * HAT
    elif KIND == 1:
        return -(5.0 * tl.sin(5.0 * z) + z * tl.cos(5.0 * z)) * tl.exp(-0.5 * z * z)
    elif KIND == 2:
        return (z * z - 1.0) * tl.exp(-0.5 * z * z)
    elif KIND == 3:
        v = tl.abs(z)
        t = _ramp(v)
        fall = 1.0 - t
        # of the step's argument 2 v - 1
        rise = 2.0 * 140.0 * t * t * t * fall * fall * fall
        angle = _step(v) * (0.5 * PI)
        value = tl.cos(v * PI) * tl.cos(angle) * PI
        value -= rise * tl.sin(v * PI) * tl.sin(angle) * (0.5 * PI)
        sign = tl.where(z > 0.0, 1.0, tl.where(z < 0.0, -1.0, 0.0))
        return tl.where(v < 1.0, sign * value, 0.0 * z)
    else:
        near = tl.where(tl.abs(z) < 0.5, 1.0, z)
        far = (tl.cos(near) - tl.sin(near) / near) / near
        square = z * z
        # the quotient loses all digits near 0
        series = 1.0 / 30.0 - square * (1.0 / 840.0 - square * (1.0 / 45360.0))
        return tl.where(tl.abs(z) < 0.5, z * (square * series - 1.0 / 3.0), far)


@triton.jit
def _ramp(v):
    return tl.minimum(tl.maximum(2.0 * v - 1.0, 0.0), 1.0)


@triton.jit
def _step(v):
    t = _ramp(v)
    # the polynomial loses digits near 1, where it is 1 less its value at 1 - t
    near = tl.minimum(t, 1.0 - t)
    square = near * near
    step = square * square * (35.0 - near * (84.0 - near * (70.0 - 20.0 * near)))
    return tl.where(t > 0.5, 1.0 - step, step)


@triton.jit
def transform_edges(
    x, weight, base_weight, bias, out, shift, scale,
    rows, inputs, outputs,
    KIND: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, BASE_INPUTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write out [h, M, O]; grid: output tiles, row tiles, heads."""
    column, row, head = tile_of(tl.program_id(0), tl.cdiv(outputs, OUTPUTS), tl.cdiv(rows, ROWS))
    o = column * OUTPUTS + tl.arange(0, OUTPUTS)
    r = row * ROWS + tl.arange(0, ROWS)
    sums = tl.zeros([ROWS, OUTPUTS], tl.float32)
    edge = (head * outputs + tl.minimum(o, outputs - 1)).to(tl.int64) * inputs
    point = (head * rows + tl.minimum(r, rows - 1)).to(tl.int64) * inputs
    own = weight[0] + head * weight[1] + tl.minimum(o, outputs - 1).to(tl.int64) * weight[2]
    for i in range(0, inputs):
        u = tl.load(x + point + i).to(tl.float32)
        factor = tl.load(own + i * weight[3]).to(tl.float32)
        z = (u[:, None] - tl.load(shift + edge + i)[None, :]) / tl.load(scale + edge + i)[None, :]
        sums += factor[None, :] * psi(z, KIND)
    if base_weight is not None:
        for first in range(0, inputs, BASE_INPUTS):
            u = load_x(x, head, r, first + tl.arange(0, BASE_INPUTS), rows, inputs)
            right = edge_tile(base_weight, head, o, first, 0, inputs, outputs, 1, BASE_INPUTS, 1)
            left = (u * tl.sigmoid(u)).to(right.dtype)
            sums = tl.dot(left, tl.trans(right), sums, input_precision=PRECISION)
    if bias is not None:
        offset = tl.load(bias + head * outputs + o, mask=o < outputs, other=0.0)
        sums += offset.to(tl.float32)[None, :]
    index = (head * rows + r).to(tl.int64)[:, None] * outputs + o[None, :]
    tl.store(out + index, sums, mask=(r < rows)[:, None] & (o < outputs)[None, :])


@triton.jit
def differentiate_points(
    x, weight, grad_out, base, grad_x, shift, scale,
    rows, inputs, outputs,
    KIND: tl.constexpr, ROWS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Write grad_x, base added; grid: input tiles, row tiles, heads."""
    column, row, head = tile_of(tl.program_id(0), tl.cdiv(inputs, INPUTS), tl.cdiv(rows, ROWS))
    i = column * INPUTS + tl.arange(0, INPUTS)
    r = row * ROWS + tl.arange(0, ROWS)
    u = load_x(x, head, r, i, rows, inputs)
    inside = tl.minimum(i, inputs - 1)
    point = (head * rows + tl.minimum(r, rows - 1)).to(tl.int64) * outputs
    own = weight[0] + head * weight[1] + inside.to(tl.int64) * weight[3]
    sums = tl.zeros([ROWS, INPUTS], tl.float32)
    for o in range(0, outputs):
        edge = (head * outputs + o).to(tl.int64) * inputs + inside
        width = tl.load(scale + edge)
        factor = tl.load(own + o * weight[2]).to(tl.float32) / width
        z = (u - tl.load(shift + edge)[None, :]) / width[None, :]
        grad = tl.load(grad_out + point + o).to(tl.float32)
        sums += grad[:, None] * factor[None, :] * psi_slope(z, KIND)
    index = (head * rows + r).to(tl.int64)[:, None] * inputs + i[None, :]
    mask = (r < rows)[:, None] & (i < inputs)[None, :]
    if base is not None:
        sums += tl.load(base + index, mask=mask, other=0.0)
    tl.store(grad_x + index, sums, mask=mask)


@triton.jit
def differentiate_edges(
    x, weight, grad_out, tables, shift, scale,
    rows, inputs, outputs, shares, heads,
    KIND: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Write tables [3, shares, h, O, I]: gradients of weight, shift and scale, a share of the rows
    each; grid: input tiles, output tiles, heads, shares.
    """
    column, row, rest = tile_of(
        tl.program_id(0), tl.cdiv(inputs, INPUTS), tl.cdiv(outputs, OUTPUTS)
    )
    head, share = rest % heads, rest // heads
    i = column * INPUTS + tl.arange(0, INPUTS)
    o = row * OUTPUTS + tl.arange(0, OUTPUTS)
    mask = (o < outputs)[:, None] & (i < inputs)[None, :]
    edge = (head * outputs + o).to(tl.int64)[:, None] * inputs + i[None, :]
    place = tl.load(shift + edge, mask=mask, other=0.0)
    width = tl.load(scale + edge, mask=mask, other=1.0)
    at = o.to(tl.int64)[:, None] * weight[2] + i.to(tl.int64)[None, :] * weight[3]
    factor = tl.load(weight[0] + head * weight[1] + at, mask=mask, other=0.0).to(tl.float32) / width
    of_weight = tl.zeros([OUTPUTS, INPUTS], tl.float32)
    of_shift = tl.zeros([OUTPUTS, INPUTS], tl.float32)
    of_scale = tl.zeros([OUTPUTS, INPUTS], tl.float32)
    steps = tl.cdiv(rows, shares)
    start = share.to(tl.int32) * steps
    for r in range(start, tl.minimum(start + steps, rows)):
        line = (head * rows + r).to(tl.int64)
        u = tl.load(x + line * inputs + i, mask=i < inputs, other=0.0).to(tl.float32)
        grad = tl.load(grad_out + line * outputs + o, mask=o < outputs, other=0.0).to(tl.float32)
        z = (u[None, :] - place) / width
        of_weight += grad[:, None] * psi(z, KIND)
        slope = grad[:, None] * factor * psi_slope(z, KIND)
        of_shift -= slope
        of_scale -= slope * z
    table = heads * outputs.to(tl.int64) * inputs
    to = tables + share * table + edge
    tl.store(to, of_weight, mask=mask)
    tl.store(to + shares * table, of_shift, mask=mask)
    tl.store(to + 2 * shares * table, of_scale, mask=mask)
