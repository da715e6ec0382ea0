"""Max-Former: parameter counts, neurons' figures, attention's integers, identities, activity."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.models import create_model
from saccade.models._spiking import LIF, SpikingClassifier, Unit, activity
from saccade.models.max_former import Block, MaxFormerConfig, SpikingSelfAttention


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def micro(**options: Any) -> Any:
    torch.manual_seed(0)
    return create_model("max_former_micro", **options)


def settle(model: nn.Module, *size: int) -> nn.Module:
    """Give every batch norm statistics and weights that are not its first ones."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low in (
                (module.weight, 0.5),
                (module.bias, -0.2),
                (module.running_mean, -0.2),
                (module.running_var, 0.2),
            ):
                tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model


@pytest.mark.parametrize(
    ("variant", "counts"),
    [
        ("max_former_cifar", {10: 6_568_282, 100: 6_602_932}),
        ("max_former_10_384", {1000: 16_237_240}),
        ("max_former_10_512", {1000: 28_653_480}),
        ("max_former_10_768", {1000: 63_992_200}),
        ("max_former_events", {10: 1_455_626, 11: 1_455_883}),
    ],
)
def test_parameter_counts_of_the_paper(variant: str, counts: dict[int, int]) -> None:
    with torch.device("meta"):
        assert {c: count(create_model(variant, num_classes=c)) for c in counts} == counts


@pytest.mark.parametrize(
    ("variant", "size", "sides"),
    [
        ("max_former_cifar", (3, 33, 20), [(33, 20), (17, 10), (9, 5)]),
        ("max_former_10_384", (3, 65, 90), [(17, 23), (9, 12), (5, 6)]),
        ("max_former_events", (2, 50, 128), [(7, 16), (4, 8)]),
    ],
)
def test_maps_of_the_stages(variant: str, size: tuple[int, ...], sides: list[Any]) -> None:
    with torch.device("meta"):
        model = create_model(variant, features_only=True)
        maps = model(torch.empty(2, *size))
    assert [tuple(m.shape[2:]) for m in maps] == sides
    assert [m.shape[1] for m in maps] == model.feature_info.channels()


X = [0.9, 1.6, 1.2, 2.5, 0.1, 1.0, 1.0, 1.9]


@pytest.mark.parametrize(
    ("reset", "last"), [("hard", 0.0), ("soft", 0.366015625)], ids=["hard", "soft"]
)
def test_neurons_fire_as_computed_by_hand(reset: str, last: float) -> None:
    neurons = LIF(reset=reset)
    x = torch.tensor(X, dtype=torch.float64).view(8, 1, 1)
    assert neurons(x).flatten().tolist() == [0, 1, 0, 1, 0, 0, 0, 1]
    # one step more tells the potential that was left: it fires from 2 - v upwards
    for above, fires in ((1e-9, 1.0), (-1e-9, 0.0)):
        more = torch.cat([x, torch.full((1, 1, 1), 2 - last + above, dtype=torch.float64)])
        assert neurons(more)[-1].item() == fires


def test_neurons_below_threshold_are_silent_and_tau_1_has_no_memory() -> None:
    assert not LIF()(torch.full((40, 1, 3), 0.999)).any()
    x = torch.randn(9, 2, 5)
    torch.testing.assert_close(LIF(tau=1.0)(x), (x >= 1).float())


def test_surrogate_is_a_sigmoid_of_width_4() -> None:
    x = torch.linspace(-1, 3, 9, dtype=torch.float64).view(1, 1, 9).requires_grad_()
    (grad,) = torch.autograd.grad(LIF()(x).sum(), x)
    gate = torch.sigmoid(4 * (x / 2 - 1))
    torch.testing.assert_close(grad, 0.5 * 4 * gate * (1 - gate))


@pytest.mark.parametrize("dims", [2, 1], ids=["maps", "tokens"])
def test_norm_joins_the_neurons_in_evaluation(dims: int) -> None:
    torch.manual_seed(0)
    norm = settle((nn.BatchNorm2d if dims == 2 else nn.BatchNorm1d)(6).double())
    x = 2 * torch.randn(4, 3, 6, *[5] * dims, dtype=torch.float64)
    w = torch.randn(x.shape, dtype=torch.float64)
    neurons = LIF()
    for training in (False, True):
        norm.train(training)
        results = []
        for joined in (True, False):
            leaf = x.clone().requires_grad_()
            normed = norm(leaf.flatten(0, 1)).view_as(x) if not joined else None
            spikes = neurons(leaf, norm) if normed is None else neurons(normed)
            results.append(
                [spikes, *torch.autograd.grad((spikes * w).sum(), [leaf, *norm.parameters()])]
            )
        assert 0.02 < results[0][0].mean() < 0.98
        torch.testing.assert_close(results[0], results[1])


