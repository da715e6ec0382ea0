"""Docstrings as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SECTIONS = ("Args", "Shape", "Returns", "Raises", "Notes", "Source")

_HEADING = re.compile(rf"({'|'.join(SECTIONS)}):(?: (.*))?")
_ENTRY = re.compile(r"(\*{0,2}\w+(?:, \w+)*): (.*)")
# Code and formulas stand as they are.
_LITERAL = re.compile(r"(`[^`]*`|\$[^$]*\$)")


@dataclass
class Docstring:
    """The parts of a docstring, as lines without their indentation."""

    text: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)
    example: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The first sentence's paragraph, in one line."""
        lines: list[str] = []
        for line in self.text:
            if not line:
                break
            lines.append(line)
        return markdown(" ".join(lines))

    def entries(self, section: str) -> list[tuple[str, str]]:
        """Name and text of each entry of a section like Args."""
        found: list[tuple[str, str]] = []
        for line in self.sections.get(section, []):
            entry = _ENTRY.fullmatch(line)
            if entry:
                found.append((entry[1], entry[2]))
            elif line.strip() and found:
                name, text = found[-1]
                found[-1] = (name, f"{text} {line.strip()}")
        return [(name, markdown(text)) for name, text in found]

    def prose(self, section: str) -> str:
        """A section as paragraphs."""
        return markdown(unindent(self.sections.get(section, [])))


def parse(thing: object) -> Docstring:
    """Split the docstring of a function, class or module."""
    result = Docstring()
    target = result.text
    for line in (inspect.getdoc(thing) or "").splitlines():
        heading = _HEADING.fullmatch(line)
        if heading:
            target = result.sections.setdefault(heading[1], [])
            if heading[2]:
                target.append(heading[2])
        elif line.startswith(">>>"):
            target = result.example
            target.append(line)
        elif target is result.text or target is result.example:
            target.append(line)
        else:
            target.append(line.removeprefix("    "))
    return result


def unindent(lines: list[str]) -> str:
    """Lines as text, without blank ones at the ends."""
    return "\n".join(line.removeprefix("    ") for line in lines).strip()


def markdown(text: str) -> str:
    """RST's formulas and references as Markdown's, and no accidental emphasis."""
    text = re.sub(
        r"\.\. math::((?: [^\n]*)?(?:\n[ ]+[^\n]*)*)",
        lambda found: f"$${' '.join(found[1].split())}$$",
        text,
    )
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text)
    parts = _LITERAL.split(text)
    parts[::2] = [part.replace("*", "\\*").replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)


def cell(text: str) -> str:
    """Text for a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    """A Markdown table; the columns in `right` hold numbers."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    lines = [header, tuple(rule), *rows]
    return "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines)


def _literal(value: object) -> str:
    """A default as code; a function by its name, for its repr is an address."""
    return getattr(value, "__name__", None) or repr(value)


def signature(function: Callable[..., Any], name: str) -> str:
    """The signature as code, one argument a line where it is long, without annotations."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    texts, star = [], False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            star = True
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            texts.append("*")
            star = True
        default = "" if parameter.default is parameter.empty else f"={_literal(parameter.default)}"
        prefix = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(
            parameter.kind, ""
        )
        texts.append(f"{prefix}{parameter.name}{default}")
    line = f"{name}({', '.join(texts)})"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(texts) + ",\n)"


def arguments(function: Callable[..., Any]) -> str:
    """Args as a table with the defaults of the signature."""
    parameters = inspect.signature(function).parameters
    rows = []
    for names, text in parse(function).entries("Args"):
        first = parameters.get(names.partition(",")[0].lstrip("*"))
        given = first is not None and first.default is not first.empty
        rows.append((f"`{names}`", f"`{_literal(first.default)}`" if first and given else "", text))
    return table(("argument", "default", "meaning"), rows)
