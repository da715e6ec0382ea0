"""`saccade export`."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from saccade.models import create_model, default_cfg, is_model, load_model


def export(source: str, out: Path, img_size: int | None = None) -> tuple[Path, tuple[int, ...]]:
    """Export a classifier with a free batch axis by torch.export.

    Args:
        source: a run folder, a .safetensors file with config.json beside it, or the name of a model
            (random weights).
        out: file to write, ending in .pt2.
        img_size: side of the square input; default what the checkpoint was trained at, else the
            model's own.

    Returns:
        The path, and the shape (C, H, W) of one input.

    Raises:
        ValueError: `out` has another ending, or `source` is neither a path nor a model.
    """
    if out.suffix != ".pt2":
        raise ValueError(f"--out must end in .pt2; got {out}")
    path = Path(source).expanduser()
    if path.exists():
        model = load_model(path)
        card = json.loads(((path if path.is_dir() else path.parent) / "config.json").read_text())
        channels, height, width = card.get(
            "input_size", default_cfg(card["architecture"]).input_size
        )
    elif is_model(source):
        model = create_model(source)
        channels, height, width = default_cfg(source).input_size
    else:
        raise ValueError(
            f"{source} is neither a run folder, a .safetensors file nor a model's name; see "
            "`saccade list models`"
        )
    if img_size:
        height = width = img_size
    example = torch.zeros(2, channels, height, width)
    program = torch.export.export(
        model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, out)
    return out, (channels, height, width)
