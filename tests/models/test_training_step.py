"""Every registered model takes a training step at the least size that it states."""

import re

import pytest
import torch
from torch import nn

from saccade.models import create_model, default_cfg, list_models
from saccade.models._layers import DropPath

# Parameters whose gradient is 0 by construction, or may be at first, by name.
ZERO = {
    # a bias of all keys leaves the softmax as it is; the ReLUs of a gate may all be shut at first
    "medvitv2": r"e_mhsa\.k\.bias|\.fc\.0\.|\.fc\.2\.weight",
    # the same; the class token's query, which the head reads, is not convolved
    "cvt": r"proj_k\.bias|features\.2\.blocks\.\d+\.attn\.conv_q\.",
    # a batch norm takes a convolution's bias away; the sums of attention over few tokens may all
    # stay below the neurons' threshold
    "max_former": r"\.conv\.bias|mixer\.proj\.(conv|norm)\.weight",
}
LARGE = 4_000_000


def _cases() -> list[object]:
    cases = []
    for name in list_models(exclude_filters="*_test_model"):
        with torch.device("meta"):
            size = sum(p.numel() for p in create_model(name).parameters())
        cases.append(pytest.param(name, marks=[pytest.mark.slow] if size > LARGE else []))
    return cases


@pytest.mark.parametrize("name", _cases())
def test_a_training_step(name: str) -> None:
    torch.manual_seed(0)
    cfg = default_cfg(name)
    model = create_model(name, num_classes=4).train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = 0.0
    # several pixels and images, so that no batch norm sees one value alone
    channels, height, width = cfg.min_input_size
    images = torch.randn(3, channels, height, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 3]))
    loss.backward()
    assert loss.isfinite()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    file = type(model).__module__.rpartition(".")[2]
    assert [n for n in zero if not re.search(ZERO.get(file, "^$"), n)] == []
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert sum(not torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True)) > 0
