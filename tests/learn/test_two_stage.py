"""Dual training, progressive unfreezing and the recipe of both, on networks of a few numbers."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from saccade.data import Jitter
from saccade.learn import (
    DualInputOutput,
    ProgressiveUnfreezer,
    TwoStageConfig,
    UnionModule,
    two_stage,
)
from saccade.learn._fit import quiet_lightning
from saccade.models import create_model


def images(count: int = 24, size: int = 28) -> TensorDataset:
    rng = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.rand(count, 1, size, size, generator=rng),
        torch.randint(10, (count,), generator=rng),
    )


class Data(LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(images(), 8)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(images(), 8)


def trainer(epochs: int, *callbacks: Callback, folder: Any = None) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=list(callbacks), default_root_dir=folder,
    )  # fmt: skip


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def tiny() -> nn.Module:
    return create_model("lightweight_cnn_branch", widths=(2, 3))


class TestDual:
    def test_loss_is_the_weighted_sum(self) -> None:
        dual = DualInputOutput(tiny, weights=(1.0, 0.25))
        x, y = images().tensors
        one, two = dual(x, x.flip(3))
        expected = F.cross_entropy(one, y) + 0.25 * F.cross_entropy(two, y)
        torch.testing.assert_close(dual.loss((one, two), y), expected)

    def test_equal_branches_and_inputs_give_equal_outputs(self) -> None:
        dual = DualInputOutput(tiny)
        dual.second.load_state_dict(dual.first.state_dict())
        one, two = dual(images().tensors[0])
        assert torch.equal(one, two)
        first, second = (list(branch.parameters()) for branch in (dual.first, dual.second))
        assert not {id(p) for p in first} & {id(p) for p in second}

    def test_the_first_branch_sees_images_as_they_are(self) -> None:
        dual, seen = DualInputOutput(tiny, augment=torch.zeros_like), []
        dual.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        for branch in (dual.first, dual.second):
            branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        x, y = images().tensors
        dual.training_step((x, y), 0)
        assert torch.equal(seen[0], x)
        assert not seen[1].any()
        seen.clear()
        dual.validation_step((x, y), 0)
        assert all(torch.equal(inputs, x) for inputs in seen)

    def test_together_is_apart(self) -> None:
        """The losses are separable: the weights of joint training are those of two trainings."""
        torch.manual_seed(0)
        dual = DualInputOutput(tiny, augment=lambda x: x.flip(3))
        alone = [copy.deepcopy(branch) for branch in (dual.first, dual.second)]
        with quiet_lightning():
            trainer(2).fit(dual, datamodule=Data())
        for branch, flip in zip(alone, (False, True), strict=True):
            optimizer = torch.optim.Adam(branch.parameters(), lr=1e-3)
            for x, y in 2 * list(DataLoader(images(), 8)):
                optimizer.zero_grad()
                F.cross_entropy(branch(x.flip(3) if flip else x), y).backward()
                optimizer.step()
        for branch, joint in zip(alone, (dual.first, dual.second), strict=True):
            for p, q in zip(branch.parameters(), joint.parameters(), strict=True):
                torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)

    def test_any_module_is_a_branch(self) -> None:
        dual = DualInputOutput(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)))
        assert [tuple(y.shape) for y in dual(images().tensors[0])] == [(24, 10)] * 2

    def test_mistakes(self) -> None:
        with pytest.raises(ValueError, match=r"two numbers of at least 0, got \(1.0, -1.0\)"):
            DualInputOutput(tiny, weights=(1.0, -1.0))


def test_the_union_has_one_of_each() -> None:
    model = tiny()
    module = UnionModule(model, augment=torch.zeros_like)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    x, y = images().tensors
    both = model(torch.cat([x, torch.zeros_like(x)]))
    expected = F.cross_entropy(both, torch.cat([y, y]))
    torch.testing.assert_close(module.training_step((x, y), 0), expected)


class Normed(nn.Module):
    """Layers with everything that a frozen group must keep still: statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5, stride=4)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.mid = nn.Linear(4 * 36, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.norm(self.conv(x))).flatten(1)
        logits: torch.Tensor = self.head(self.mid(y).relu())
        return logits

    def groups(self) -> list[Any]:
        return [self.head, self.mid, [self.conv, self.norm, self.drop]]


