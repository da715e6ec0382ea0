"""The problems of the CUDA and Triton tests of the scans and of the causal convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saccade.reference import scan as reference

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A selective scan; `options` names its optional tensors, `constant` which of B and C are."""

    name: str
    batch: int
    channels: int
    length: int
    states: int
    groups: int = 1
    directions: tuple[int, ...] = (0,)
    height: int = 1
    softplus: bool = True
    options: tuple[str, ...] = ()
    constant: str = ""
    channels_last: bool = False


@dataclass(frozen=True)
class SsdCase:
    name: str
    batch: int
    heads: int
    width: int
    length: int
    states: int
    groups: int = 1
    softplus: bool = True
    options: tuple[str, ...] = ()
    limit: tuple[float, float] = (0.0, float("inf"))


@dataclass(frozen=True)
class ConvCase:
    name: str
    batch: int
    channels: int
    length: int
    width: int
    silu: bool = True
    options: tuple[str, ...] = ("bias",)
    channels_last: bool = False


ALL = ("D", "z", "delta_bias", "initial_state")
SCANS = [
    Case("plain", 2, 5, 37, 16, softplus=False),
    Case("everything", 2, 6, 41, 16, groups=2, options=ALL),
    Case("length-1", 1, 3, 1, 4, options=ALL),
    Case("reverse", 1, 3, 35, 3, directions=(1,), options=ALL),
    Case("one-state", 1, 150, 19, 1, options=ALL),
    Case("many-states", 1, 5, 37, 50, options=ALL),
    Case("most-states", 1, 5, 21, 200, options=ALL),
    Case("constant", 2, 4, 33, 16, constant="BC", options=ALL),
    Case("constant-b", 1, 34, 18, 4, constant="B", options=ALL),
    Case("constant-c", 1, 3, 18, 20, constant="C"),
    Case("sequences", 2, 4, 70, 7, options=(*ALL, "seq_idx")),
    Case("sequences-reverse", 2, 4, 70, 7, directions=(1,), options=(*ALL, "seq_idx")),
    Case("segments", 1, 3, 300, 5, options=ALL),
    Case("segments-sequences", 1, 3, 300, 5, options=("seq_idx", "initial_state")),
    Case("segments-constant", 1, 3, 200, 16, constant="BC", options=("initial_state",)),
    Case("four-directions", 2, 5, 20, 4, directions=(0, 1, 2, 3), height=4, options=ALL),
    Case("two-directions", 1, 3, 77, 16, directions=(0, 1), groups=3, options=("D",)),
    Case("columns", 1, 4, 35, 16, directions=(3,), height=5, options=ALL),
    Case("channels-last", 2, 9, 23, 16, channels_last=True, options=ALL),
    Case("several-tiles", 3, 70, 19, 16, options=ALL),
]
SSDS = [
    SsdCase("plain", 1, 2, 4, 37, 16, softplus=False),
    SsdCase("everything", 2, 4, 3, 41, 20, 2, options=("D", "z", "dt_bias", "initial_states")),
    SsdCase("limits", 1, 3, 8, 20, 5, options=("dt_bias",), limit=(0.2, 0.9)),
    SsdCase("sequences", 2, 2, 3, 50, 8, options=("D", "seq_idx", "initial_states")),
    SsdCase("length-1", 1, 1, 1, 1, 1, options=("D", "z")),
    SsdCase("most-states", 1, 2, 3, 21, 130, options=("z",)),
    SsdCase("segments", 1, 2, 16, 200, 16, options=("initial_states", "seq_idx", "z")),
]
CONVOLUTIONS = [
    ConvCase("plain", 2, 5, 37, 4),
    ConvCase("identity", 2, 5, 37, 4, silu=False, options=()),
    ConvCase("states", 2, 5, 37, 4, options=("bias", "initial_states")),
    ConvCase("states-longer-than-x", 2, 3, 2, 7, options=("bias", "initial_states")),
    ConvCase("sequences", 2, 3, 40, 4, options=("bias", "seq_idx")),
    ConvCase("width-1", 1, 3, 9, 1),
    ConvCase("width-16", 1, 3, 50, 16, options=("bias", "initial_states")),
    ConvCase("width-9-sequences", 1, 3, 70, 9, options=("seq_idx",)),
    ConvCase("channels-last", 2, 7, 75, 4, options=("bias", "initial_states"), channels_last=True),
    ConvCase("channels-last-sequences", 2, 7, 45, 3, options=("seq_idx",), channels_last=True),
    ConvCase("channels-last-width-16", 1, 3, 50, 16, channels_last=True),
    ConvCase("long", 1, 2, 2100, 3),
]


def ids(case: object) -> str:
    return str(getattr(case, "name", case))


def _generator(case: object) -> torch.Generator:
    return torch.Generator().manual_seed(len(repr(case)))


def _sequences(batch: int, length: int, generator: torch.Generator) -> Tensor:
    starts = torch.rand(batch, length, generator=generator) < 0.15
    return starts.cumsum(-1).to(torch.int32)


