"""Functions and classes as Markdown, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import Any

from _docs.docstrings import arguments, cell, markdown, parse, signature, table

PACKAGES = (
    "saccade",
    "saccade.ops",
    "saccade.nn",
    "saccade.models",
    "saccade.data",
    "saccade.learn",
    "saccade.quantum",
    "saccade.systems",
)


def render(dotted: str, level: int = 3) -> str:
    """A function or class, named as "package:name": signature, text, tables, example."""
    package, _, name = dotted.partition(":")
    thing = getattr(importlib.import_module(package), name)
    doc = parse(thing)
    parts = [f"```python\n{signature(thing, name)}\n```", markdown("\n".join(doc.text).strip())]
    if doc.entries("Args"):
        parts.append(arguments(thing))
    for section in ("Shape", "Returns"):
        if section in doc.sections:
            parts.append(f"**{section}**: {doc.prose(section)}")
    if doc.entries("Raises"):
        rows = [(f"`{error}`", text) for error, text in doc.entries("Raises")]
        parts.append(table(("raises", "when"), rows))
    for section in ("Notes", "Source"):
        if section in doc.sections:
            parts.append(f"**{section}**: {doc.prose(section)}")
    if doc.example:
        parts.append("```pycon\n" + "\n".join(doc.example).rstrip() + "\n```")
    return f"{'#' * level} {package}.{name}\n\n" + "\n\n".join(part for part in parts if part)


def api() -> str:
    """Every public name; where a name is public in two packages, the deeper one has it."""
    pages = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        names = [name for name in module.__all__ if _belongs(package, name)]
        pages += [f"## {package}", cell(parse(module).summary)]
        pages += [render(f"{package}:{name}") for name in names]
    return "\n\n".join(pages)


def _belongs(package: str, name: str) -> bool:
    thing = getattr(importlib.import_module(package), name)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return False
    deeper = [p for p in PACKAGES if p.startswith(f"{package}.")]
    return not any(getattr(importlib.import_module(p), name, None) is thing for p in deeper)


def train_options() -> str:
    """The options of `saccade train` with their defaults."""
    from saccade.learn import TrainConfig

    rows = []
    for field in dataclasses.fields(TrainConfig):
        default: Any = field.default
        if default is dataclasses.MISSING:
            default = "{}"
        option = "--set model_kwargs.NAME" if field.name == "model_kwargs" else _flag(field.name)
        shown = "" if default is None else f"`{default}`"
        rows.append((f"`{option}`", f"`{field.name}`", shown, markdown(field.metadata["help"])))
    return table(("option", "key in a file", "default", "meaning"), rows)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
