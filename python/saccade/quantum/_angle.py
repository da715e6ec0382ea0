"""Angles of gates: numbers, shared parameters, columns of the inputs, and affine sums of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Symbol(NamedTuple):
    """What an angle is made of: source "param" or "input", and its name or index."""

    source: str
    key: str | int

    def __str__(self) -> str:
        if isinstance(self.key, str):
            return self.key
        return f"{'theta' if self.source == 'param' else 'x'}[{self.key}]"


@dataclass(frozen=True)
class Angle:
    """An affine expression, constant + sum of coefficient * symbol, in radians.

    :func:`param` and :func:`feature` make them; they add, subtract and scale like numbers.

    >>> print(2 * param("a") - feature(3) / 2 + 1)
    2*a - 0.5*x[3] + 1
    """

    constant: float = 0.0
    terms: tuple[tuple[Symbol, float], ...] = ()

    def __add__(self, other: AngleLike) -> Angle:
        other = angle(other)
        terms = dict(self.terms)
        for symbol, coefficient in other.terms:
            terms[symbol] = terms.get(symbol, 0.0) + coefficient
        kept = tuple((symbol, c) for symbol, c in terms.items() if c != 0.0)
        return Angle(self.constant + other.constant, kept)

    def __mul__(self, factor: float) -> Angle:
        if isinstance(factor, Angle):
            raise TypeError(f"angles are affine: ({self}) * ({factor}) is not.")
        terms = tuple((symbol, factor * c) for symbol, c in self.terms if factor * c != 0.0)
        return Angle(factor * self.constant, terms)

    def __truediv__(self, divisor: float) -> Angle:
        if isinstance(divisor, Angle):
            raise TypeError(f"angles are affine: ({self}) / ({divisor}) is not.")
        return self * (1 / divisor)

    def __neg__(self) -> Angle:
        return self * -1.0

    def __sub__(self, other: AngleLike) -> Angle:
        return self + -angle(other)

    def __rsub__(self, other: AngleLike) -> Angle:
        return angle(other) - self

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for symbol, coefficient in self.terms:
            size = abs(coefficient)
            word = str(symbol) if size == 1 else f"{_number(size)}*{symbol}"
            sign = " - " if coefficient < 0 else " + "
            text += (sign if text else "-" if coefficient < 0 else "") + word
        if not text:
            return _number(self.constant)
        if self.constant:
            text += f" {'-' if self.constant < 0 else '+'} {_number(abs(self.constant))}"
        return text


AngleLike: TypeAlias = "Angle | str | float"


def param(key: str | int) -> Angle:
    """Return a shared parameter by its name, or by its index in the tensor params."""
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise TypeError(f"a parameter has a name or an index, got {key!r}.")
    if key == "" or (isinstance(key, int) and key < 0):
        raise ValueError(f"a parameter has a name or an index of at least 0, got {key!r}.")
    return Angle(0.0, ((Symbol("param", key), 1.0),))


def feature(index: int) -> Angle:
    """Return column `index` of the inputs, of which every sample has its own."""
    if isinstance(index, bool) or not isinstance(index, int):
        raise TypeError(f"a feature has an index, got {index!r}.")
    if index < 0:
        raise ValueError(f"a feature's index must be at least 0, got {index}.")
    return Angle(0.0, ((Symbol("input", index), 1.0),))


def angle(given: AngleLike) -> Angle:
    """Read an angle: a number in radians, an Angle, or the name of a shared parameter."""
    if isinstance(given, Angle):
        result = given
    elif isinstance(given, str):
        result = param(given)
    elif isinstance(given, (bool, complex)) or not hasattr(given, "__float__"):
        raise TypeError(
            f"an angle must be a number, a parameter's name, or made of param() and feature(), "
            f"got {given!r}."
        )
    else:
        result = Angle(float(given))
    numbers = (result.constant, *(c for _, c in result.terms))
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"an angle must have finite numbers, got {result}.")
    return result


def _number(value: float) -> str:
    """Multiples of pi as such."""
    for divisor in (1, 2, 3, 4, 6, 8, 16):
        times = value * divisor / math.pi
        if 0.1 < abs(times) < 33 and round(times) and abs(times - round(times)) < 1e-12:
            whole = round(times)
            text = {1: "pi", -1: "-pi"}.get(whole, f"{whole}*pi")
            return text if divisor == 1 else f"{text}/{divisor}"
    return f"{value:.4g}"
