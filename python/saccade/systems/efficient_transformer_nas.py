"""Neural Architecture Search on Efficient Transformers and Beyond.

The small run trains one super-net with cosFormer, softmax and relative keys in every layer, scores
sub-nets with the weights they inherit, learns rankers from 40 of them, judges these by 20 others,
and searches three spaces: softmax, cosFormer ("efficient"), and any kind in any layer ("mixed").
The mixed space is searched under 70 % of the softmax sub-nets' median work; two arms tell what that
is worth: the softmax space under the same budget, and the mixed space with the published ordinal
code of the kinds. The best of every search is trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from saccade.learn.config import TrainConfig
from saccade.systems._arms import as_tensors, run_folder
from saccade.systems._protocol import Comparison, Floor, Measured, System

if TYPE_CHECKING:
    from saccade.compress.search import Architecture, SearchSpace, SuperNet
    from saccade.data import ImageDataModule

ACCURACY = "accuracy (%)"
WORK, LONG = "work (million MACs)", "work at 1,024 tokens (million MACs)"
SIZE = "parameters (thousand)"
TAU = "Kendall's tau, held out"

SOFTMAX, EFFICIENT, MIXED = "softmax", "efficient", "mixed"
CONTROL, ORDINAL = "softmax, same budget", "mixed, ordinal code"


@dataclass(frozen=True)
class Arm:
    """A search: space, encoding of the kinds of attention, and whether under the budget."""

    space: str
    encoding: str = "fractions"
    budget: bool = False


ARMS = {
    SOFTMAX: Arm("softmax"),
    EFFICIENT: Arm("efficient"),
    MIXED: Arm("mixed", budget=True),
    CONTROL: Arm("softmax", budget=True),
    ORDINAL: Arm("mixed", "index", budget=True),
}
# Half of the tau that the calibrating run gave over seeds 0 to 2, 0.26.
THRESHOLDS = {"digits": 0.13}
SHARE = 0.7  # of the median softmax sub-net's work

SMALL = TrainConfig(
    model="mixformer_micro",
    epochs=30,
    batch_size=32,
    augment="none",
    label_smoothing=0.1,
    lr=2e-3,
    weight_decay=0.05,
)
# 140,000 updates of 64 images, of which 976 warm up
PAPER = TrainConfig(
    model="mixformer_found",
    data="cifar10",
    augment="crop",
    rand_ops=2,
    rand_magnitude=27,
    erase=0.25,
    label_smoothing=0.1,
    epochs=199,
    batch_size=64,
    lr=1e-3,
    min_lr=1e-7,
    warmup_epochs=1.39,
    weight_decay=0.05,
)


@dataclass(frozen=True)
class Scale:
    """What a scale trains, scores and searches.

    Args:
        recipe: of the found architectures.
        supernet: settings of `saccade.compress.search.SuperNetConfig`.
        learned, held: sub-nets that a ranker learns from, and that it is judged by.
        candidates: drawn by the search; 0 evolves instead, as published.
        max_parameters: bound for every arm.
        objective, split: of the ranker; the published code regresses, with a tenth of the sub-nets
            to stop early and another to judge.
    """

    recipe: TrainConfig
    supernet: dict[str, Any]
    learned: int
    held: int
    candidates: int = 0
    max_parameters: float | None = None
    objective: str = "pairwise"
    split: tuple[float, float, float] = (1.0, 0.0, 0.0)


SCALES = {
    "small": Scale(SMALL, {"epochs": 10, "batch_size": 32, "lr": 2e-3}, 40, 20, candidates=500),
    # 4 x 64 images, 140,000 updates
    "paper": Scale(
        PAPER,
        {"epochs": 797, "batch_size": 256, "warmup_steps": 976},
        1800,
        200,
        max_parameters=25e6,
        objective="regression",
        split=(0.8, 0.1, 0.1),
    ),
}


def spaces(scale: str, size: int) -> dict[str, SearchSpace]:
    """The spaces of the arms, for images of a size.

    At the small scale an image has 4 x 4 patches, and heads have 8 channels: from 16 tokens on
    cosFormer then costs less than softmax, as it does from 128 on in the paper.
    """
    from saccade.compress.search import search_space

    names = {arm.space for arm in ARMS.values()}
    if scale == "paper":
        return {name: search_space(name) for name in names}
    patch = size // 4
    changes: dict[str, Any] = {
        "head_dim": 8, "heads": (4, 8), "patch_size": patch, "img_size": 4 * patch,
    }  # fmt: skip
    return {name: search_space(name, "cpu", **changes) for name in names}


def run(
    scale: str,
    data: str,
    seed: int,
    out: Path,
    *,
    arms: Collection[str] = tuple(ARMS),
    data_dir: str | None = None,
    started: Callable[[str], None] = lambda arm: None,
) -> Measured:
    """Train the super-net, learn the rankers, search and train what was found, with one seed.

    Args:
        scale: "small": 2 to 4 layers on 4 x 4 patches; "paper": 12 to 14 layers at 224 pixels.
        data: data spec.
        seed: of weights, order, sub-nets and searches.
        out: folder of the reproduction; the paper's scale writes config.yaml and its arms' runs
            there.
        arms: those to measure.
        data_dir: directory of the data.
        started: called with the name of each arm before it starts.

    Returns:
        Arm to test accuracy, work, parameters, and tau of its ranker on held-out sub-nets.
    """
    from saccade.compress.search import macs, parameters
    from saccade.data import load_data
    from saccade.learn._fit import fit

    plan = SCALES[scale]
    loaded = load_data(data, data_dir)
    if scale == "small":
        loaded = loaded.limited(1500, 500, 1000)
    searched = spaces(scale, min(loaded.size))
    # the published deviation, 0.02, is too small for a few hundred updates
    options: dict[str, Any] = {"pos_std": 1.0} if scale == "small" else {}
    recipe = plan.recipe.replace(
        data=data, data_dir=data_dir, seed=seed, quiet=True, in_chans=loaded.channels,
        img_size=searched[MIXED].img_size,
    )  # fmt: skip
    if scale == "paper":
        (out / "config.yaml").write_text(recipe.text())
    sizes = {"in_chans": loaded.channels, "num_classes": len(loaded.classes)}
    started(next(iter(arms)))
    net, module = _supernet(searched[MIXED], recipe, loaded, plan, sizes | options)
    scored = {name: _scored(net, space, module, plan, seed) for name, space in searched.items()}
    work = [macs(searched[SOFTMAX].config(arch, **sizes)) for arch in scored[SOFTMAX]]
    measured: Measured = {}
    for position, name in enumerate(arms):
        if position:
            started(name)
        arm = ARMS[name]
        space = searched[arm.space]
        bound = SHARE * median(work) if arm.budget else None
        arch, tau = _search(space, scored[arm.space], arm, plan, bound, sizes, seed)
        result = fit(
            recipe.replace(
                model_kwargs=space.options(arch) | options,
                out=str(run_folder(out, name, seed)),
            ),
            data=loaded,
            write=scale == "paper",
        )
        cfg = space.config(arch, **sizes)
        measured[name] = {
            ACCURACY: 100 * result.accuracy,
            WORK: macs(cfg) / 1e6,
            LONG: macs(cfg, 1024) / 1e6,
            SIZE: parameters(cfg) / 1e3,
            TAU: tau,
        }
    return measured


def _supernet(
    space: SearchSpace, recipe: TrainConfig, data: Any, plan: Scale, options: dict[str, Any]
) -> tuple[SuperNet, ImageDataModule]:
    """The trained super-net, and the data it was trained on."""
    import torch

    from saccade.compress.search import SuperNet, SuperNetConfig, train_supernet
    from saccade.data._seeds import seed_all
    from saccade.learn._fit import data_module, quiet_lightning

    config = SuperNetConfig(seed=recipe.seed, **plan.supernet)
    module = data_module(recipe.replace(batch_size=config.batch_size), data)
    seed_all(recipe.seed)
    net = SuperNet(space, **options)
    with quiet_lightning():
        train_supernet(net, module, config)
    return net.to("cuda" if torch.cuda.is_available() else "cpu"), module


def _scored(
    net: SuperNet, space: SearchSpace, module: ImageDataModule, plan: Scale, seed: int
) -> dict[Architecture, float]:
    """Distinct sub-nets of a space and their validation accuracy with inherited weights."""
    import numpy as np

    from saccade.compress.search import score

    rng = np.random.default_rng(seed)
    archs: dict[Architecture, None] = {}
    while len(archs) < plan.learned + plan.held:
        archs[space.decode(space.sample(rng))] = None
    return dict(
        zip(
            archs,
            score(net, list(archs), *as_tensors(module, module.val_dataloader())),
            strict=True,
        )
    )


def _search(
    space: SearchSpace,
    scored: dict[Architecture, float],
    arm: Arm,
    plan: Scale,
    max_macs: float | None,
    sizes: dict[str, int],
    seed: int,
) -> tuple[Architecture, float]:
    """What a ranker finds, and its tau on the sub-nets that it did not learn from."""
    from saccade.compress.search import Budget, Ranker, evolve, kendall_tau, ranked_search

    archs, accuracy = list(scored), list(scored.values())
    known, held = slice(plan.learned), slice(plan.learned, None)
    ranker = Ranker(plan.objective, arm.encoding, split=plan.split, seed=seed)
    ranker.fit(archs[known], accuracy[known])
    tau = kendall_tau(ranker.predict(archs[held]), accuracy[held])
    budget = Budget(
        lambda arch: space.config(arch, **sizes),
        max_parameters=plan.max_parameters,
        max_macs=max_macs,
    )
    if plan.candidates:
        found = ranked_search(space, ranker.predict, budget, plan.candidates, seed)
    else:
        found = evolve(space, ranker.predict, budget, seed=seed)
    return found.arch, tau


SYSTEM = System(
    name="efficient_transformer_nas",
    title="Neural Architecture Search on Efficient Transformers and Beyond",
    paper="arXiv 2207.13955",
    year=2022,
    link="https://arxiv.org/abs/2207.13955",
    operators=(),
    claim=(
        "Searching the kind of attention of every layer keeps the accuracy of the best softmax "
        "Transformer with less computation."
    ),
    data=("digits", "mnist"),
    run=run,
    arms=tuple(ARMS),
    main=Comparison(ACCURACY, MIXED, SOFTMAX, expected=-2.0),
    also=(
        Comparison(WORK, MIXED, SOFTMAX, expected=0.7, direction="lower", note="the cost"),
        Comparison(
            LONG, MIXED, SOFTMAX, expected=140.0, direction="lower", note="the cost, extrapolated"
        ),
        Comparison(
            ACCURACY, MIXED, EFFICIENT, expected=-1.0, note="efficient is at most a point better"
        ),
        Comparison(
            WORK, EFFICIENT, SOFTMAX, expected=0.25, direction="lower", note="efficient is cheaper"
        ),
        Comparison(ACCURACY, MIXED, CONTROL, expected=0.0, note="the kinds, at the same budget"),
        Comparison(
            TAU, MIXED, ORDINAL, expected=0.0, note="shares of the kinds against their mean code"
        ),
    ),
    floor=Floor(TAU, MIXED, THRESHOLDS),
    findings=(
        "The training of what was found decides. With 10 epochs, over seeds 0 to 2 on digits, "
        "mixed was 2.9 points below softmax (91.5 against 94.3 %) at 39 % of its work, and "
        "softmax under the same budget as much (91.2 %): neither was near its end. The same "
        "searches and architectures with 30 epochs for all arms, chosen after that run and "
        "tried over the same seeds, came to 96.3 and 98.1 %, and softmax under the budget to "
        "96.6 %. So the claim holds narrowly, within the 2 points that it is given, but the "
        "budget makes the difference at this size, not the kind of attention: mixed has no "
        "advantage over softmax of the same work. The thresholds of work and tau are half of "
        "what the run of 10 epochs gave; those of accuracy were stated before it."
    ),
    figures={
        "claims": "the best efficient Transformer is cheaper and a little less accurate than the "
        "best softmax one; the mixed one is as accurate with notably less computation",
        "architecture found on CIFAR-10, by the published history": "87.4 % top-1, 24.4 million "
        "parameters",
    },
)
