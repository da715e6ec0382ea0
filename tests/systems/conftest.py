"""A reproduction at a toy size."""

from dataclasses import replace

import pytest

from saccade.systems._protocol import reproduce


@pytest.fixture
def reproduce_toy(tmp_path):
    """Runs a system of `TrainedArms` on a few digits for one seed, and gives its result."""

    def run(system, small):
        sizes = {"train": 20, "val": 10, "test": 10}
        toy = replace(system, run=replace(system.run, small=small, sizes=sizes))
        outcome = reproduce(toy, data="digits", seeds=1, out=tmp_path, quiet=True)
        assert not list((tmp_path / system.name).glob("runs/*"))
        return outcome.result

    return run
