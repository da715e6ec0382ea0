"""State vectors of quantum circuits, gate after gate: every gate is a matrix on its wires."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:  # the reference stands below the operators
    from saccade.ops._statevector_program import Instruction, Program

_R = math.sqrt(0.5)
_T = complex(_R, _R)
# fmt: off
CONSTANT: dict[str, list[list[complex]]] = {
    "id": [[1, 0], [0, 1]],
    "h": [[_R, _R], [_R, -_R]],
    "x": [[0, 1], [1, 0]],
    "y": [[0, -1j], [1j, 0]],
    "z": [[1, 0], [0, -1]],
    "s": [[1, 0], [0, 1j]],
    "sdg": [[1, 0], [0, -1j]],
    "t": [[1, 0], [0, _T]],
    "tdg": [[1, 0], [0, _T.conjugate()]],
    "sx": [[(1 + 1j) / 2, (1 - 1j) / 2], [(1 - 1j) / 2, (1 + 1j) / 2]],
    "sxdg": [[(1 - 1j) / 2, (1 + 1j) / 2], [(1 + 1j) / 2, (1 - 1j) / 2]],
    "swap": [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
    "iswap": [[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]],
    "ecr": [[0, 0, _R, _R * 1j], [0, 0, _R * 1j, _R], [_R, -_R * 1j, 0, 0], [-_R * 1j, _R, 0, 0]],
}
# fmt: on


def statevector(
    program: Program,
    params: Tensor | None,
    inputs: Tensor | None,
    state: Tensor | None,
    dtype: torch.dtype,
    bit_order: str = "big",
) -> Tensor:
    """Psi [B, 2**n] = U_G ... U_1 psi_0, where psi_0 is |0...0> or `state` [B or 1, 2**n].

    params [P] are shared, inputs [B, Pb] are per sample; both have the real type of dtype. With
    "big" wire 0 is the most significant bit of an index, with "little" the least.
    """
    n = program.n_wires
    some = next((t for t in (params, inputs, state) if t is not None), None)
    device = None if some is None else some.device
    if state is None:
        batch = 1 if inputs is None else inputs.shape[0]
        psi = torch.zeros((batch, 2**n), dtype=dtype, device=device)
        psi[:, 0] = 1
    else:
        batch = state.shape[0] if inputs is None else inputs.shape[0]
        psi = state.to(dtype).expand(batch, 2**n)
    # axis 1 + w is wire w
    axes = list(range(1, n + 1))
    psi = psi.reshape(batch, *(2,) * n)
    if bit_order == "little":
        psi = psi.permute(0, *reversed(axes))
    for entry in program.instructions:
        u = matrix(entry, params, inputs, dtype, device)
        psi = _apply(psi, u, (*entry.controls, *entry.wires))
    if bit_order == "little":
        psi = psi.permute(0, *reversed(axes))
    return psi.reshape(batch, 2**n)


def matrix(
    entry: Instruction,
    params: Tensor | None,
    inputs: Tensor | None,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Tensor:
    """The matrix of a gate with its controls, which are its most significant bits.

    Shape [2**k, 2**k], or [B, 2**k, 2**k] where an angle is a sample's own.
    """
    real = torch.zeros((), dtype=dtype).real.dtype
    angles = []
    for value in entry.values:
        angle = torch.tensor(value.offset, dtype=real, device=device)
        if value.source == "param":
            angle = value.coefficient * cast("Tensor", params)[value.index] + angle
        elif value.source == "input":
            angle = value.coefficient * cast("Tensor", inputs)[:, value.index] + angle
        angles.append(angle)
    u = _own_matrix(entry, angles, dtype, device)
    for _ in entry.controls:
        size = u.shape[-1]
        eye = torch.eye(size, dtype=dtype, device=device).expand(*u.shape)
        zero = torch.zeros_like(eye)
        u = torch.cat([torch.cat([eye, zero], -1), torch.cat([zero, u], -1)], -2)
    return u


def _own_matrix(
    entry: Instruction, angles: list[Tensor], dtype: torch.dtype, device: Any
) -> Tensor:
    name = entry.name
    if name in CONSTANT:
        return torch.tensor(CONSTANT[name], dtype=dtype, device=device)
    if name == "unitary":
        size = 2 ** len(entry.wires)
        return torch.tensor(entry.matrix, dtype=dtype, device=device).reshape(size, size)
    if name == "gphase":
        return _phase(angles[0])[..., None, None]
    if name == "p":
        return _rows([torch.ones_like(_phase(angles[0])), None, None, _phase(angles[0])])
    if name == "u3":
        t, p, q = torch.broadcast_tensors(*angles)
        c, s = torch.cos(t / 2), torch.sin(t / 2)
        return _rows([c + 0j, -_phase(q) * s, _phase(p) * s, _phase(p + q) * c])
    if name == "rot":
        a, b, c = (_rotation(word, angle, dtype) for word, angle in zip("ZYZ", angles, strict=True))
        return c @ b @ a
    word = entry.pauli if name == "pauli_rot" else name[1].upper()
    return _rotation(word, angles[0], dtype)


def _phase(angle: Tensor) -> Tensor:
    return torch.complex(torch.cos(angle), torch.sin(angle))


def _rows(entries: list[Tensor | None]) -> Tensor:
    some = next(e for e in entries if e is not None)
    filled = [torch.zeros_like(some) if e is None else e for e in entries]
    return torch.stack(filled, -1).reshape(*some.shape, 2, 2)


def _rotation(word: str, angle: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(-i t P / 2) = cos(t/2) - i sin(t/2) P."""
    pauli = torch.ones((1, 1), dtype=dtype, device=angle.device)
    for letter in word:
        one = torch.tensor(CONSTANT[letter.lower()], dtype=dtype, device=angle.device)
        pauli = torch.kron(pauli, one)
    eye = torch.eye(len(pauli), dtype=dtype, device=angle.device)
    half = angle[..., None, None] / 2
    return torch.cos(half) * eye - 1j * torch.sin(half) * pauli


def _apply(psi: Tensor, u: Tensor, wires: tuple[int, ...]) -> Tensor:
    """Contract a matrix with the axes of its wires."""
    k, batch = len(wires), psi.shape[0]
    front = psi.movedim([1 + w for w in wires], list(range(1, k + 1)))
    out = torch.matmul(u, front.reshape(batch, 2**k, -1)).reshape(front.shape)
    return out.movedim(list(range(1, k + 1)), [1 + w for w in wires])


def pauli_word(psi: Tensor, word: str) -> Tensor:
    """P psi for a Pauli string with a letter a wire, psi [B, 2**n] in big order."""
    n, batch = len(word), psi.shape[0]
    out = psi.reshape(batch, *(2,) * n)
    for wire, letter in enumerate(word):
        if letter != "I":
            one = torch.tensor(CONSTANT[letter.lower()], dtype=psi.dtype, device=psi.device)
            out = _apply(out, one, (wire,))
    return out.reshape(batch, 2**n)


def statevector_expval(
    program: Program,
    params: Tensor | None,
    inputs: Tensor | None,
    observables: tuple[tuple[tuple[float, str], ...], ...],
    state: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """<psi|O_k|psi> [B, K] of K sums of (coefficient, Pauli string)."""
    psi = statevector(program, params, inputs, state, dtype)
    columns = []
    for terms in observables:
        value = psi.real.new_zeros(psi.shape[0])
        for coefficient, word in terms:
            value = value + coefficient * (psi.conj() * pauli_word(psi, word)).real.sum(-1)
        columns.append(value)
    return torch.stack(columns, -1) if columns else psi.real.new_zeros((psi.shape[0], 0))
