"""Other ways to run spiking neurons: SpikingJelly's nodes, and the loop, eager and compiled."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from saccade.bench._suite import Case, Function, Inputs, Peer


class _Atan(torch.autograd.Function):
    """The step, with the slope of atan of width 2."""

    @staticmethod
    def forward(ctx: Any, d: Tensor) -> Tensor:
        ctx.save_for_backward(d)
        return (d >= 0).to(d.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        return grads[0] / (1 + (math.pi * d).square())


def loop(x: Tensor, tau: float) -> Tensor:
    """The neurons as they are written: a step after the other, hard reset to 0."""
    v, spikes = torch.zeros_like(x[0]), []
    for step in x.unbind(0):
        h = v + (step - v) / tau
        s = _Atan.apply(h - 1.0)
        v = (1.0 - s) * h
        spikes.append(s)
    return torch.stack(spikes)


class Loop(Peer):
    """The loop in plain torch."""

    name = "loop"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Bind the arguments."""
        return lambda x: loop(x["x"], **case.kwargs)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(loop, dynamic=False)
    return compiled


class CompiledLoop(Peer):
    """The same loop through torch.compile."""

    name = "compile"

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Compile."""
        compiled = _compiled()
        return lambda x: compiled(x["x"], **case.kwargs)


class SpikingJelly(Peer):
    """SpikingJelly's LIFNode over all steps, reset before each call."""

    name = "spikingjelly"

    def version(self) -> str:
        """The package and its release."""
        try:
            return f"spikingjelly {metadata.version('spikingjelly')}"
        except metadata.PackageNotFoundError:
            return "spikingjelly"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Say what this peer lacks."""
        try:
            importlib.import_module("spikingjelly.activation_based.neuron")
        except ImportError as error:
            return f"spikingjelly is not importable: {error}"
        return None

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Make the node."""
        package = "spikingjelly.activation_based"
        neuron = importlib.import_module(f"{package}.neuron")
        surrogate = importlib.import_module(f"{package}.surrogate")
        node = neuron.LIFNode(
            step_mode="m", surrogate_function=surrogate.ATan(), detach_reset=False, **case.kwargs
        )

        def run(x: Inputs) -> Tensor:
            node.reset()
            spikes: Tensor = node(x["x"])
            return spikes

        return run


PEERS: tuple[Peer, ...] = (SpikingJelly(), Loop(), CompiledLoop())
