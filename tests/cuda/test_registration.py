"""`_C_cuda` loads and registers its kernels without a GPU."""

from __future__ import annotations

import pytest
import torch

from saccade import _load

OPERATORS = [
    "lif_forward",
    "lif_backward",
    "logpolar_inverse_forward",
    "logpolar_inverse_backward",
    "logpolar_sample_forward",
    "logpolar_sample_backward",
    "na_forward",
    "na_backward",
]


@pytest.mark.parametrize("name", OPERATORS)
def test_kernels_are_in_the_dispatcher(name: str) -> None:
    if not _load.has("_C_cuda"):
        pytest.skip(_load.reason("_C_cuda"))
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"saccade::{name}", "CUDA")
