"""Benchmarks: every operator against its peers, its floor and its targets, all in one run.

A suite is a module of this package named as its operator; `saccade bench <operator>` runs it.
"""

from __future__ import annotations

import importlib

from saccade.bench._suite import Suite

OPERATORS = (
    "gem",
    "kan",
    "logpolar",
    "neighborhood_attention",
    "scan",
    "spiking",
    "statevector",
)


def load(operator: str) -> Suite:
    """Return the suite of an operator.

    Raises:
        ValueError: there is no suite of this name.

    >>> load("neighborhood_attention").default_cases
    ('S1', 'S2')
    """
    if operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {operator!r}.")
    suite: Suite = importlib.import_module(f"saccade.bench.{operator}").SUITE
    return suite
