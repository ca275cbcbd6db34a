"""Alignment of frames and actions, refusals, and what reaches the encoder."""

import jaxtyping
import pytest
import torch
from conftest import TINY
from torch import Tensor, nn

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.model.encoder import Encoder
from lewm.model.world_model import WorldModel


def frames(b: int = 2, t: int = 5, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (b, t, 16, 16, 3), dtype=torch.uint8, generator=g)


def blocks(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, 2, 2, generator=torch.Generator().manual_seed(seed))


class Adding(nn.Module):
    """z + c of the same frame: a world in which an action is the motion, so that misalignment is seen at once."""

    def __init__(self, history: int) -> None:
        super().__init__()
        self.history = history

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        assert z.shape[1] <= self.history
        assert z.shape == c.shape
        return z + c


@pytest.fixture
def adding_model(tiny_model) -> WorldModel:
    """Exact dynamics: the next embedding is this one plus the sum of the block's actions in every dimension."""
    tiny_model.predictor, tiny_model.pred_proj, tiny_model.remembers = Adding(3), nn.Identity(), False
    tiny_model.encode_actions = lambda a: a.sum((2, 3))[..., None].expand(-1, -1, 8)
    return tiny_model


def test_rollout_applies_each_candidates_blocks_from_the_last_frame_on(adding_model):
    z, past, future = torch.randn(2, 3, 8), blocks(2, 2), blocks(2, 4, 6)
    expected = z[:, -1][:, None, None] + future.sum((3, 4)).cumsum(2)[..., None]
    torch.testing.assert_close(adding_model.rollout(z, past, future), expected.expand(2, 4, 6, 8))


def test_predictions_answer_the_action_of_their_own_frame(adding_model):
    z, actions = torch.randn(2, 5, 8), blocks(2, 5)
    torch.testing.assert_close(adding_model.predict(z, actions), z + actions.sum((2, 3))[..., None])


def test_a_prediction_never_sees_later_frames_or_actions(tiny_model):
    z, actions = torch.randn(1, 6, 8), blocks(1, 6)
    before = tiny_model.predict(z, actions)
    for frame in range(6):
        changed_z, changed_a = z.clone(), actions.clone()
        changed_z[:, frame, 0] += 1  # not all alike: LayerNorm would take that away
        changed_a[:, frame] += 1
        for after in (tiny_model.predict(changed_z, actions), tiny_model.predict(z, changed_a)):
            moved = (after - before).abs().amax((0, 2)) > 1e-6
            assert not moved[:frame].any()
            assert moved[frame]
            assert not moved[frame + 3 :].any()  # history 3: forgotten


def test_a_late_prediction_is_that_of_its_own_window_alone(tiny_model):
    z, actions = torch.randn(1, 6, 8), blocks(1, 6)
    whole = tiny_model.predict(z, actions)
    torch.testing.assert_close(whole[:, 5], tiny_model.predict(z[:, 3:6], actions[:, 3:6])[:, -1])
    torch.testing.assert_close(whole[:, 1], tiny_model.predict(z[:, :2], actions[:, :2])[:, -1])


def test_a_rollout_uses_the_real_context_and_the_past_blocks(tiny_model):
    z, past, future = torch.randn(1, 3, 8), blocks(1, 2), blocks(1, 1, 3)
    before = tiny_model.rollout(z, past, future)
    one_step = tiny_model.predict(z, torch.cat([past, future[:, 0, :1]], dim=1))[:, -1]
    torch.testing.assert_close(before[:, 0, 0], one_step)
    for changed in (
        tiny_model.rollout(z + torch.eye(3, 8)[:1, None] * torch.eye(3)[0][:, None], past, future),
        tiny_model.rollout(z, past + 1, future),
    ):
        assert (changed - before).abs().max() > 1e-4