class Watch(Callback):
    """The state, the optimiser and the modes at the end of every epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.modes: list[list[bool]] = []
        self.counts: list[int] = []

    def note(self, module: nn.Module) -> None:
        self.states.append({k: v.clone() for k, v in module.state_dict().items()})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.note(pl_module.model)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.note(pl_module.model)
        self.optimizers.append(trainer.optimizers[0])
        model: Any = pl_module.model
        if isinstance(model, Normed):
            self.modes.append([model.norm.training, model.drop.training, model.head.training])
        self.counts.append(sum(p.numel() for p in model.parameters() if p.requires_grad))


class TestUnfreezer:
    def test_only_free_groups_change(self) -> None:
        torch.manual_seed(0)
        model, watch = Normed(), Watch()
        unfreezer = ProgressiveUnfreezer(model.groups(), (2, 1, 1), sgd)
        with quiet_lightning():
            trainer(5, watch, unfreezer).fit(UnionModule(model), datamodule=Data())
        free = [("head",), ("head",), ("head", "mid"), ("head", "mid", "conv", "norm")]
        for epoch, names in enumerate([*free, free[-1]]):
            before, after = watch.states[epoch : epoch + 2]
            changed = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
            # statistics of the frozen batch norm included
            assert changed == set(names), epoch
        assert watch.modes == [[False, False, True]] * 3 + [[True] * 3] * 2

    def test_a_phase_starts_with_a_new_optimiser(self) -> None:
        model, watch = Normed(), Watch()
        unfreezer = ProgressiveUnfreezer(model.groups(), 2, sgd)
        with quiet_lightning():
            trainer(6, watch, unfreezer).fit(UnionModule(model), datamodule=Data())
        one, two, *rest = watch.optimizers
        assert one is two
        assert len({id(optimizer) for optimizer in watch.optimizers}) == 3
        sizes = [sum(p.numel() for p in o.param_groups[0]["params"]) for o in (one, *rest)]
        assert sizes[0] == 90
        assert sizes[-1] == sum(p.numel() for p in model.parameters())

    def test_counts_of_the_paper(self) -> None:
        model = create_model("lightweight_cnn")
        unfreezer = ProgressiveUnfreezer(model.unfreezing_groups(), (5, 5, 5, 10), sgd)
        counts = []
        for phase in range(4):
            unfreezer.enter(phase)
            counts.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
        assert counts == [1_002, 11_022, 14_662, 14_862]
        assert [unfreezer.phase_at(e) for e in (0, 4, 5, 9, 10, 14, 15, 24)] == [
            0, 0, 1, 1, 2, 2, 3, 3,
        ]  # fmt: skip

    def test_without_lightning(self) -> None:
        model = Normed().train()
        unfreezer = ProgressiveUnfreezer(model.groups(), 1, sgd)
        optimizer = unfreezer.enter(0)
        assert [model.norm.training, model.mid.training, model.head.training] == [
            False,
            False,
            True,
        ]
        model.train()
        unfreezer.rest()
        before = copy.deepcopy(model.state_dict())
        x, y = images().tensors
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert changed == {"head.weight", "head.bias"}
        assert model.mid.weight.grad is None
        unfreezer.enter(2)
        assert model.norm.training
        assert all(p.requires_grad for p in model.parameters())

    def test_a_run_resumes_in_its_phase(self, tmp_path: Any) -> None:
        def train(epochs: int, resume: Any = None) -> tuple[Normed, Trainer, ProgressiveUnfreezer]:
            torch.manual_seed(0)
            model = Normed()
            unfreezer = ProgressiveUnfreezer(model.groups(), (1, 3, 1), sgd)
            run = trainer(epochs, unfreezer, folder=tmp_path)
            run.fit(UnionModule(model), datamodule=Data(), ckpt_path=resume)
            return model, run, unfreezer

        with quiet_lightning():
            whole, _, _ = train(4)
            _, run, _ = train(2)
            run.save_checkpoint(tmp_path / "half.ckpt")
            resumed, _, unfreezer = train(4, tmp_path / "half.ckpt")
        assert unfreezer.phase == 1
        for (name, p), q in zip(whole.named_parameters(), resumed.parameters(), strict=True):
            assert torch.equal(p, q), name

    @pytest.mark.parametrize(
        ("groups", "epochs", "text"),
        [
            ([], 5, "got 0 groups"),
            ([nn.Linear(2, 2)], (1, 2), r"got 1 groups and the epochs \[1, 2\]"),
            ([nn.Linear(2, 2)], 0, r"at least 1 epoch, got 1 groups and the epochs \[0\]"),
            (2 * [nn.Linear(3, 2)], 1, r"group 1 has one of shape \[2, 3\] twice"),
        ],
    )
    def test_mistakes(self, groups: Any, epochs: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            ProgressiveUnfreezer(groups, epochs, sgd)


class TestTwoStage:
    CONFIG = TwoStageConfig(first_epochs=2, phases=(1, 1, 1, 2), second_lr=0.1)

    def train(self) -> Any:
        torch.manual_seed(0)
        model = create_model("lightweight_cnn", widths=(2, 3))
        return two_stage(model, tiny, Data(), Jitter(15, 0.1), self.CONFIG)

    def test_trains_everything_and_repeats(self) -> None:
        one, two = self.train(), self.train()
        torch.manual_seed(0)
        fresh = create_model("lightweight_cnn", widths=(2, 3))
        fresh.load_branches(one.dual.first, one.dual.second)
        for (name, p), q, r in zip(
            one.model.named_parameters(), two.model.parameters(), fresh.parameters(), strict=True
        ):
            assert torch.equal(p, q), name
            assert not torch.equal(p, r), name
        assert not one.model.training

    def test_the_first_stage_stops_early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        epochs = []
        monkeypatch.setattr(
            DualInputOutput,
            "on_train_epoch_end",
            lambda self: epochs.append(self.current_epoch),
            raising=False,
        )
        # with a rate this small the loss cannot fall by anything that counts
        config = TwoStageConfig(
            first_epochs=9, patience=2, first_lr=1e-30, phases=(1, 1, 1, 1), second_lr=1e-30
        )
        model = create_model("lightweight_cnn", widths=(2, 3))
        two_stage(model, tiny, Data(), Jitter(15), config)
        assert epochs == [0, 1, 2]

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"first_epochs": 0}, "first_epochs must be at least 1, got 0"),
            ({"phases": (5, 0)}, r"phases must be numbers of at least 1, got \(5, 0\)"),
            ({"second_lr": 0.0}, r"above 0 and momentum in \[0, 1\), got 0.001, 0 and 0.9"),
        ],
    )
    def test_mistakes(self, options: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError, match=text):
            TwoStageConfig(**options)

    def test_phases_must_fit_the_model(self) -> None:
        config = TwoStageConfig(phases=(1, 1))
        with pytest.raises(ValueError, match="got 4 groups"):
            two_stage(create_model("lightweight_cnn"), tiny, Data(), Jitter(), config)
