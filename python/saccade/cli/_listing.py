"""`saccade list`: models, systems, data."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def show(what: str, filter: str = "") -> None:
    """Print a table.

    Raises:
        ValueError: `what` is unknown, or no model's name matches the filter.
    """
    tables = {"models": _models, "systems": _systems, "data": _data}
    if what not in tables:
        raise ValueError(f"list takes models, systems or data; got {what!r}")
    Console(highlight=False).print(tables[what](filter))


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _models(filter: str) -> Table:
    from saccade.models import default_cfg, list_models

    names = list_models(filter)
    if not names:
        raise ValueError(
            f"no model's name matches {filter!r}; there are {', '.join(list_models())}"
        )
    table = _table("model", "input", "source")
    for name in names:
        cfg = default_cfg(name)
        table.add_row(name, "x".join(map(str, cfg.input_size)), cfg.source)
    return table


def _systems(filter: str) -> Table:
    from saccade.systems import get_system, list_systems

    table = _table("system", "paper", "year", "operators", "claim")
    for name in list_systems():
        system = get_system(name)
        table.add_row(
            name,
            f"{system.title} ({system.paper})",
            str(system.year),
            ", ".join(system.operators),
            system.claim,
        )
    return table


def _data(filter: str) -> Table:
    from saccade.data import list_data

    table = _table("data", "what", "where")
    for source in list_data():
        table.add_row(source.spec, source.title, source.where)
    return table