def make_scan(case: Case, dtype: torch.dtype) -> Tensors:
    """Inputs and gradients of the outputs."""
    generator, paths = _generator(case), len(case.directions)

    def normal(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(kind)

    def map_of(*shape: int) -> Tensor:
        if case.channels_last:
            return normal(*shape[:-2], shape[-1], shape[-2]).mT
        return normal(*shape)

    single = torch.float32
    channels, states, length = case.channels, case.states, case.length
    tensors = {
        "u": map_of(case.batch, channels, length),
        "delta": map_of(case.batch, paths, channels, length)
        if case.softplus
        else torch.rand(case.batch, paths, channels, length, generator=generator).to(dtype),
        "A": -torch.rand(paths, channels, states, generator=generator) * 2 - 0.1,
    }
    for name in "BC":
        tensors[name] = (
            normal(paths, channels, states, kind=single)
            if name in case.constant
            else map_of(case.batch, paths, case.groups, states, length)
        )
    optional: dict[str, Callable[[], Tensor]] = {
        "D": lambda: normal(paths, channels, kind=single),
        "z": lambda: map_of(case.batch, channels, length),
        "delta_bias": lambda: normal(paths, channels, kind=single),
        "initial_state": lambda: normal(case.batch, paths, channels, states, kind=single),
        "seq_idx": lambda: _sequences(case.batch, length, generator),
    }
    tensors |= {name: optional[name]() for name in case.options}
    tensors["grad_out"] = map_of(case.batch, channels, length)
    tensors["grad_last_state"] = normal(case.batch, paths, channels, states, kind=single)
    return tensors


def make_ssd(case: SsdCase, dtype: torch.dtype) -> Tensors:
    """Inputs and gradients of the outputs."""
    generator, single = _generator(case), torch.float32

    def normal(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(kind)

    signal = (case.batch, case.length, case.heads, case.width)
    state = (case.batch, case.heads, case.width, case.states)
    steps = torch.rand(signal[:3], generator=generator).to(dtype)
    tensors = {
        "x": normal(*signal),
        "dt": normal(*signal[:3]) if case.softplus else steps,
        "A": -torch.rand(case.heads, generator=generator) * 2 - 0.1,
        "B": normal(*signal[:2], case.groups, case.states),
        "C": normal(*signal[:2], case.groups, case.states),
    }
    optional: dict[str, Callable[[], Tensor]] = {
        "D": lambda: normal(case.heads, case.width, kind=single),
        "z": lambda: normal(*signal),
        "dt_bias": lambda: normal(case.heads, kind=single),
        "initial_states": lambda: normal(*state, kind=single),
        "seq_idx": lambda: _sequences(case.batch, case.length, generator),
    }
    tensors |= {name: optional[name]() for name in case.options}
    tensors["grad_out"] = normal(*signal)
    tensors["grad_final_states"] = normal(*state, kind=single)
    return tensors


def make_convolution(case: ConvCase, dtype: torch.dtype) -> Tensors:
    """Inputs and the gradient of the output."""
    generator, single = _generator(case), torch.float32

    def normal(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(kind)

    def signal() -> Tensor:
        if case.channels_last:
            return normal(case.batch, case.length, case.channels).mT
        return normal(case.batch, case.channels, case.length)

    tensors = {"x": signal(), "weight": normal(case.channels, case.width, kind=single)}
    optional: dict[str, Callable[[], Tensor]] = {
        "bias": lambda: normal(case.channels, kind=single),
        "initial_states": lambda: normal(case.batch, case.channels, case.width - 1),
        "seq_idx": lambda: _sequences(case.batch, case.length, generator),
    }
    tensors |= {name: optional[name]() for name in case.options}
    tensors["grad_out"] = signal()
    return tensors


def _truth(
    function: Callable[..., Tensor | tuple[Tensor, Tensor]],
    tensors: Tensors,
    names: Sequence[str],
    **options: object,
) -> tuple[Tensors, Tensors]:
    inputs = {
        name: x if name == "seq_idx" else x.detach().double().requires_grad_()
        for name, x in tensors.items()
        if not name.startswith("grad_")
    }
    results = function(**inputs, **options)
    results = results if isinstance(results, tuple) else (results,)
    wanted = {name: x for name, x in inputs.items() if name != "seq_idx"}
    grads = torch.autograd.grad(
        results, list(wanted.values()), [tensors[f"grad_{name}"].double() for name in names]
    )
    outputs = {name: x.detach() for name, x in zip(names, results, strict=True)}
    return outputs, dict(zip(wanted, grads, strict=True))


def true_scan(case: Case, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Outputs and gradients by the reference in float64."""
    return _truth(
        reference.selective_scan, tensors, ("out", "last_state"), delta_softplus=case.softplus,
        directions=case.directions, height=case.height,
    )  # fmt: skip


def true_ssd(case: SsdCase, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Outputs and gradients by the reference in float64."""
    return _truth(
        reference.ssd_scan, tensors, ("out", "final_states"), dt_softplus=case.softplus,
        dt_min=case.limit[0], dt_max=case.limit[1],
    )  # fmt: skip


def true_convolution(case: ConvCase, tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Output and gradients by the reference in float64."""
    return _truth(reference.causal_conv1d, tensors, ("out",), silu=case.silu)


def largest_error(found: Tensors, expected: Tensors) -> dict[str, float]:
    """Of every tensor the largest error, relative to its largest element."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name].double() - true).abs().max() / (1e-3 + true.abs().max()))
        for name, true in expected.items()
    }
