"""Every registered model takes a training step, and every parameter gets a gradient."""

import re

import pytest
import torch
from torch import nn

from saccade.models import create_model, default_cfg, list_models
from saccade.models._layers import DropPath

# Parameters whose gradient is 0 by construction, or may be at first, by name; LAST is the last
# block.
ZERO = {
    # a bias of all keys leaves the softmax as it is; a batch norm takes away what is added to a
    # whole channel; the ReLUs of a gate may all be shut at first
    "medvitv2": (
        r"e_mhsa\.k\.bias|(patch_embed|projection|e_mhsa)\.norm\.bias|norm2\.bias"
        r"|(attn|e_mhsa)\.proj\.bias|e_mhsa\.v\.bias|conv\.conv\.8\.bias"
        r"|\.fc\.0\.|\.fc\.2\.weight"
    ),
    # the first two again; the head reads the class token alone, whose query is not convolved
    "cvt": r"proj_k\.bias|conv_k\.1\.bias|LAST\.attn\.conv_q\.",
    # a batch norm takes a convolution's bias away; the sums of attention over few tokens may all
    # stay below the neurons' threshold
    "max_former": r"\.conv\.bias|mixer\.proj\.(conv|norm)\.weight",
}
LARGE = 4_000_000


def _names() -> dict[bool, list[str]]:
    """Large models and others."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for name in list_models(exclude_filters="*_test_model"):
        with torch.device("meta"):
            size = sum(p.numel() for p in create_model(name).parameters())
        names[size > LARGE].append(name)
    return names


NAMES = _names()


def _certain(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, num_classes=4).train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    return model


def _last_block(model: nn.Module) -> str:
    names = [n for n, _ in model.named_modules() if re.fullmatch(r"features\.\d+\.blocks\.\d+", n)]
    return re.escape(names[-1]) if names else "^$"


@pytest.mark.parametrize("name", NAMES[False])
def test_every_parameter_gets_a_gradient(name: str) -> None:
    # in float64, where what cancels and what is small lie far apart
    model = _certain(name).double()
    images = torch.randn(3, *default_cfg(name).input_size, dtype=torch.float64)
    nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 3])).backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-13]
    file = type(model).__module__.rpartition(".")[2]
    pattern = ZERO.get(file, "^$").replace("LAST", _last_block(model))
    assert [n for n in zero if not re.search(pattern, n)] == []


@pytest.mark.parametrize(
    "name", [*NAMES[False], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[True])]
)
def test_a_training_step_at_the_least_size(name: str) -> None:
    model = _certain(name)
    # several images, so that no batch norm sees one value alone
    images = torch.randn(3, *default_cfg(name).min_input_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 3]))
    loss.backward()
    assert loss.isfinite()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    *_, last = model.parameters()
    before = last.detach().clone()
    optimizer.step()
    assert not torch.equal(last, before)