def test_attention_is_integer_and_its_order_does_not_matter() -> None:
    torch.manual_seed(0)
    attention = settle(SpikingSelfAttention(LIF, 24, 3)).eval()
    with torch.no_grad():
        q, k, v = attention.spikes(2 * torch.randn(3, 2, 24, 35))
        mixed = attention.mix(q, k, v)
    for spikes in (q, k, v):
        assert spikes.shape == (3, 2, 3, 8, 35)
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
    # token by token: every pair's agreement of query and key weighs the value
    scores = torch.einsum("tbhdi,tbhdj->tbhij", q, k)
    expected = 0.125 * torch.einsum("tbhij,tbhdj->tbhdi", scores, v)
    assert torch.equal(mixed, expected.flatten(2, 3))
    assert torch.equal(mixed * 8, (mixed * 8).round())


@pytest.mark.parametrize("mixer", ["dwc3", "dwc5", "dwc7", "ssa", "identity"])
@pytest.mark.parametrize("ratio", [4, 1], ids=["mlp 4", "mlp 1"])
def test_zeroed_last_norms_make_a_block_the_identity(mixer: str, ratio: int) -> None:
    torch.manual_seed(0)
    block = Block(LIF, 16, mixer, 2, ratio)
    x = torch.randn(2, 3, 16, 6, 5)
    changed = not torch.equal(block(x), x)
    ends = [block.mlp.fc2, *([block.mlp.fc1] if ratio == 1 else [])]
    if isinstance(block.mixer, SpikingSelfAttention):
        ends.append(block.mixer.proj)
    elif isinstance(block.mixer, Unit):
        ends.append(block.mixer)
    for unit in ends:
        nn.init.zeros_(unit.norm.weight)
        nn.init.zeros_(unit.norm.bias)
    assert changed
    assert torch.equal(block(x), x)


def test_one_step_is_a_network_of_binary_activations() -> None:
    model = settle(micro(steps=1)).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, LIF):
                setattr(module, name, Heaviside(2 * child.options["v_threshold"]))
    torch.testing.assert_close(model(x), expected)


class Heaviside(nn.Module):
    """1 from the threshold upwards: a neuron that starts at rest and charges by half."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        if norm is not None:
            x = norm(x.flatten(0, 1)).view_as(x)
        return (x >= self.threshold).to(x.dtype)


def test_still_image_is_the_same_frame_at_every_step() -> None:
    model = settle(micro(steps=3)).double().eval()
    x = torch.randn(2, 3, 32, 24, dtype=torch.float64)
    frames = x.unsqueeze(1).expand(-1, 3, -1, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(frames))
        # the number of frames is the input's own
        model.steps = 7
        torch.testing.assert_close(model(frames), model(frames.clone()))
        assert model.forward_features(frames).shape == (3, 2, 96, 8, 6)
        assert model.forward_features(x).shape == (7, 2, 96, 8, 6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"embed": "orig"},
        {"embed": "avg"},
        {"embed": "max1", "reset": "soft"},
        {"mixers": ("max", "max", "max"), "embed": "orig"},
        {"mixers": ("avg", "avg", "avg"), "embed": "orig"},
        {"first_embed": "orig_imagenet", "mixers": ("dwc7", "dwc5", "ssa"), "init": "imagenet"},
        {"first_embed": "max_plus", "mlp_ratio": 1, "heads": 1},
    ],
    ids=["paper", "orig", "avg", "max1", "max mixer", "avg mixer", "imagenet", "events"],
)
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    model = settle(micro(**options))
    # the last map must be large enough for the sums of attention to reach its threshold
    side = {"orig": 32, "orig_imagenet": 64, "max_plus": 128}[model.cfg.first_embed]
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    nn.functional.cross_entropy(model(x), torch.tensor([1, 2, 3])).backward()
    zero = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # a batch norm takes a convolution's bias away
    assert [n for n in zero if not n.endswith(".conv.bias")] == []


def test_batch_of_one_and_checkpointing() -> None:
    model = settle(micro()).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(x[:1]), model(x)[:1])
    grads: list[list[Tensor]] = []
    for enable in (False, True):
        model.train().set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[1], grads[0])


def test_activity_counts_what_a_loop_over_the_layers_counts() -> None:
    torch.manual_seed(0)
    model = SpikingClassifier(
        LIF, 3, nn.Conv2d(2, 4, 1), [[Unit(LIF(), nn.Conv2d(4, 6, 3, padding=1), nn.Identity())]],
        [6], 5, 0.0, [1], lambda module: None,
    )  # fmt: skip
    model.stem = Lift(model.stem)
    nn.init.constant_(model.features[0].conv.bias, 2.0)
    images = 3 * torch.randn(4, 2, 7, 8)
    result = activity(model, images)
    with torch.no_grad():
        membrane = model.stem(images.unsqueeze(0)).expand(3, -1, -1, -1, -1)
        spikes = LIF()(membrane)
        maps = model.features(membrane)
        last = LIF()(maps.mean((3, 4)))
    dense = [2 * 4 * 56, 3 * 4 * 9 * 6 * 56, 3 * 6 * 5]
    assert [layer.operations for layer in result.layers] == dense
    assert [layer.spiking for layer in result.layers] == [False, True, True]
    rates = [1.0, spikes.mean().item(), last.mean().item()]
    assert min(rates) > 0.05
    assert [layer.rate for layer in result.layers] == pytest.approx(rates)
    sops = rates[1] * dense[1] + rates[2] * dense[2]
    assert result.synaptic_operations == pytest.approx(sops)
    assert result.energy_mj == pytest.approx(1e-9 * (4.6 * dense[0] + 0.9 * sops))
    assert result.ann_energy_mj == pytest.approx(4.6e-9 * (dense[0] + (dense[1] + dense[2]) / 3))
    assert list(result.firing.values()) == pytest.approx(rates[1:])
    assert result.mean_rate == pytest.approx(sum(rates[1:]) / 2)
    assert model.training


class Lift(nn.Module):
    """A module of [B, ...] on [T, B, ...]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def test_activity_of_the_whole_network() -> None:
    model = settle(micro())
    result = activity(model, torch.randn(2, 3, 32, 32))
    names = [layer.name for layer in result.layers]
    assert names[0] == "stem.conv"
    assert names[-1] == "head"
    # the products of attention, and every layer but the first reads spikes
    assert sum(name.endswith(("keys_values", "queries")) for name in names) == 2
    assert [layer.spiking for layer in result.layers] == [False] + [True] * (len(names) - 1)
    attention = {layer.name.rpartition(".")[2]: layer for layer in result.layers}
    assert attention["queries"].operations == 2 * 64 * 96 * 32
    assert all(0 <= rate <= 1 for rate in result.firing.values())
    assert 0 < result.energy_mj < result.ann_energy_mj * result.steps


