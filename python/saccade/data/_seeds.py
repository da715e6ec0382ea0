"""Seeds made of parts: the same parts give the same numbers, whatever ran before and on whichever
process.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """Mix non-negative integers (seed, epoch, rank, index ...) into one seed of 63 bits.

    >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
    (True, False)
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def generator(*parts: int) -> torch.Generator:
    """A torch generator on the CPU, seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_all(*parts: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (every device) by `derive_seed`."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002, the global stream is the point
    torch.manual_seed(seed)


@contextmanager
def scoped_seed(*parts: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block; outside it goes on as if there were none."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(derive_seed(*parts))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)
