"""Chooses the rung that runs an operator: cpu, cuda, triton or reference."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from saccade import _load

BACKENDS = ("auto", "cpu", "cuda", "triton", "reference")

# A rung maps its main tensor to the reason why it cannot take it, or to None.
Obstacle = Callable[[Tensor], str | None]

Function = TypeVar("Function", bound=Callable[..., Any])

_RUNGS: dict[str, dict[str, Obstacle]] = {}


def offer(operator: str, **rungs: Obstacle) -> None:
    """Declare the rungs of an operator, fastest first; the reference is always there."""
    _RUNGS[operator] = rungs


def _obstacle(operator: str, rung: str, tensor: Tensor) -> str | None:
    if rung == "reference":
        return None
    obstacle = _RUNGS[operator].get(rung)
    return obstacle(tensor) if obstacle else f"{operator} has no {rung} kernel"


def select(operator: str, backend: str, tensor: Tensor) -> str:
    """Name the rung that runs `operator` on `tensor`.

    Args:
        operator: its word.
        backend: "auto" takes the first rung without an obstacle; any other name is taken or
            refused, never replaced.
        tensor: the main input: its device, dtype and shape decide.

    Raises:
        ValueError: no such backend.
        RuntimeError: the forced backend cannot run; the sentence says why.
    """
    if backend == "auto":
        for rung, obstacle in _RUNGS[operator].items():
            # the interpreter of Triton is for debugging: it runs only where it is asked for by name
            if (rung != "triton" or tensor.is_cuda) and obstacle(tensor) is None:
                return rung
        return "reference"
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    reason = _obstacle(operator, backend, tensor)
    if reason is not None:
        raise RuntimeError(f"{operator} cannot run with backend={backend!r}: {reason}.")
    return backend


def select_reverse_mode(operator: str, backend: str, tensor: Tensor) -> str:
    """As `select`, for kernels that know reverse mode only and would drop a tangent without a word.

    Raises:
        NotImplementedError: a kernel is forced under forward-mode differentiation.
    """
    rung = select(operator, backend, tensor)
    if rung != "reference" and getattr(forward_ad, "_current_level", -1) >= 0:
        if backend != "auto":
            raise NotImplementedError(
                f"{operator} has forward-mode derivatives on the reference alone, "
                f"got backend={backend!r}."
            )
        return "reference"
    return rung


@contextmanager
def reference_only() -> Iterator[None]:
    """Have "auto" take the reference of every operator inside the block: plain torch operations.

    For comparisons. A backend that is forced by name has no kernel in the block.

    >>> with reference_only():
    ...     explain("gem", torch.zeros(1)).splitlines()[0]
    'gem runs on: reference'
    """
    rungs = dict(_RUNGS)
    _RUNGS.update({operator: {} for operator in rungs})
    try:
        yield
    finally:
        _RUNGS.update(rungs)


def explain(operator: str, tensor: Tensor, backend: str = "auto") -> str:
    """Say which rung runs an operator on a tensor, and what is in the way of the others.

    Args:
        operator: its word, such as "neighborhood_attention".
        tensor: the operator's first tensor.
        backend: as given to the operator.

    Raises:
        TypeError: not a tensor.
        ValueError: no such operator or backend.

    >>> import torch
    >>> x = torch.randn(1, 8, 2, 4)
    >>> explain("neighborhood_attention", x, backend="reference").splitlines()[0]
    'neighborhood_attention runs on: reference'
    """
    if operator not in _RUNGS:
        raise ValueError(f"operator must be one of {', '.join(sorted(_RUNGS))}, got {operator!r}.")
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a torch.Tensor, got {type(tensor).__name__}.")
    try:
        headline = f"{operator} runs on: {select(operator, backend, tensor)}"
    except RuntimeError as error:
        headline = str(error)
    lines = [f"  {rung}: {_obstacle(operator, rung, tensor) or 'can run'}" for rung in BACKENDS[1:]]
    return "\n".join([headline, *lines])


def constant(function: Function) -> Function:
    """Tell Dynamo to run a function while tracing: its result does not change within a process."""
    # torch.compiler.assume_constant_result does this too, but imports Dynamo, which takes seconds
    vars(function)["_dynamo_marked_constant"] = True
    return function


def with_signature(forward: Function) -> Function:
    """Keep the signature of an autograd function's forward.

    torch asks for it in every call, and inspect takes longer to work it out than a small kernel
    takes to run.
    """
    vars(forward)["__signature__"] = inspect.signature(forward)
    return forward


def cuda_obstacle(tensor: Tensor) -> str | None:
    """Why no CUDA kernel of this build can run on this tensor, or None."""
    if not tensor.is_cuda:
        return f"the tensors are on {tensor.device}"
    if not _load.has("_C_cuda"):
        return _load.reason("_C_cuda")
    return _device_obstacle(tensor.device.index)


def triton_obstacle(operator: str, tensor: Tensor) -> str | None:
    """Why no Triton kernel can run on this tensor, or None.

    Triton is imported only for a tensor that it could take.
    """
    interpreted = tensor.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if tensor.is_cuda or interpreted:
        return _triton_missing(operator)
    return f"the tensors are on {tensor.device}"


@functools.cache
def _too_old(index: int) -> str | None:
    built = [int(re.sub(r"\D", "", arch)) for arch in _load.host.build_info()["cuda_archs"]]
    major, minor = torch.cuda.get_device_capability(index)
    if 10 * major + minor >= min(built):
        return None
    return f"the device has compute capability {major}.{minor}, _C_cuda was built for {built}"


@functools.cache
def _import_kernels(operator: str) -> str | None:
    try:
        importlib.import_module(f"saccade.triton_kernels.{operator}")
    except ImportError as error:
        return f'Triton is not importable ({error}): pip install "saccade[triton]"'
    return None


@constant
def _device_obstacle(index: int) -> str | None:
    return _too_old(index) if _load.host else None


@constant
def _triton_missing(operator: str) -> str | None:
    return _import_kernels(operator)
