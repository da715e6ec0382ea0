"""The picture and the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from saccade._extras import require


def per_class(confusion: Tensor) -> list[dict[str, float]]:
    """Support, recall and precision of every class.

    Args:
        confusion: counts [C, C], rows the true classes.

    Returns:
        One dictionary a class; recall and precision are 0 where nothing was there to count.

    >>> import torch
    >>> per_class(torch.tensor([[3, 1], [0, 4]]))[0]
    {'images': 4, 'recall': 0.75, 'precision': 1.0}
    """
    right, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return [
        {
            "images": int(true[c]),
            "recall": int(right[c]) / max(int(true[c]), 1),
            "precision": int(right[c]) / max(int(predicted[c]), 1),
        }
        for c in range(len(confusion))
    ]


def figure(
    path: Path,
    rows: Sequence[dict[str, float]],
    confusion: Tensor,
    classes: Sequence[str],
    title: str,
) -> None:
    """Draw loss and accuracy over epochs, and the confusion matrix of the test split."""
    matplotlib = require("matplotlib", extra="train", purpose="drawing a figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        canvas = Figure(figsize=(12, 3.8), layout="constrained")
        FigureCanvasAgg(canvas)
        loss, accuracy, matrix = canvas.subplots(1, 3)
        epochs = [row["epoch"] for row in rows]
        for axis, name, scale in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
            for split, style in (("train", "--"), ("val", "-")):
                axis.plot(
                    epochs,
                    [scale * row[f"{split}/{name}"] for row in rows],
                    style,
                    marker=".",
                    label=split,
                )
            axis.set(xlabel="epoch", ylabel=name + (" (%)" if scale == 100 else ""))
            axis.legend(frameon=False)
        share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
        shown = matrix.imshow(100 * share.numpy(), cmap="Blues", vmin=0, vmax=100)
        matrix.set(xlabel="predicted", ylabel="true", title="test, % of the true class")
        if len(classes) <= 20:
            matrix.set_xticks(
                range(len(classes)), classes, rotation=0 if max(map(len, classes)) < 4 else 60
            )
            matrix.set_yticks(range(len(classes)), classes)
        canvas.colorbar(shown, ax=matrix)
        canvas.suptitle(title)
        canvas.savefig(path, dpi=120)


def report(
    path: Path, facts: dict[str, Any], confusion: Tensor, classes: Sequence[str], config_text: str
) -> None:
    """Write what was run, on what, and what came out, as Markdown."""
    environment = facts["environment"]
    packages = ", ".join(
        f"{name} {version}" for name, version in environment["packages"].items() if version
    )
    lines = [
        f"# {facts['model']} on {facts['data']}",
        "",
        f"Test accuracy **{100 * facts['accuracy']:.2f} %** ({facts['test_images']} images, never "
        "used for a choice), "
        f"AUC {facts['auc']:.4f}, loss {facts['loss']:.4f}, after {facts['epochs']} epochs.",
        "",
        "![curves and confusion matrix](figure.png)",
        "",
        "| what | value |",
        "| --- | --- |",
        f"| command | `{facts['command']}` |",
        f"| data | {facts['data']}: {facts['train_images']} train, {facts['val_images']} "
        f"validation, {facts['test_images']} test |",
        f"| model | {facts['model']}, {facts['parameters']:,} parameters |",
        f"| seed | {facts['seed']} |",
        f"| time | {facts['wall_seconds']:.1f} s of training and test in this process |",
        f"| processor | {environment['processor']}, {environment['threads']} threads |",
        f"| devices | {', '.join(environment['devices']) or 'CPU'} |",
        f"| software | saccade {environment['saccade']}, Python {environment['python']}, "
        f"{packages} |",
        f"| git | {environment['git'] or 'no repository'} |",
        "",
        "| class | images | recall | precision |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, row in zip(classes, per_class(confusion), strict=True):
        lines.append(
            f"| {name} | {row['images']:.0f} | {100 * row['recall']:.1f} % | "
            f"{100 * row['precision']:.1f} % |"
        )
    lines += ["", "## Configuration", "", "```yaml", config_text.rstrip(), "```", ""]
    path.write_text("\n".join(lines))