def test_frames_cost_the_network_without_spikes_one_image() -> None:
    model = settle(micro())
    image = torch.randn(2, 3, 32, 32)
    still = activity(model, image)
    moving = activity(model, image.unsqueeze(1).expand(-1, model.steps, -1, -1, -1))
    assert moving.layers[0].operations == model.steps * still.layers[0].operations
    assert moving.ann_energy_mj == pytest.approx(still.ann_energy_mj)


def test_activity_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        activity(micro(), torch.zeros(0, 3, 32, 32))
    with pytest.raises(ValueError, match="a frame at least"):
        micro()(torch.zeros(2, 0, 3, 32, 32))


@pytest.mark.parametrize(
    ("frequency", "gain"), [(0.0, 1.0), (math.pi / 2, 0.4472136), (math.pi, 1 / 3)]
)
def test_membrane_is_a_low_pass_filter(frequency: float, gain: float) -> None:
    from saccade.ops import lif

    steps = torch.arange(400, dtype=torch.float64)
    x = torch.exp(1j * frequency * steps)
    parts = [lif(p.reshape(-1, 1).contiguous(), v_threshold=1e9, store_v=True)[2] for p in
             (x.real, x.imag)]  # fmt: skip
    response = torch.complex(*parts).flatten()[-1] / x[-1]
    assert abs(response) == pytest.approx(gain, abs=1e-6)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("stages", {"depths": (1, 2)}, r"depths must hold .* each of the 3 stages, got \(1, 2\)"),
    ("mixers", {"mixers": ("ssa",)}, r"mixers must hold"),
    ("mixer", {"mixers": ("identity", "dwc4", "ssa")}, "a mixer must be one of .* got 'dwc4'"),
    ("embed", {"embed": "mean"}, "embed must be one of max, max1, avg, orig, got 'mean'"),
    ("first", {"first_embed": "max"}, "first_embed must be one of orig, .* got 'max'"),
    ("reset", {"reset": "none"}, "hard, soft, got 'none'"),
    ("width", {"first_embed": "max_plus", "dims": (12, 24, 48)}, "a multiple of 8 .* got 12"),
    ("heads", {"heads": 7}, "stage 2 has 384 channels and 7 heads"),
    ("steps", {"steps": 0}, "steps must be at least 1, got 0"),
    ("tau", {"tau": 0.5}, "at least 1 step, got 0.5"),
]


@pytest.mark.parametrize(
    ("options", "text"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes_get_a_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MaxFormerConfig(**options)
