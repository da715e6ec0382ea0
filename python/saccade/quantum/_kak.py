"""Cartan's decomposition of a two-qubit gate: local gates around a sum of XX, YY and ZZ."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_R = math.sqrt(0.5)
# in this basis SU(2) x SU(2) is SO(4), and XX, YY, ZZ are diagonal
MAGIC = torch.tensor(
    [[_R, 0, 0, _R * 1j], [0, _R * 1j, _R, 0], [0, _R * 1j, -_R, 0], [_R, 0, 0, -_R * 1j]],
    dtype=torch.complex128,
)
PAULI = {
    "I": torch.eye(2, dtype=torch.complex128),
    "X": torch.tensor([[0, 1], [1, 0]], dtype=torch.complex128),
    "Y": torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128),
    "Z": torch.tensor([[1, 0], [0, -1]], dtype=torch.complex128),
}


def kak(matrix: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, complex], tuple[Tensor, Tensor]]:
    """Return (A1, A2), u, (B1, B2) with U ~ (A1 x A2) (sum of u[P] P x P) (B1 x B2).

    Equal up to a phase. Source: Kraus and Cirac, Phys. Rev. A 63, 062309 (2001), appendix.
    """
    special = matrix / torch.linalg.det(matrix) ** 0.25
    m = MAGIC.mH @ special @ MAGIC
    # m = K1 D K2 with orthogonal K1, K2 and a diagonal D, so m^T m = K2^T D^2 K2
    basis = _eigenvectors(m.mT @ m)
    phases = torch.diagonal(basis.mT.to(m.dtype) @ m.mT @ m @ basis.to(m.dtype)).angle() / 2
    left = (m @ basis.to(m.dtype) @ torch.diag(torch.exp(-1j * phases))).real
    if torch.linalg.det(left) < 0:
        phases[0] += math.pi
        left[:, 0] *= -1
    middle = MAGIC @ torch.diag(torch.exp(1j * phases)) @ MAGIC.mH
    weights = {
        letter: complex(torch.trace(torch.kron(p, p) @ middle)) / 4 for letter, p in PAULI.items()
    }
    first = _factors(MAGIC @ left.to(m.dtype) @ MAGIC.mH)
    last = _factors(MAGIC @ basis.mT.to(m.dtype) @ MAGIC.mH)
    return first, weights, last


def _eigenvectors(symmetric: Tensor) -> Tensor:
    """Real eigenvectors, with determinant 1, of a unitary symmetric matrix.

    Real and imaginary part commute; a mixture of both has their common eigenvectors unless two
    eigenvalues of the mixture meet by accident, so the mixture with the smallest rest is taken.
    """
    best, rest = torch.empty(0), math.inf
    for step in range(16):
        angle = 0.37 + step * math.pi / 16
        mixed = math.cos(angle) * symmetric.real + math.sin(angle) * symmetric.imag
        vectors = torch.linalg.eigh((mixed + mixed.mT) / 2).eigenvectors
        turned = vectors.mT.to(symmetric.dtype) @ symmetric @ vectors.to(symmetric.dtype)
        off = (turned - torch.diag(torch.diagonal(turned))).abs().max().item()
        if off < rest:
            best, rest = vectors, off
    if torch.linalg.det(best) < 0:
        best[:, 0] *= -1
    return best


def _factors(product: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of A x B, both unitary."""
    rows = product.reshape(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)
    u, s, vh = torch.linalg.svd(rows)
    a = u[:, 0].reshape(2, 2) * s[0].sqrt()
    b = vh[0].reshape(2, 2) * s[0].sqrt()
    scale = torch.linalg.vector_norm(a) * _R
    return a / scale, b * scale
