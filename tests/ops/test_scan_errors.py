"""Bad input to the scans: a sentence with numbers, before any kernel runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from saccade import _load, ops

B, D, L, N, H, P = 2, 6, 9, 4, 3, 5


def tensors(operator: str) -> dict[str, Any]:
    """Good arguments."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "selective_scan": {
            "u": (B, D, L), "delta": (B, D, L), "A": (D, N), "B": (B, N, L), "C": (B, N, L),
        },
        "map": {
            "u": (B, D, 3, 3), "delta": (B, 2, D, 3, 3), "A": (2, D, N), "B": (B, 2, N, 3, 3),
            "C": (B, 2, N, 3, 3),
        },
        "ssd_scan": {
            "x": (B, L, H, P), "dt": (B, L, H), "A": (H,), "B": (B, L, 1, N), "C": (B, L, 1, N),
        },
        "causal_conv1d": {"x": (B, D, L), "weight": (D, 4)},
        "causal_conv1d_update": {"x": (B, D), "conv_state": (B, D, 3), "weight": (D, 4)},
    }  # fmt: skip
    good: dict[str, Any] = {name: torch.zeros(shape) for name, shape in shapes[operator].items()}
    if operator == "map":
        good["directions"] = ("lr", "tb")
    if operator == "ssd_scan":
        good["chunk_size"] = 64
    return good


zeros = torch.zeros
S, M, X, K, U = "selective_scan", "map", "ssd_scan", "causal_conv1d", "causal_conv1d_update"
ints = zeros(B, L, dtype=torch.int32)