@pytest.mark.parametrize("t", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_a_rollout_that_remembers_gives_what_whole_windows_give(tiny_model, t, n):
    z, past, future = torch.randn(2, t, 8), blocks(2, t - 1), blocks(2, 3, n)
    found = tiny_model.rollout(z, past, future)
    tiny_model.remembers = False
    torch.testing.assert_close(found, tiny_model.rollout(z, past, future), rtol=1e-5, atol=1e-6)


def test_gradients_pass_through_a_rollout_that_remembers(tiny_model):
    z, past, future = torch.randn(1, 1, 8), blocks(1, 0), blocks(1, 2, 5)
    gradients = []
    for tiny_model.remembers in (True, False):
        leaf = future.clone().requires_grad_()
        tiny_model.rollout(z, past, leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().amax(dim=(0, 1, 3, 4)).min() > 1e-6  # of every block
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_in_training_every_window_is_drawn_whole(tiny_model):
    asked = []
    tiny_model.predictor.remember = lambda c: asked.append(c)
    tiny_model.train()
    tiny_model.rollout(torch.randn(2, 1, 8), blocks(2, 0), blocks(2, 2, 4))
    assert not asked


def test_candidates_do_not_touch_each_other(tiny_model):
    z, past, future = torch.randn(2, 2, 8), blocks(2, 1), blocks(2, 3, 4)
    together = tiny_model.rollout(z, past, future)
    for s in range(3):
        torch.testing.assert_close(together[:, s], tiny_model.rollout(z, past, future[:, s : s + 1])[:, 0])


@pytest.mark.parametrize("t", [1, 2, 3])
def test_a_short_context_is_legal_and_never_padded(tiny_model, t):
    assert tiny_model.rollout(torch.randn(1, t, 8), blocks(1, t - 1), blocks(1, 2, 5)).shape == (1, 2, 5, 8)


def test_surprise_is_the_mean_squared_error_of_each_step(tiny_model):
    pixels, actions = frames(), blocks(2, 4)
    z = tiny_model.encode(pixels)
    expected = ((tiny_model.predict(z[:, :-1], actions) - z[:, 1:]) ** 2).mean(-1)
    torch.testing.assert_close(tiny_model.surprise(pixels, actions), expected)


def test_pixels_are_normalised_by_imagenet_statistics_on_arrival(tiny_model):
    x = tiny_model.normalise_pixels(torch.full((1, 1, 16, 16, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(
        x[0, 0, :, 3, 3], (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )


def test_actions_are_standardised_by_the_interface(tiny_model):
    given = torch.tensor([0.5, -1.0]).expand(1, 1, 2, 2)
    assert torch.equal(tiny_model.encode_actions(given), tiny_model.action_encoder(torch.zeros(1, 1, 2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.encode(frames().float()), "must be uint8"),
        (lambda m: m.encode(frames()[..., :1]), "1 channels, the model takes 3"),
        (lambda m: m.encode(frames()[:, :, :8]), "8 x 16, the model takes 16 x 16"),
        (
            lambda m: m.predict(torch.randn(2, 3, 8), torch.randn(2, 3, 5, 2)),
            r"\(3, 5, 2\), the model takes \(3, 2, 2\)",
        ),
        (lambda m: m.predict(torch.randn(2, 3, 8), torch.randn(2, 3, 2, 4)), r"\(3, 2, 4\)"),
        (lambda m: m.predict(torch.randn(2, 3, 8), blocks(2, 2)), "one block after each"),
        (lambda m: m.rollout(torch.randn(2, 3, 8), blocks(2, 3), blocks(2, 1, 1)), "one block between"),
    ],
)
def test_what_is_inconsistent_with_the_model_is_refused_with_both_values(tiny_model, call, message):
    jaxtyping.config.update("jaxtyping_disable", True)  # users have no run-time shape checks
    try:
        with pytest.raises(UserError, match=message):
            call(tiny_model)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_other_sizes_are_resized_only_where_the_model_was_trained_so(interface):
    from dataclasses import replace

    model = WorldModel(replace(interface, resize=True), **TINY).eval()
    assert model.encode(torch.zeros(1, 2, 40, 48, 3, dtype=torch.uint8)).shape == (1, 2, 8)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224"])
def test_any_timm_backbone_is_an_encoder_through_which_gradients_flow(name):
    kwargs = {"patch_size": 8, "depth": 1} if name.startswith("vit") else {}
    interface = Interface(image_size=32, frameskip=2, history=2, action_mean=(0.0,), action_std=(1.0,))
    model = WorldModel(interface, **(TINY | {"encoder": name, "encoder_kwargs": kwargs})).train()
    z = model.encode(torch.randint(0, 256, (2, 3, 32, 32, 3), dtype=torch.uint8))
    z.square().sum().backward()
    assert z.shape == (2, 3, 8)
    assert all(p.grad is not None for p in model.encoder.parameters())


@pytest.mark.parametrize("name", ["regnetx_002", "efficientnet_b0", "mobilenetv3_small_100"])
def test_a_backbones_activations_and_true_width_survive_our_batchnorm(name):
    import timm

    torch.manual_seed(0)
    ours = Encoder(name, image_size=32).eval()
    theirs = timm.create_model(name, num_classes=0)
    theirs.load_state_dict(ours.backbone.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        y = ours(x)
        torch.testing.assert_close(y, theirs.eval()(x))
    assert y.shape == (2, ours.width)


def test_the_papers_model_has_the_papers_size():
    interface = Interface(image_size=224, frameskip=5, history=3, action_mean=(0.0, 0.0), action_std=(1.0, 1.0))
    model = WorldModel(interface, encoder_kwargs={"patch_size": 14})

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    parts = [model.encoder, model.predictor, model.action_encoder, model.projector, model.pred_proj]
    assert [count(part) for part in parts] == [5_501_376, 10_791_360, 156_206, 792_768, 792_768]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_kwargs": {"patch_size": 14}}, "image size 16 is not a multiple of the patch size 14"),
        ({"encoder": "vit_tiny_patch16_224x"}, "no backbone"),
        ({"encoder_kwargs": {"patch_size": 8, "colour": 1}}, "refuses them"),
        ({"positions": "rotary"}, "learned, sincos"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(interface, changes, message):
    with pytest.raises(UserError, match=message):
        WorldModel(interface, **(TINY | changes))


def test_sincos_positions_tell_every_patch_apart(interface):
    model = WorldModel(interface, **(TINY | {"positions": "sincos"}))
    positions = model.encoder.backbone.pos_embed[0, 1:]
    assert torch.cdist(positions, positions).add(torch.eye(4) * 9).min() > 0.1


def test_dropout_touches_the_predictor_only(interface):
    model = WorldModel(interface, **(TINY | {"dropout": 0.5})).train()
    assert {type(m) for m in model.encoder.modules() if isinstance(m, nn.Dropout) and m.p > 0} == set()
    assert sum(m.p > 0 for m in model.predictor.modules() if isinstance(m, nn.Dropout)) == 3


def test_the_encoder_gives_the_same_with_and_without_gradients(tiny_model):
    """On a CPU attention is fused only where there is no backward pass; both must be the same function."""
    pixels = frames(2, 3)
    with torch.no_grad():
        fused = tiny_model.encode(pixels)
    assert any(hasattr(m, "fused_attn") for m in tiny_model.encoder.modules())
    assert all(m.fused_attn for m in tiny_model.encoder.modules() if hasattr(m, "fused_attn"))
    plain = tiny_model.encode(pixels)
    assert not any(m.fused_attn for m in tiny_model.encoder.modules() if hasattr(m, "fused_attn"))
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)
