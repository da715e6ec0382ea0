"""One of several gloo processes: `python worker.py FOLDER` with RANK, WORLD_SIZE and MASTER_* set.

Rank 0 writes gradients.pt, fit.pt and unfrozen.pt. The test imports it for the single process.
"""

import os
import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from saccade.data import ImageDataModule, load_data
from saccade.data.datamodule import EpochSampler
from saccade.learn import ProgressiveUnfreezer, TrainConfig, UnionModule, fit
from saccade.learn.losses import classification_loss
from saccade.models import create_model
from saccade.models._registry import DefaultCfg, is_model, register_model

BATCH = 8
SIZE = 28

if not is_model("plain_test_model"):

    @register_model(DefaultCfg(source="the tests", input_size=(3, 8, 8)))
    def plain_test_model(num_classes: int = 10, in_chans: int = 3) -> nn.Module:
        # Nothing in it depends on who shares a batch with whom, as batch normalisation would.
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64 * in_chans, 16), nn.Tanh(), nn.Linear(16, num_classes)
        )


def gradients(rank: int, world: int) -> dict[str, Tensor]:
    """Gradients of medvitv2_micro, normalisation in eval mode, for this process's share.

    In float64: the order of sums must not blur what is compared.
    """
    data = load_data("digits")
    module = ImageDataModule(data, img_size=SIZE, batch_size=BATCH)
    images = module.ready("train")
    draws = list(EpochSampler(len(images), BATCH, seed=0, rank=rank, world_size=world))[
        : BATCH // world
    ]
    inputs = module.normalize(torch.stack([images[index][0] for _, index in draws])).double()
    targets = torch.tensor([images[index][1] for _, index in draws])
    torch.manual_seed(0)
    model = create_model("medvitv2_micro", num_classes=10).double().eval()
    wrapped = DistributedDataParallel(model) if world > 1 else model
    classification_loss(wrapped(inputs), targets).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def config(folder: Path, devices: int, strategy: str) -> TrainConfig:
    return TrainConfig(
        model="plain_test_model",
        img_size=8,
        train_size=100,
        val_size=21,
        test_size=51,
        epochs=2,
        batch_size=20,
        lr=0.01,
        augment="light",
        accelerator="cpu",
        devices=str(devices),
        strategy=strategy,
        out=str(folder),
        quiet=True,
    )


def unfrozen(devices: int, strategy: str) -> dict[str, Tensor]:
    """Weights after progressive unfreezing; every process sees the same batches."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    unfreezer = ProgressiveUnfreezer(
        [net[3], [net[0], net[1]]], 2, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)
    )
    rng = torch.Generator().manual_seed(0)
    images, targets = torch.rand(32, 8, generator=rng), torch.randint(3, (32,), generator=rng)
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", devices=devices, strategy=strategy, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, callbacks=[unfreezer],
    )  # fmt: skip
    trainer.fit(UnionModule(net), DataLoader(TensorDataset(images, targets), 8))
    return {name: value.detach() for name, value in net.state_dict().items()}


def main(folder: Path) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    found = gradients(rank, world)
    result = fit(config(folder / "run", world, "ddp"))
    thawed = unfrozen(world, "ddp_find_unused_parameters_true")
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
        torch.save(thawed, folder / "unfrozen.pt")
        weights = {name: value.detach() for name, value in result.model.state_dict().items()}
        torch.save(
            {"weights": weights, "confusion": result.confusion, "accuracy": result.accuracy},
            folder / "fit.pt",
        )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