# operator, changed arguments, error, part of the sentence
BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    (S, {"u": [1.0]}, TypeError, "u must be a torch.Tensor, got list"),
    (S, {"u": zeros(B, D, L).int()}, TypeError, "u must have one of the types"),
    (S, {"u": zeros(D, L)}, ValueError, r"u must have shape \[B, D, L\], got \(6, 9\)"),
    (S, {"u": zeros(B, D, L).to_sparse()}, NotImplementedError, "dense"),
    (S, {"delta": zeros(B, D, 8)}, ValueError, r"delta must have shape .* got \(2, 6, 8\)"),
    (S, {"delta": zeros(B, D, L).half()}, ValueError, "delta must have the type of u"),
    (S, {"A": zeros(5, N)}, ValueError, r"A must have shape \[D, N\] = \(6, 4\)"),
    (S, {"A": zeros(D)}, ValueError, r"A must have shape \[D, N\], got"),
    (S, {"A": zeros(D, 0)}, ValueError, "between 1 and 256, got 0"),
    (S, {"A": zeros(D, 257)}, ValueError, "between 1 and 256, got 257"),
    (S, {"A": zeros(D, N).long()}, TypeError, "A must have one of the types"),
    (S, {"B": zeros(B, N, 3)}, ValueError, r"B must have shape \[B, G, N, L\]"),
    (S, {"B": zeros(D)}, ValueError, r"B must have shape \[D, N\], \[B, N, L\] or"),
    (S, {"C": zeros(B, 4, N, L)}, ValueError, "groups of C must .* divide D = 6, got 4"),
    (S, {"B": zeros(B, 2, N, L), "C": zeros(B, 3, N, L)}, ValueError, "equally many groups"),
    (S, {"B": zeros(D, 3)}, ValueError, r"B must have shape \[D, N\] = \(6, 4\)"),
    (S, {"D": zeros(5)}, ValueError, r"D must have shape \[D\] = \(6,\)"),
    (S, {"D": 1.0}, TypeError, "D must be a torch.Tensor"),
    (S, {"z": zeros(B, D, 8)}, ValueError, "z must have shape"),
    (S, {"delta_bias": zeros(D, 1)}, ValueError, "delta_bias must have shape"),
    (S, {"delta_bias": torch.empty(D, device="meta")}, ValueError, "on the device of u, cpu"),
    (S, {"initial_state": zeros(B, D, 3)}, ValueError, r"initial_state .* \[B, D, N\]"),
    (S, {"delta_softplus": 1}, TypeError, "delta_softplus must be a bool, got 1"),
    (S, {"reverse": "yes"}, TypeError, "reverse must be a bool"),
    (S, {"seq_idx": zeros(B, L)}, TypeError, "seq_idx must have an integer type"),
    (S, {"seq_idx": [0] * L}, TypeError, "seq_idx must be a torch.Tensor"),
    (S, {"seq_idx": ints[:1]}, ValueError, r"seq_idx must have shape \[B, L\] = \(2, 9\)"),
    (S, {"directions": "lr"}, TypeError, "directions must be None or a tuple"),
    (S, {"directions": ()}, TypeError, "directions must be None or a tuple"),
    (S, {"directions": ("up",)}, ValueError, "directions must be among lr, rl, tb, bt, got 'up'"),
    (S, {"backend": "fast"}, ValueError, "backend must be one of"),
    (S, {"backend": "cuda"}, RuntimeError, "selective_scan cannot run with backend='cuda'"),
    (S, {"A": zeros(D, N) * 1j, "backend": "cpu"}, RuntimeError, "complex A runs on the ref"),
    (S, {"A": zeros(D, N) * 1j, "B": zeros(D, N)}, TypeError, "B must be complex where A is"),
    (M, {"u": zeros(B, D, 9)}, ValueError, r"u must have shape \[B, D, H, W\]"),
    (M, {"delta": zeros(B, D, 3, 3)}, ValueError, r"\[B, k = 2, D, H, W\]"),
    (M, {"A": zeros(D, N)}, ValueError, r"A must have shape \[k = 2, D, N\]"),
    (M, {"B": zeros(B, N, 3, 3)}, ValueError, r"B must have shape \[k = 2, D, N\], \[B, k"),
    (M, {"D": zeros(D)}, ValueError, r"D must have shape \[k = 2, D\] = \(2, 6\)"),
    (M, {"reverse": True}, ValueError, "reverse=True is for sequences"),
    (M, {"seq_idx": ints}, ValueError, "seq_idx is for sequences"),
    (X, {"x": zeros(B, L, H)}, ValueError, r"x must have shape \[B, L, H, P\]"),
    (X, {"dt": zeros(B, L, 2)}, ValueError, r"dt must have shape \[B, L, H\] = \(2, 9, 3\)"),
    (X, {"A": zeros(2)}, ValueError, r"A must have shape \[H\] = \(3,\)"),
    (X, {"B": zeros(B, L, 2, N)}, ValueError, "groups of B must .* divide H = 3, got 2"),
    (X, {"C": zeros(B, L, 3, N)}, ValueError, "C must have shape"),
    (X, {"B": zeros(B, L, 1, 300)}, ValueError, "between 1 and 256, got 300"),
    (X, {"D": zeros(H, 4)}, ValueError, r"D must have shape \[H, P\] = \(3, 5\)"),
    (X, {"D": zeros(2)}, ValueError, r"D must have shape \[H\] = \(3,\)"),
    (X, {"z": zeros(B, L, H, 4)}, ValueError, "z must have shape"),
    (X, {"dt_bias": zeros(4)}, ValueError, "dt_bias must have shape"),
    (X, {"initial_states": zeros(B, H, N, P)}, ValueError, r"\[B, H, P, N\] = \(2, 3, 5, 4\)"),
    (X, {"seq_idx": ints[:, :3]}, ValueError, "seq_idx must have shape"),
    (X, {"chunk_size": 0}, ValueError, "chunk_size must be at least 1"),
    (X, {"chunk_size": 1.5}, TypeError, "chunk_size must be an int"),
    (X, {"dt_limit": 1.0}, TypeError, "dt_limit must be a pair of numbers, got 1.0"),
    (X, {"dt_limit": (2.0, 1.0)}, ValueError, "0 <= lower <= upper, got"),
    (X, {"dt_limit": (float("nan"), 1.0)}, ValueError, "0 <= lower <= upper, got"),
    (X, {"dt_limit": ("0", 1.0)}, TypeError, "dt_limit must be a pair of numbers"),
    (X, {"dt_softplus": None}, TypeError, "dt_softplus must be a bool"),
    (K, {"x": zeros(B, D)}, ValueError, r"x must have shape \[B, D, L\]"),
    (K, {"weight": zeros(D, 1, 4)}, ValueError, r"weight must have shape \[D, W\]"),
    (K, {"weight": zeros(5, 4)}, ValueError, r"weight must have shape \[D, W\] = \(6, 4\)"),
    (K, {"weight": zeros(D, 17)}, ValueError, "between 1 and 16, got 17"),
    (K, {"weight": zeros(D, 0)}, ValueError, "between 1 and 16, got 0"),
    (K, {"bias": zeros(5)}, ValueError, "bias must have shape"),
    (K, {"activation": "relu"}, ValueError, "activation must be None, \"silu\" or"),
    (K, {"initial_states": zeros(B, D, 4)}, ValueError, r"\[B, D, W - 1\] = \(2, 6, 3\)"),
    (K, {"initial_states": zeros(B, D, 3).half()}, ValueError, "must have the type of x"),
    (K, {"initial_states": zeros(B, D, 3), "seq_idx": ints}, ValueError, "given together"),
    (U, {"x": zeros(B)}, ValueError, r"x must have shape \[B, D\] or \[B, D, S\]"),
    (U, {"conv_state": zeros(B, D, 2)}, ValueError, "at least W - 1 = 3 inputs, got 2"),
    (U, {"conv_state": zeros(1, D, 3)}, ValueError, "conv_state must have shape"),
    (U, {"cache_seqlens": zeros(B)}, TypeError, "int32 or int64, got torch.float32"),
    (U, {"cache_seqlens": zeros(3).int()}, ValueError, r"cache_seqlens must have shape \[B\]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operator", "changes", "error", "text"),
    BAD,
    ids=[f"{op}-{'-'.join(changes)}-{i}" for i, (op, changes, *_) in enumerate(BAD)],
)
def test_bad_input(
    operator: str, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    arguments = tensors(operator) | changes
    function = getattr(ops, S if operator == M else operator)
    with pytest.raises(error, match=text) as raised:
        function(**arguments)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize("operator", [S, M, X, K, U])
def test_the_good_arguments_are_good(operator: str) -> None:
    arguments = tensors(operator)
    function = getattr(ops, S if operator == M else operator)
    assert isinstance(function(**arguments), Tensor)


def test_explain_names_every_rung() -> None:
    for operator in (S, X, K):
        text = ops.explain(operator, zeros(B, D, L))
        assert all(rung in text for rung in ("cpu", "cuda", "triton", "reference"))


# Direct callers of the operators meet the second line of checks.
RAW: list[tuple[str, dict[int, Any], str]] = [
    (S, {0: zeros(B, D)}, "u must have 3 dimensions, got 2"),
    (S, {1: zeros(B, 2, D, L)}, r"delta must have shape \[2, 1, 6, 9\], got \[2, 2, 6, 9\]"),
    (S, {3: zeros(B, 1, 4, N, L)}, "groups of B must divide D = 6, got 4"),
    (S, {9: zeros(B, L)}, "seq_idx must be int32"),
    (S, {11: [4]}, "directions must be 0, 1, 2 or 3, got 4"),
    (S, {11: []}, "directions must have at least 1 entry"),
    (S, {12: 2}, "height must divide L = 9, got 2"),
    (S, {13: -1}, "chunk must be at least 0, got -1"),
    (X, {1: zeros(B, L)}, "dt must have shape"),
    (X, {3: zeros(B, L, 2, N)}, "groups of B must divide H = 3, got 2"),
    (K, {1: zeros(D, 17)}, "1 to 16 columns, got 17"),
    (K, {0: zeros(B, D, L, dtype=torch.int32)}, "x must be float16"),
]


@pytest.mark.skipif(not _load.has("_C"), reason=_load.reason("_C"))
@pytest.mark.parametrize(("operator", "changes", "text"), RAW, ids=range(len(RAW)))
def test_bad_input_to_the_operators(operator: str, changes: dict[int, Any], text: str) -> None:
    arguments = {
        S: [zeros(B, D, L), zeros(B, 1, D, L), zeros(1, D, N), zeros(B, 1, 1, N, L),
            zeros(B, 1, 1, N, L), None, None, None, None, None, False, [0], 1, 0],
        X: [zeros(B, L, H, P), zeros(B, L, H), zeros(H), zeros(B, L, 1, N), zeros(B, L, 1, N),
            None, None, None, None, None, False, 0.0, 1.0, 0],
        K: [zeros(B, D, L), zeros(D, 4), None, None, None, False],
    }[operator]  # fmt: skip
    for at, value in changes.items():
        arguments[at] = value
    with pytest.raises(RuntimeError, match=text):
        getattr(torch.ops.saccade, f"{operator}_forward")(*arguments)
