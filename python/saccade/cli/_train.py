"""`saccade train`."""

from __future__ import annotations

from saccade._extras import require
from saccade.learn.config import TrainConfig


def train(config: TrainConfig) -> None:
    """Train as configured; print what starts, and at the end the test accuracy and what was
    written.
    """
    for module in ("lightning", "torchmetrics", "torchvision"):
        require(module, extra="train", purpose="saccade train")
    from saccade.learn._callbacks import LAST
    from saccade.learn._fit import fit

    folder = config.folder
    if not config.quiet:
        print(
            f"training {config.model} on {config.data}: {config.epochs} epochs, global batch "
            f"{config.batch_size}, seed {config.seed}"
        )
        if config.resume and not (folder / "checkpoints" / LAST).is_file():
            print(f"no finished epoch in {folder}: starting from the beginning")
    result = fit(config)
    if not result.is_global_zero:
        return
    print(
        f"test accuracy {100 * result.accuracy:.2f} % (AUC {result.auc:.4f}) after "
        f"{result.wall_seconds:.0f} s"
    )
    print(f"picture       {result.figure}")
    print(f"checkpoint    {result.checkpoint}")
    print(f"report        {result.report}")
