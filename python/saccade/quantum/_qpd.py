"""Quasi-probability decompositions: a gate or a wire as a signed sum of local operations.

A gate U = sum_k u_k A_k x B_k of Hermitian unitary words acts as

    U (s x t) U^+ = sum_kl u_k conj(u_l) (A_k s A_l) x (B_k t B_l).

With A_k s A_l = S - i D, both Hermitian, a pair k < l of the sum is 2 Re(w) (S S' - D D')
+ 2 Im(w) (S D' + D S') for w = u_k conj(u_l). S and D are each a signed measurement or half the
difference of two unitaries. Source: Mitarai and Fujii, New J. Phys. 23, 023021 (2021); Piveteau and
Sutter, arXiv 2205.00016, for gamma.

Each local operation is linear in the few Kraus operators of a table, s -> K s K^+, of which a state
vector can take each: m words need m**2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saccade.quantum._angle import Angle
from saccade.quantum._kak import PAULI

TINY = 1e-13


@dataclass(frozen=True)
class Term:
    """factor * functions[function] times a local operation on each side.

    The operations are coefficients of the rows of the tables.
    """

    function: int
    factor: float
    first: tuple[float, ...]
    second: tuple[float, ...]


@dataclass(frozen=True)
class Decomposition:
    """A cut: tables of Kraus operators for both sides, and the terms.

    Attributes:
        tables: [R, 2**w, 2**w] for each side.
        terms: the signed sum.
        angle: t of a rotation, whose functions are cos^2 t/2, sin^2 t/2 and sin t; None: 1 alone.
    """

    tables: tuple[Tensor, Tensor]
    terms: tuple[Term, ...]
    angle: Angle | None = None
    matrices: Tensor = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        first, second = self.tables
        count = 1 if self.angle is None else 3
        found = torch.zeros(count, len(first), len(second), dtype=torch.float64)
        for term in self.terms:
            outer = torch.outer(*(found.new_tensor(v) for v in (term.first, term.second)))
            found[term.function] += term.factor * outer
        object.__setattr__(self, "matrices", found)

    def functions(self, t: Tensor | None) -> Tensor:
        """Values of the functions of an angle [...], shape [..., F]."""
        if self.angle is None or t is None:
            return torch.ones(1, dtype=torch.float64)
        c = torch.cos(t)
        return torch.stack([(1 + c) / 2, (1 - c) / 2, torch.sin(t)], -1)

    def coefficients(self, functions: Tensor) -> Tensor:
        """Those of the terms, [..., number of terms]."""
        index = torch.tensor([t.function for t in self.terms], device=functions.device)
        factors = [t.factor for t in self.terms]
        return functions[..., index] * functions.new_tensor(factors)

    @property
    def gamma(self) -> float:
        """Sum of the absolute coefficients; of a symbolic angle the largest there is."""
        if self.angle is not None and self.angle.terms:
            # cos^2 + sin^2 + 2 |sin t|
            t: Tensor | None = torch.tensor(math.pi / 2, dtype=torch.float64)
        else:
            constant = None if self.angle is None else self.angle.constant
            t = None if constant is None else torch.tensor(constant, dtype=torch.float64)
        return self.coefficients(self.functions(t)).abs().sum().item()


def _table(words: Sequence[Tensor]) -> Tensor:
    """The words, and (P + Q)/sqrt 2 and (P + i Q)/sqrt 2 of every pair."""
    rows = list(words)
    for p, q in itertools.combinations(words, 2):
        rows += [(p + q) * math.sqrt(0.5), (p + 1j * q) * math.sqrt(0.5)]
    return torch.stack(rows)


Vector = tuple[float, ...]
Weighted = list[tuple[float, Vector]]


def _vector(size: int, entries: dict[int, float]) -> Vector:
    return tuple(entries.get(k, 0.0) for k in range(size))


def _pair(m: int, p: int, q: int, projects: bool) -> tuple[Weighted, Weighted]:
    """S and D of words p < q by operations with their weights, in the rows of a table.

    With K1 = (P + Q)/sqrt 2 and K2 = (P + i Q)/sqrt 2: S = K1 - (P + Q)/2, D = (P + Q)/2 - K2,
    each as s -> K s K^+. P is I: K1 projects, K2 is unitary. P and Q anticommute: the other way.
    """
    size = m * m
    row = m + 2 * list(itertools.combinations(range(m), 2)).index((p, q))
    measured_s = _vector(size, {row: 1.0, p: -0.5, q: -0.5})
    measured_d = _vector(size, {row + 1: -1.0, p: 0.5, q: 0.5})
    if projects:
        minus = _vector(size, {row + 1: -1.0, p: 1.0, q: 1.0})
        plus = _vector(size, {row + 1: 1.0})
        return [(1.0, measured_s)], [(0.5, minus), (-0.5, plus)]
    plus = _vector(size, {row: 1.0})
    minus = _vector(size, {row: -1.0, p: 1.0, q: 1.0})
    return [(0.5, plus), (-0.5, minus)], [(1.0, measured_d)]


def _products(function: int, weight: float, firsts: Weighted, seconds: Weighted) -> list[Term]:
    if abs(weight) < TINY:
        return []
    return [Term(function, weight * a * b, v, w) for a, v in firsts for b, w in seconds]


def of_gate(weights: dict[str, complex]) -> Decomposition:
    """Sum of u[P] P x P over I, X, Y, Z, as Cartan's decomposition gives it."""
    kept = [(letter, u) for letter, u in weights.items() if abs(u) > TINY]
    m = len(kept)
    words = [PAULI[letter] for letter, _ in kept]
    unit = [_vector(m * m, {k: 1.0}) for k in range(m)]
    terms = [Term(0, abs(u) ** 2, unit[k], unit[k]) for k, (_, u) in enumerate(kept)]
    for p, q in itertools.combinations(range(m), 2):
        w = kept[p][1] * kept[q][1].conjugate()
        s, d = _pair(m, p, q, projects=kept[p][0] == "I")
        terms += _products(0, 2 * w.real, s, s) + _products(0, -2 * w.real, d, d)
        terms += _products(0, 2 * w.imag, s, d) + _products(0, 2 * w.imag, d, s)
    return Decomposition((_table(words), _table(words)), tuple(terms))


