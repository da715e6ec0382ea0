"""Quantum circuits as immutable data: what the state-vector operator runs, hashes and caches."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_WIRES = 30
MAX_CONTROLS = 3
MAX_UNITARY_WIRES = 4
SOURCES = ("constant", "param", "input")


@dataclass(frozen=True)
class Value:
    """An angle: coefficient * params[index] + offset, the same of inputs, or the offset alone."""

    source: str = "constant"
    index: int = 0
    coefficient: float = 1.0
    offset: float = 0.0


def fixed_angle(value: float) -> Value:
    """Return a fixed angle in radians."""
    return Value("constant", 0, 0.0, float(value))


def param_angle(index: int, coefficient: float = 1.0, offset: float = 0.0) -> Value:
    """Return an angle made of params[index], which all samples share."""
    return Value("param", index, float(coefficient), float(offset))


def input_angle(index: int, coefficient: float = 1.0, offset: float = 0.0) -> Value:
    """Return an angle made of inputs[..., index], which every sample has for itself."""
    return Value("input", index, float(coefficient), float(offset))


class Gate(NamedTuple):
    """How many wires and angles a gate has, and its number in the encoding."""

    code: int
    wires: int  # 0: as many as are given
    values: int


# fmt: off
GATES: dict[str, Gate] = {
    "id": Gate(0, 1, 0),
    "h": Gate(1, 1, 0), "x": Gate(2, 1, 0), "y": Gate(3, 1, 0), "z": Gate(4, 1, 0),
    "s": Gate(5, 1, 0), "sdg": Gate(6, 1, 0), "t": Gate(7, 1, 0), "tdg": Gate(8, 1, 0),
    "sx": Gate(9, 1, 0), "sxdg": Gate(10, 1, 0),
    "rx": Gate(11, 1, 1), "ry": Gate(12, 1, 1), "rz": Gate(13, 1, 1), "p": Gate(14, 1, 1),
    "u3": Gate(15, 1, 3), "rot": Gate(16, 1, 3),
    "swap": Gate(17, 2, 0), "iswap": Gate(18, 2, 0), "ecr": Gate(19, 2, 0),
    "pauli_rot": Gate(20, 0, 1), "unitary": Gate(21, 0, 0), "gphase": Gate(22, 0, 1),
}

# Other names: the gate that is meant, and how many of the first wires control it.
ALIASES: dict[str, tuple[str, int]] = {
    "i": ("id", 0), "u": ("u3", 0), "phase": ("p", 0),
    "cx": ("x", 1), "cnot": ("x", 1), "cy": ("y", 1), "cz": ("z", 1), "ch": ("h", 1),
    "cs": ("s", 1), "csdg": ("sdg", 1), "csx": ("sx", 1),
    "crx": ("rx", 1), "cry": ("ry", 1), "crz": ("rz", 1), "cp": ("p", 1), "cu3": ("u3", 1),
    "cswap": ("swap", 1), "ccx": ("x", 2), "toffoli": ("x", 2), "ccz": ("z", 2),
}
ROTATIONS = {"rxx": "XX", "ryy": "YY", "rzz": "ZZ", "rzx": "ZX"}
# fmt: on


@dataclass(frozen=True)
class Instruction:
    """A gate in its canonical form; :func:`instruction` makes and checks one.

    Attributes:
        name: of `GATES`.
        wires: the gate's own wires, most significant first.
        values: its angles.
        controls: wires that must all be 1.
        pauli: of a "pauli_rot": a letter X, Y or Z a wire.
        matrix: of a "unitary": row after row.
    """

    name: str
    wires: tuple[int, ...]
    values: tuple[Value, ...] = ()
    controls: tuple[int, ...] = ()
    pauli: str = ""
    matrix: tuple[complex, ...] = ()


def instruction(
    name: str,
    wires: int | Sequence[int],
    values: Value | float | Iterable[Value | float] = (),
    *,
    controls: Sequence[int] = (),
    pauli: str = "",
    matrix: Any = None,
) -> Instruction:
    """Check a gate and bring it into its canonical form.

    Args:
        name: of `GATES` or `ALIASES` or "rxx", "ryy", "rzz", "rzx"; aliases such as "cx" have
            their controls first in wires.
        wires: distinct, in the gate's order.
        values: the angles, as :func:`fixed_angle`, :func:`param_angle`, :func:`input_angle` or
            numbers.
        controls: at most 3 further wires that must be 1; of a "unitary" at most 4 wires together.
        pauli: the letters of a "pauli_rot", exp(-i t P / 2); I is left out.
        matrix: of a "unitary": 2**k x 2**k on k <= 4 wires, the first the most significant.

    Raises:
        TypeError, ValueError: what is given is not a gate.
    """
    own = (wires,) if isinstance(wires, int) else tuple(wires)
    extra = tuple(controls)
    if name in ROTATIONS:
        name, pauli = "pauli_rot", ROTATIONS[name]
    if name in ALIASES:
        name, count = ALIASES[name]
        extra, own = extra + own[:count], own[count:]
    if name not in GATES:
        known = ", ".join(sorted([*GATES, *ALIASES, *ROTATIONS]))
        raise ValueError(f"name must be one of {known}, got {name!r}.")
    gate = GATES[name]
    angles = tuple(_value(v) for v in ((values,) if _is_value(values) else values))  # type: ignore[union-attr]
    if len(angles) != gate.values:
        raise ValueError(f"{name} must have {gate.values} angles, got {len(angles)}.")
    if name == "pauli_rot":
        own, pauli = _pauli_word(own, pauli)
    elif gate.wires and len(own) != gate.wires:
        raise ValueError(f"{name} must have {gate.wires} wires, got {own}.")
    elif name == "gphase" and own:
        raise ValueError(f"gphase must have no wires, got {own}.")
    for wire in (*own, *extra):
        if type(wire) is not int or wire < 0:
            raise ValueError(f"wires must be ints of at least 0, got {wire!r} in {name}.")
    if len({*own, *extra}) != len(own) + len(extra):
        raise ValueError(f"{name} must have distinct wires, got {own}, controls {extra}.")
    if len(extra) > MAX_CONTROLS:
        raise ValueError(f"{name} must have at most {MAX_CONTROLS} controls, got {len(extra)}.")
    entries = _unitary(own, extra, matrix) if name == "unitary" else ()
    if name != "unitary" and matrix is not None:
        raise ValueError(f"{name} takes no matrix.")
    if name == "gphase" and extra:  # a phase under controls is a phase of the last one
        name, own, extra = "p", extra[-1:], extra[:-1]
    if name == "pauli_rot" and not own:
        name, extra, own, pauli, angles = _identity_rotation(extra, angles[0])
    return Instruction(name, own, angles, extra, pauli, entries)


def _identity_rotation(controls: tuple[int, ...], angle: Value) -> tuple[Any, ...]:
    """exp(-i t / 2): a phase."""
    half = replace(angle, coefficient=-angle.coefficient / 2, offset=-angle.offset / 2)
    name = "p" if controls else "gphase"
    return name, controls[:-1], controls[-1:], "", (half,)


def _is_value(given: Any) -> bool:
    return isinstance(given, (Value, int, float))


def _value(entry: Any) -> Value:
    if not isinstance(entry, Value):
        if isinstance(entry, bool) or not isinstance(entry, (int, float)):
            raise TypeError(f"an angle must be a Value or a number, got {entry!r}.")
        entry = fixed_angle(entry)
    given: Value = entry
    if given.source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {given.source!r}.")
    if type(given.index) is not int or given.index < 0:
        raise ValueError(f"index must be an int of at least 0, got {given.index!r}.")
    if not (math.isfinite(given.coefficient) and math.isfinite(given.offset)):
        raise ValueError(f"coefficient and offset must be finite, got {given}.")
    return given


def _pauli_word(wires: tuple[int, ...], pauli: str) -> tuple[tuple[int, ...], str]:
    if not isinstance(pauli, str) or set(pauli) - set("IXYZ") or len(pauli) != len(wires):
        raise ValueError(
            f"pauli must have a letter of IXYZ for each of {len(wires)} wires, got {pauli!r}."
        )
    if len(set(wires)) != len(wires):
        raise ValueError(f"pauli_rot must have distinct wires, got {wires}.")
    kept = [(w, letter) for w, letter in zip(wires, pauli, strict=True) if letter != "I"]
    return tuple(w for w, _ in kept), "".join(letter for _, letter in kept)


def _unitary(wires: tuple[int, ...], controls: tuple[int, ...], matrix: Any) -> tuple[complex, ...]:
    count = len(wires) + len(controls)
    if not wires or count > MAX_UNITARY_WIRES:
        raise ValueError(
            f"unitary must have 1 to {MAX_UNITARY_WIRES} wires, controls included, got {count}."
        )
    if matrix is None:
        raise ValueError("unitary must have a matrix.")
    tensor = torch.as_tensor(matrix, dtype=torch.complex128).detach().cpu()
    size = 2 ** len(wires)
    if tensor.shape != (size, size):
        raise ValueError(
            f"matrix must have shape {(size, size)} for {len(wires)} wires, "
            f"got {tuple(tensor.shape)}."
        )
    off = (tensor @ tensor.mH - torch.eye(size, dtype=tensor.dtype)).abs().max().item()
    if not off < 1e-6:
        raise ValueError(f"matrix must be unitary, U U^+ differs from 1 by {off:.3g}.")
    return tuple(tensor.flatten().tolist())


@dataclass(frozen=True)
class Program:
    """A circuit of n_wires qubits; equal programs have equal hashes, and plans are cached by them.

    Args:
        n_wires: 1 to 30.
        instructions: in time's order, of :func:`instruction`.
        n_params: length of the shared parameters; None (default): as many as are used.
        n_inputs: numbers of a sample; None (default): as many as are used.

    Raises:
        TypeError, ValueError: a wire or an index is out of range.

    >>> bell = Program(2, (instruction("h", 0), instruction("cx", (0, 1))))
    >>> bell.n_params, bell.n_inputs
    (0, 0)
    """

    n_wires: int
    instructions: tuple[Instruction, ...] = ()
    n_params: int | None = None
    n_inputs: int | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        n = self.n_wires
        if type(n) is not int or not 1 <= n <= MAX_WIRES:
            raise ValueError(f"n_wires must be an int from 1 to {MAX_WIRES}, got {n!r}.")
        object.__setattr__(self, "instructions", tuple(self.instructions))
        used = {"param": 0, "input": 0, "constant": 0}
        for step, entry in enumerate(self.instructions):
            if not isinstance(entry, Instruction):
                raise TypeError(f"instructions must hold Instructions, got {entry!r} at {step}.")
            if max((*entry.wires, *entry.controls), default=0) >= n:
                raise ValueError(
                    f"wires must be below n_wires = {n}, got {entry.wires} and controls "
                    f"{entry.controls} at instruction {step}, {entry.name}."
                )
            for value in entry.values:
                used[value.source] = max(used[value.source], value.index + 1)
        for name, source in (("n_params", "param"), ("n_inputs", "input")):
            given = getattr(self, name)
            if given is None:
                object.__setattr__(self, name, used[source])
            elif type(given) is not int or given < used[source]:
                raise ValueError(
                    f"{name} must be an int of at least {used[source]}, got {given!r}."
                )
        key = (n, self.instructions, self.n_params, self.n_inputs)
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash

    def encode(self) -> tuple[Tensor, Tensor]:
        """Return the instructions as numbers: a stream of int32 and one of float64.

        An instruction is the ints (code, wires, controls, values), its wires, its controls, a pair
        (source, index) a value, and for a "pauli_rot" a letter (1 X, 2 Y, 3 Z) a wire; and the
        floats (coefficient, offset) a value, and for a "unitary" the entries, real and imaginary.
        """
        return _encode(self)


@functools.lru_cache(maxsize=256)
def _encode(program: Program) -> tuple[Tensor, Tensor]:
    ints: list[int] = []
    floats: list[float] = []
    for entry in program.instructions:
        counts = (len(entry.wires), len(entry.controls), len(entry.values))
        ints += [GATES[entry.name].code, *counts, *entry.wires, *entry.controls]
        for value in entry.values:
            ints += [SOURCES.index(value.source), value.index]
            floats += [value.coefficient, value.offset]
        ints += [" XYZ".index(letter) for letter in entry.pauli]
        for number in entry.matrix:
            floats += [number.real, number.imag]
    return torch.tensor(ints, dtype=torch.int32), torch.tensor(floats, dtype=torch.float64)


class PauliSums(tuple[tuple[tuple[float, str], ...], ...]):
    """K observables, checked by :func:`pauli_sums`: each a sum of (coefficient, Pauli string)."""

    __slots__ = ()


def pauli_sums(observables: Any, n_wires: int) -> PauliSums:
    """Check observables: a Pauli string or {string: coefficient}, or a sequence of these.

    The result can be given instead of them, which torch.compile needs where there are coefficients.

    Raises:
        TypeError, ValueError: a string has other letters than IXYZ or not one a wire, or a
            coefficient is not a finite number.
    """
    if isinstance(observables, PauliSums):
        observables = [{word: c for c, word in terms} for terms in observables]
    if isinstance(observables, (str, Mapping)):
        observables = (observables,)
    if not isinstance(observables, Sequence):
        raise TypeError(
            f"observables must be a sequence of Pauli strings or dicts, got {observables!r}."
        )
    return PauliSums(_pauli_sum(entry, n_wires) for entry in observables)


def _pauli_sum(entry: Any, n_wires: int) -> tuple[tuple[float, str], ...]:
    if isinstance(entry, str):
        entry = {entry: 1.0}
    if not isinstance(entry, Mapping):
        raise TypeError(f"an observable must be a Pauli string or a dict, got {entry!r}.")
    terms = []
    for word, coefficient in entry.items():
        if not isinstance(word, str) or len(word) != n_wires or set(word) - set("IXYZ"):
            raise ValueError(
                f"a Pauli string must have a letter of IXYZ for each of {n_wires} wires, "
                f"got {word!r}."
            )
        if isinstance(coefficient, bool) or not isinstance(coefficient, (int, float)):
            raise TypeError(f"a coefficient must be a number, got {coefficient!r} for {word}.")
        if not math.isfinite(coefficient):
            raise ValueError(f"a coefficient must be finite, got {coefficient} for {word}.")
        terms.append((float(coefficient), word))
    return tuple(terms)
