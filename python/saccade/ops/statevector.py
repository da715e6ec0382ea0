"""State vectors of quantum circuits: batched, differentiable, a whole circuit in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saccade import _load, reference
from saccade.ops import _checks
from saccade.ops._select import constant, cuda_obstacle, offer, select_reverse_mode
from saccade.ops._statevector_op import Expectations, Plan, States, kernel, plan, wanted
from saccade.ops._statevector_program import Program, pauli_sums

DTYPES = {torch.complex64: torch.float32, torch.complex128: torch.float64}
GRADS = ("adjoint", "backprop", "none")


def _cpu(params: Tensor) -> str | None:
    if params.device.type not in ("cpu", "meta"):
        return f"the tensors are on {params.device}"
    return _planner() or (None if _load.has("_C") else _load.reason("_C"))


def _cuda(params: Tensor) -> str | None:
    return cuda_obstacle(params) or _planner()


def _planner() -> str | None:
    return None if _load.has("_host") else f"the planner is missing: {_load.reason('_host')}"


offer("statevector", cpu=_cpu, cuda=_cuda)


def statevector(
    program: Program,
    params: Tensor | None = None,
    inputs: Tensor | None = None,
    *,
    state: Tensor | None = None,
    dtype: torch.dtype = torch.complex64,
    bit_order: str = "big",
    backend: str = "auto",
) -> Tensor:
    r"""Run a circuit and return its state vectors.

    .. math:: \lvert \psi \rangle = U_G \cdots U_2 U_1 \lvert \psi_0 \rangle

    Args:
        program: the circuit, of n = program.n_wires qubits.
        params: angles that all samples share, [P] in radians; None where the circuit has none.
        inputs: angles of every sample, [..., Pb]; its leading axes are the batch. None where the
            circuit has none.
        state: psi_0, [..., 2**n] complex, of norm 1 (which is not checked); its leading axes are
            the batch's or broadcast to them. Default |0...0>.
        dtype: complex64 (default) or complex128, in which all is computed.
        bit_order: "big" (default): wire 0 is the most significant bit of an index of psi and of
            state; "little": the least, Qiskit's order with qubit k as wire k.
        backend: "auto" takes the fastest rung that can run (:func:`saccade.ops.explain` with
            params); "cuda", "cpu" and "reference" are taken or refused, never replaced.

    Returns:
        psi, [B, 2**n] in dtype, where [B] are the batch's axes; B is 1 where neither inputs nor
        state are given. Differentiable in params, inputs and state.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: lengths, shapes, devices or values do not fit together.
        NotImplementedError: forward-mode derivatives with a forced kernel.
        RuntimeError: the forced backend cannot run.

    Notes:
        Cost: one pass over psi for every run of gates on one wire, none for CNOT, SWAP and X,
        which move an index frame instead of data, and one for neighbouring diagonal gates together;
        the first gates on every wire of |0...0> make a product state in one pass. The gradient
        goes back through the circuit with two states, whatever the number of gates.

        Deterministic, backward included; on the CPU the bits do not depend on the number of
        threads. torch.vmap and torch.func fold mapped axes into the batch. No double backward on
        the kernels; backend="reference" has it. Autocast changes nothing. A NaN in an angle of a
        sample makes its psi NaN.

    Source:
        Nielsen and Chuang, Quantum Computation and Quantum Information, chapter 4; Jones and Gacon,
        arXiv 2009.02823 (the gradient).

    >>> from saccade.ops import Program, instruction
    >>> bell = Program(2, (instruction("h", 0), instruction("cx", (0, 1))))
    >>> statevector(bell).abs().square()
    tensor([[0.5000, 0.0000, 0.0000, 0.5000]])
    """
    call = _arguments(program, params, inputs, state, dtype)
    if bit_order not in ("big", "little"):
        raise ValueError(f'bit_order must be "big" or "little", got {bit_order!r}.')
    rung = select_reverse_mode("statevector", backend, call.params)
    if rung == "reference":
        psi = reference.statevector(program, call.params, call.inputs, call.state, dtype, bit_order)
        return psi.reshape(*call.batch, 2**program.n_wires)
    made = _plan(program, call.state is None, bit_order == "little")
    start = None if call.state is None else torch.view_as_real(call.state.contiguous())
    if wanted(call.params, call.inputs, start):
        out = States.apply(call.params, call.inputs, start, made, rung)
    else:
        op = kernel(rung, "statevector_forward")
        out = op(call.params, call.inputs, start, made.ints, made.floats, made.bits)
    return torch.view_as_complex(out).reshape(*call.batch, 2**program.n_wires)


def statevector_expval(
    program: Program,
    params: Tensor | None,
    inputs: Tensor | None,
    observables: Any,
    *,
    state: Tensor | None = None,
    dtype: torch.dtype = torch.complex64,
    grad: str = "adjoint",
    backend: str = "auto",
) -> Tensor:
    r"""Run a circuit and return the expectation values of Pauli sums.

    .. math:: e_k = \langle \psi \rvert O_k \lvert \psi \rangle, \qquad
              \frac{\partial L}{\partial \theta} = 2 \operatorname{Re}
              \langle \lambda \rvert \partial_\theta \psi \rangle, \quad
              \lambda = \sum_k \frac{\partial L}{\partial e_k} O_k \psi

    Args:
        program: the circuit, of n = program.n_wires qubits.
        params: [P], as in :func:`statevector`.
        inputs: [..., Pb], as in :func:`statevector`.
        observables: K of them, each a Pauli string such as "ZIX", its letters from wire 0 on, or a
            sum {string: coefficient}; one alone is K = 1. :func:`saccade.ops.pauli_sums` checks
            them once for many calls.
        state: [..., 2**n], wire 0 the most significant bit. Default |0...0>.
        dtype: complex64 (default) or complex128.
        grad: "adjoint" (default): the gradients of all observables at once, going back through the
            circuit; "backprop": torch's own through every state, on the reference, which also has
            double backward and forward-mode derivatives; "none": no gradient.
        backend: as in :func:`statevector`.

    Returns:
        e, [B, K] in dtype's real type.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: lengths, shapes, devices or values do not fit together.
        NotImplementedError: forward-mode derivatives, or grad="backprop", with a forced kernel.
        RuntimeError: the forced backend cannot run.

    Notes:
        Gates outside the light cone of the observables are left out, and from |0...0> so are their
        wires: what is paid for is 2**(wires in the cone). All strings of I and Z together cost one
        Walsh-Hadamard transform of the probabilities, every other string a pass. The memory of the
        gradient is two states, whatever the number of gates. All else is as for
        :func:`statevector`.

    Source:
        Jones and Gacon, arXiv 2009.02823.

    >>> import torch
    >>> from saccade.ops import Program, instruction, param_angle
    >>> turned = Program(2, (instruction("rx", 0, param_angle(0)), instruction("cx", (0, 1))))
    >>> statevector_expval(turned, torch.tensor([1.0]), None, ["ZI", {"IZ": 2.0, "XX": 1.0}])
    tensor([[0.5403, 1.0806]])
    """
    call = _arguments(program, params, inputs, state, dtype)
    if grad not in GRADS:
        raise ValueError(f"grad must be one of {', '.join(GRADS)}, got {grad!r}.")
    if grad == "backprop":
        if backend not in ("auto", "reference"):
            raise NotImplementedError(
                f'grad="backprop" runs on the reference alone, got backend={backend!r}.'
            )
        backend = "reference"
    if grad == "none":
        with torch.no_grad():
            return _expectations(program, call, observables, dtype, backend)
    return _expectations(program, call, observables, dtype, backend)


def _expectations(
    program: Program, call: _Call, observables: Any, dtype: torch.dtype, backend: str
) -> Tensor:
    rung = select_reverse_mode("statevector", backend, call.params)
    if rung == "reference":
        sums = pauli_sums(observables, program.n_wires)
        values = reference.statevector_expval(
            program, call.params, call.inputs, sums, call.state, dtype
        )
        return values.reshape(*call.batch, len(sums))
    made = _plan_of_observables(program, call.state is None, observables)
    start = None if call.state is None else torch.view_as_real(call.state.contiguous())
    if wanted(call.params, call.inputs, start):
        values, _ = Expectations.apply(call.params, call.inputs, start, made, rung)
    else:
        values, _ = kernel(rung, "statevector_expval_forward")(
            call.params, call.inputs, start, made.ints, made.floats, made.bits, made.observables,
            False,
        )  # fmt: skip
    out: Tensor = values.reshape(*call.batch, made.observables)
    return out


def probabilities(
    program: Program,
    params: Tensor | None = None,
    inputs: Tensor | None = None,
    wires: Any = None,
    *,
    state: Tensor | None = None,
    dtype: torch.dtype = torch.complex64,
    bit_order: str = "big",
    backend: str = "auto",
) -> Tensor:
    r"""Run a circuit and return the probabilities of the results of measuring some wires.

    .. math:: p_j = \sum_{i: i_{wires} = j} \lvert \psi_i \rvert^2

    Args:
        program: the circuit.
        params: [P], as in :func:`statevector`.
        inputs: [..., Pb], as in :func:`statevector`.
        wires: m distinct wires in the order of a result's bits; None (default): all.
        state: as in :func:`statevector`.
        dtype: complex64 (default) or complex128.
        bit_order: "big" (default): the first of wires is a result's most significant bit;
            "little": the least. It is state's order too.
        backend: as in :func:`statevector`.

    Returns:
        p, [B, 2**m] in dtype's real type. Differentiable.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`statevector`, and for wires.

    Notes:
        As :func:`statevector`, and a sum over psi.

    Source:
        Nielsen and Chuang, Quantum Computation and Quantum Information, section 2.2.5.

    >>> from saccade.ops import Program, instruction
    >>> bell = Program(2, (instruction("h", 0), instruction("cx", (0, 1))))
    >>> probabilities(bell, wires=[1])
    tensor([[0.5000, 0.5000]])
    """
    psi = statevector(
        program, params, inputs, state=state, dtype=dtype, bit_order=bit_order, backend=backend
    )
    n = program.n_wires
    kept = tuple(range(n)) if wires is None else _wires(wires, n)
    p = psi.real.square() + psi.imag.square()
    if kept == tuple(range(n)):
        return p
    batch = p.shape[:-1]
    # the axis of a wire, counted from the first one behind the batch's
    axes = [w if bit_order == "big" else n - 1 - w for w in kept]
    if bit_order == "little":
        axes.reverse()
    rest = [a for a in range(n) if a not in axes]
    p = p.reshape(-1, *(2,) * n).permute(0, *(1 + a for a in axes), *(1 + a for a in rest))
    return p.reshape(*batch, 2 ** len(axes), -1).sum(-1)


def sample(
    program: Program,
    params: Tensor | None,
    inputs: Tensor | None,
    shots: int,
    wires: Any = None,
    *,
    state: Tensor | None = None,
    dtype: torch.dtype = torch.complex64,
    bit_order: str = "big",
    generator: torch.Generator | None = None,
    backend: str = "auto",
) -> Tensor:
    """Run a circuit once and draw the results of measuring some wires many times.

    Args:
        program: the circuit.
        params: [P], as in :func:`statevector`.
        inputs: [..., Pb], as in :func:`statevector`.
        shots: how many results for every sample, at least 0.
        wires: as in :func:`probabilities`.
        state: as in :func:`statevector`.
        dtype: complex64 (default) or complex128.
        bit_order: of the bits of a result, as in :func:`probabilities`.
        generator: where the random numbers come from. Default: torch's own.
        backend: as in :func:`statevector`.

    Returns:
        Results as numbers, [B, shots] in int64; bit k of m from the left (big) is
        `results >> (m - 1 - k) & 1`. No gradient.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`probabilities`, and for shots; a sample whose
            probabilities are not numbers.

    Notes:
        A running sum of the probabilities in float64 and a binary search a shot.

    Source:
        Nielsen and Chuang, Quantum Computation and Quantum Information, section 2.2.5.

    >>> from saccade.ops import Program, instruction
    >>> sample(Program(3, (instruction("x", 1),)), None, None, 4)
    tensor([[2, 2, 2, 2]])
    """
    if isinstance(shots, bool) or not isinstance(shots, int):
        raise TypeError(f"shots must be an int, got {shots!r}.")
    if shots < 0:
        raise ValueError(f"shots must be at least 0, got {shots}.")
    with torch.no_grad():
        p = probabilities(
            program, params, inputs, wires, state=state, dtype=dtype, bit_order=bit_order,
            backend=backend,
        )  # fmt: skip
        sums = p.double().cumsum(-1)
        total = sums[..., -1:]
        if not bool(torch.isfinite(total).all()):
            raise ValueError(
                "the probabilities of a sample are not finite: no result can be drawn."
            )
        draws = torch.rand(
            (*p.shape[:-1], shots), dtype=torch.float64, device=p.device, generator=generator
        )
        # rounding may put a draw on the total itself: the last result that has a probability
        last = (p > 0).long().mul(torch.arange(1, p.shape[-1] + 1, device=p.device)).amax(-1) - 1
        found = torch.searchsorted(sums, draws * total, right=True)
        return torch.minimum(found, last.clamp_min(0).unsqueeze(-1))


class _Call(NamedTuple):
    params: Tensor  # [P]
    inputs: Tensor  # [B, Pb]
    state: Tensor | None  # [B, 2**n]
    batch: tuple[int, ...]


def _arguments(program: Any, params: Any, inputs: Any, state: Any, dtype: Any) -> _Call:
    if not isinstance(program, Program):
        raise TypeError(f"program must be a saccade.ops.Program, got {type(program).__name__}.")
    if dtype not in DTYPES:
        raise TypeError(f"dtype must be torch.complex64 or torch.complex128, got {dtype!r}.")
    real = DTYPES[dtype]
    given = [t for t in (params, inputs, state) if t is not None]
    for name, tensor in (("params", params), ("inputs", inputs)):
        if tensor is not None:
            _checks.floating_tensor(name, tensor)
    if state is not None:
        _complex_tensor(state, 2**program.n_wires)
    for tensor in given:
        if tensor.device != given[0].device:
            raise ValueError(
                f"params, inputs and state must be on one device, got {given[0].device} and "
                f"{tensor.device}."
            )
    device = given[0].device if given else None
    if params is None:
        params = torch.empty(0, dtype=real, device=device)
    if params.shape != (program.n_params,):
        raise ValueError(
            f"params must have shape [P] = ({program.n_params},), got {tuple(params.shape)}."
        )
    if inputs is None and program.n_inputs:
        raise ValueError(f"inputs must have shape [..., {program.n_inputs}], got None.")
    if inputs is not None and (inputs.dim() < 1 or inputs.shape[-1] != program.n_inputs):
        raise ValueError(
            f"inputs must have shape [..., Pb] = [..., {program.n_inputs}], "
            f"got {tuple(inputs.shape)}."
        )
    batch: tuple[int, ...] = (1,)
    if inputs is not None and state is not None:
        batch = _broadcast(inputs.shape[:-1], state.shape[:-1])
    elif inputs is not None or state is not None:
        batch = tuple((inputs if state is None else state).shape[:-1])
    if inputs is None:
        inputs = params.new_empty((*batch, 0))
    count = _numel(batch)
    rows = inputs.expand(*batch, inputs.shape[-1]).reshape(count, inputs.shape[-1])
    if state is not None:
        size = state.shape[-1]
        state = state.to(dtype).expand(*batch, size).reshape(count, size)
    return _Call(params.to(real), rows.to(real), state, batch)


def _numel(batch: tuple[int, ...]) -> int:
    count = 1
    for axis in batch:
        count *= axis
    return count


def _broadcast(a: torch.Size, b: torch.Size) -> tuple[int, ...]:
    try:
        return tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        raise ValueError(
            f"the leading axes of inputs and state must broadcast, got {tuple(a)} and {tuple(b)}."
        ) from None


def _complex_tensor(state: Any, size: int) -> None:
    if not isinstance(state, Tensor):
        raise TypeError(f"state must be a torch.Tensor, got {type(state).__name__}.")
    if not (state.is_complex() or state.dtype in _checks.FLOATING):
        raise TypeError(f"state must be complex or floating, got {state.dtype}.")
    if state.dim() < 1 or state.shape[-1] != size:
        raise ValueError(
            f"state must have shape [..., 2**n] = [..., {size}], got {tuple(state.shape)}."
        )


def _wires(wires: Any, n: int) -> tuple[int, ...]:
    kept = (wires,) if isinstance(wires, int) else tuple(wires)
    for wire in kept:
        if type(wire) is not int:
            raise TypeError(f"wires must hold ints, got {wire!r}.")
        if not 0 <= wire < n:
            raise ValueError(f"wires must be from 0 to {n - 1}, got {wire}.")
    if len(set(kept)) != len(kept):
        raise ValueError(f"wires must be distinct, got {kept}.")
    return kept


@constant
def _plan(program: Program, zero: bool, little: bool) -> Plan:
    return plan(program, zero, little, None)


@constant
def _plan_of_observables(program: Program, zero: bool, observables: Any) -> Plan:
    return plan(program, zero, False, pauli_sums(observables, program.n_wires))
