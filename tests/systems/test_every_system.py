"""What holds for the declaration of every paper."""

from pathlib import Path

import pytest

from saccade.bench import OPERATORS
from saccade.learn import TrainConfig
from saccade.models import is_model
from saccade.systems import get_system, list_systems

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", list_systems())
def test_a_declaration_names_what_exists(name):
    system = get_system(name)
    assert system.name == name
    assert set(system.operators) <= set(OPERATORS)
    for comparison in (system.main, *system.also):
        assert {comparison.proposed, comparison.baseline} <= set(system.arms)
    assert (ROOT / "docs" / "systems" / f"{name}.md").is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_configuration_names_a_model(path):
    assert is_model(TrainConfig.load(path).model)