def of_rotation(first: Tensor, second: Tensor, t: Angle) -> Decomposition:
    """exp(-i t P x Q / 2) of Hermitian unitary matrices P and Q: gamma = 1 + 2 |sin t|."""
    one, word = _vector(4, {0: 1.0}), _vector(4, {1: 1.0})
    s, d = _pair(2, 0, 1, projects=True)
    # u = (cos t/2, -i sin t/2), so w = i sin(t) / 2
    terms = [Term(0, 1.0, one, one), Term(1, 1.0, word, word)]
    terms += _products(2, 1.0, s, d) + _products(2, 1.0, d, s)
    tables = [_table([torch.eye(len(p), dtype=torch.complex128), p]) for p in (first, second)]
    return Decomposition((tables[0], tables[1]), tuple(terms), t)


def of_wire() -> Decomposition:
    """The identity on a qubit: measured on one side, prepared on the other; gamma = 4.

    s = sum over P in I, X, Y, Z of tr(P s) P / 2. The first table projects on what is then traced
    out; the second one acts on |0>.
    """
    eye, x, y, z = (PAULI[letter] for letter in "IXYZ")
    project = torch.stack([eye, *((eye + p) / 2 for p in (x, y, z))])
    h = (x + z) * math.sqrt(0.5)
    s = torch.diag(torch.tensor([1, 1j], dtype=torch.complex128))
    prepare = torch.stack([eye, x, h, s @ h])
    trace, zero, one = (1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
    terms = [Term(0, 0.5, trace, zero), Term(0, 0.5, trace, one)]
    pairs = {
        1: ((0.0, 0.0, 1.0, 0.0), (1.0, 1.0, -1.0, 0.0)),  # |+>, |->
        2: ((0.0, 0.0, 0.0, 1.0), (1.0, 1.0, 0.0, -1.0)),  # |+i>, |-i>
        3: (zero, one),
    }
    for row, (plus, minus) in pairs.items():
        measured = tuple(-1.0 if k == 0 else 2.0 * (k == row) for k in range(4))
        terms += [Term(0, 0.5, measured, plus), Term(0, -0.5, measured, minus)]
    return Decomposition((project, prepare), tuple(terms))
