"""What a suite of benchmarks is made of: cases, peers and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import saccade

FORWARD = "forward"
TRAINING = "forward+backward"
PASSES = (FORWARD, TRAINING)

Inputs = dict[str, Tensor]
Function = Callable[[Inputs], Tensor | tuple[Tensor, ...]]


class UnsupportedError(Exception):
    """A peer cannot run a case; the text says why, for the table."""


@dataclass(frozen=True)
class Work:
    """The least that a pass must do: operations, and elements read or written once."""

    flops: float
    elements: float
    fixed_bytes: float = 0.0

    def bytes(self, itemsize: int) -> float:
        """Memory traffic in bytes; `fixed_bytes` is what does not depend on the dtype."""
        return self.elements * itemsize + self.fixed_bytes


def _as_drawn(name: str, normal: Tensor) -> Tensor:
    return normal


@dataclass(frozen=True)
class Case:
    """One problem: tensors to draw, arguments, and the work of each pass.

    `draw` makes a tensor of a name from numbers of N(0, 1), which are what it is by default; one of
    an integer type keeps it. The training step asks for no gradient of the `constants`, and a case
    whose `work` names the forward alone has none. `tolerance` is what the gate allows where the
    suite's is not meant.
    """

    name: str
    origin: str
    shapes: Mapping[str, tuple[int, ...]]
    kwargs: Mapping[str, Any]
    work: Mapping[str, Work]
    draw: Callable[[str, Tensor], Tensor] = _as_drawn
    constants: tuple[str, ...] = ()
    tolerance: float | None = None

    def inputs(self, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Inputs:
        """Draw the tensors; the same seed gives the same numbers on every device."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {
            name: self.draw(name, torch.randn(shape, generator=generator))
            for name, shape in self.shapes.items()
        }
        return {
            name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in drawn.items()
        }


class Peer:
    """A way to compute an operator: it has a name and prepares a callable for a case."""

    name: str

    def version(self) -> str:
        """The release of the package that does the work."""
        return f"torch {torch.__version__.partition('+')[0]}"

    def refusal(self, case: Case, phase: str, device: torch.device) -> str | None:
        """Why this peer cannot run the case, or None when it can."""
        return None

    def prepare(self, case: Case, inputs: Inputs) -> Function:
        """Build what does not depend on the values of the inputs; this is not timed.

        Raises:
            UnsupportedError: only now it turned out that the case cannot run.
        """
        raise NotImplementedError


class Ours(Peer):
    """The operator itself, on a backend; "auto" is what users get."""

    name = "saccade"

    def __init__(self, backend: str = "auto") -> None:
        self.backend = backend

    def version(self) -> str:
        """The package and its release."""
        return f"saccade {saccade.__version__}" + (
            "" if self.backend == "auto" else f" ({self.backend})"
        )


@dataclass(frozen=True)
class SpeedTarget:
    """Ours must be `at_least` times faster than the fastest measured of `peers`."""

    case: str
    phase: str
    peers: tuple[str, ...]
    at_least: float


@dataclass(frozen=True)
class MemoryTarget:
    """The peak of a training step must be `at_most` times its inputs, outputs and gradients."""

    case: str
    at_most: float


@dataclass(frozen=True)
class Suite:
    """An operator's benchmark: `ours` (for a backend), `peers`, and the `truth` in float64.

    `small` is a case of a few kilobytes, for warming up and for tests.
    """

    operator: str
    cases: tuple[Case, ...]
    default_cases: tuple[str, ...]
    small: Case
    ours: Callable[[str], Peer]
    peers: tuple[Peer, ...]
    quick_peers: tuple[str, ...]
    truth: Peer
    tolerance: Callable[[torch.device, torch.dtype], float]
    speed_targets: tuple[SpeedTarget, ...] = field(default=())
    memory_targets: tuple[MemoryTarget, ...] = field(default=())

    def allowed_error(self, case: Case, device: torch.device, dtype: torch.dtype) -> float:
        """What the gate allows, relative to the largest entry of a tensor."""
        return self.tolerance(device, dtype) if case.tolerance is None else case.tolerance

    def select_cases(self, names: tuple[str, ...] | None) -> tuple[Case, ...]:
        """Return the cases of these names; None the default ones, ("all",) every one.

        Raises:
            ValueError: a name is unknown.
        """
        if names == ("all",):
            return self.cases
        known = {case.name: case for case in (*self.cases, self.small)}
        return tuple(_look_up("cases", known, name) for name in names or self.default_cases)

    def select_peers(self, names: tuple[str, ...] | None) -> tuple[Peer, ...]:
        """Return the peers of these names; None every one, ("none",) no peer at all.

        Raises:
            ValueError: a name is unknown.
        """
        if names is None:
            return self.peers
        if names == ("none",):
            return ()
        known = {peer.name: peer for peer in self.peers}
        return tuple(_look_up("peers", known, name) for name in names)


def _look_up(what: str, known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise ValueError(f"{what} must be among {', '.join(known)}, got {name!r}.")
    return known[name]
