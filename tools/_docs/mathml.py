r"""Formulas as MathML, which browsers draw by themselves: no script, no font, no network.

A hook of mkdocs: it takes what pymdownx.arithmatex found, `\(...\)` and `\[...\]`, in the part of
LaTeX that docstrings use. An unknown command fails the build.
"""

from __future__ import annotations

import html
import re
from typing import Any

SYMBOLS = {
    "cdot": "⋅", "in": "∈", "sum": "∑", "le": "≤", "ge": "≥", "times": "×", "to": "→",
    "lfloor": "⌊", "rfloor": "⌋", "ldots": "…", "top": "⊤", "partial": "∂", "odot": "⊙",
    "lVert": "‖", "rVert": "‖", "star": "⋆", "lvert": "|", "rvert": "|", "langle": "⟨",
    "rangle": "⟩", "mid": "∣", "circ": "∘", "cdots": "⋯",
}  # fmt: skip
LETTERS = {
    "ell": "ℓ", "rho": "ρ", "Phi": "Φ", "phi": "φ", "pi": "π", "tau": "τ", "sigma": "σ",
    "theta": "θ", "lambda": "λ", "alpha": "α", "Delta": "Δ", "delta": "δ", "epsilon": "ε",
    "psi": "ψ", "varepsilon": "ε",
}  # fmt: skip
FUNCTIONS = ("log", "cos", "sin", "tanh", "exp", "max", "min", "arg")
SPACES = {",": "0.17em", ";": "0.28em", "quad": "1em", "qquad": "2em", " ": "0.25em"}

_TEXT = r"\\(?:mathrm|text|operatorname)\s*\{([^}]*)\}"
_TOKEN = re.compile(_TEXT + r"|\\([A-Za-z]+|.)|(\d+(?:\.\d+)?)|(\S)", re.DOTALL)
_PLACE = re.compile(
    r'<(span|div) class="arithmatex">\s*\\([(\[])(.*?)\\[)\]]\s*</(?:span|div)>', re.DOTALL
)


class _Parser:
    def __init__(self, latex: str) -> None:
        self.tokens = [m.groups() for m in _TOKEN.finditer(latex)]
        self.latex, self.place = latex, 0

    def row(self, closing: str | None = None) -> str:
        """Everything up to the closing brace, or to the end."""
        parts = []
        while self.place < len(self.tokens):
            if closing and self.tokens[self.place][3] == closing:
                self.place += 1
                return f"<mrow>{''.join(parts)}</mrow>"
            parts.append(self.scripted())
        if closing:
            raise ValueError(f"a brace is not closed in the formula {self.latex}")
        return f"<mrow>{''.join(parts)}</mrow>"

    def scripted(self) -> str:
        """An atom with what hangs below and above it."""
        base, under = self.atom(), False
        under = base == "<mo>∑</mo>"
        scripts = {}
        while self.place < len(self.tokens) and self.tokens[self.place][3] in ("_", "^"):
            mark = self.tokens[self.place][3]
            self.place += 1
            scripts[mark] = self.atom()
        names = {
            "_": ("msub", "munder"),
            "^": ("msup", "mover"),
            "_^": ("msubsup", "munderover"),
        }
        if not scripts:
            return base
        tag = names["".join(sorted(scripts, reverse=True))][under]
        return f"<{tag}>{base}{''.join(scripts[m] for m in '_^' if m in scripts)}</{tag}>"

    def atom(self) -> str:
        if self.place == len(self.tokens):
            raise ValueError(f"something is missing at the end of the formula {self.latex}")
        text, command, number, sign = self.tokens[self.place]
        self.place += 1
        if text is not None:
            words = html.escape(text, quote=False).replace(" ", "\u00a0")
            return f"<mtext>{words}</mtext>"
        if command is not None:
            return self.command(command)
        if number:
            return f"<mn>{number}</mn>"
        if sign == "{":
            return self.row("}")
        return f"<mi>{sign}</mi>" if sign.isalpha() else f"<mo>{html.escape(sign)}</mo>"

    def command(self, name: str) -> str:
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}"/>'
        if name in SYMBOLS:
            return f"<mo>{SYMBOLS[name]}</mo>"
        if name in LETTERS:
            return f"<mi>{LETTERS[name]}</mi>"
        if name in FUNCTIONS:
            return f"<mi>{name}</mi><mo>&#8289;</mo>"
        if name in ("big", "Big"):
            return self.atom()
        if name in ("frac", "tfrac"):
            return f"<mfrac>{self.atom()}{self.atom()}</mfrac>"
        raise ValueError(f"the formula {self.latex} uses \\{name}, which {__file__} does not know")


def mathml(latex: str, display: bool = False) -> str:
    r"""A formula as a <math> element.

    >>> mathml(r"q_i \\cdot k")
    '<math><mrow><msub><mi>q</mi><mi>i</mi></msub><mo>⋅</mo><mi>k</mi></mrow></math>'
    """
    shape = ' display="block"' if display else ""
    lines = [line.split("&") for line in re.split(r"\\\\", latex)]
    if lines == [[latex]]:
        return f"<math{shape}>{_Parser(latex).row()}</math>"
    rows = (
        "".join(f'<mtd style="text-align: left">{_Parser(cell).row()}</mtd>' for cell in line)
        for line in lines
    )
    return f"<math{shape}><mtable>{''.join(f'<mtr>{row}</mtr>' for row in rows)}</mtable></math>"


def on_page_content(content: str, **_: Any) -> str:
    """Replace every formula of a page."""
    return _PLACE.sub(lambda m: mathml(html.unescape(m[3]), display=m[2] == "["), content)
