import torch
from einops import repeat

from lewm.probes.depths import embed_once, known_before, open_loop_errors


def clip(t=6, b=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (b, t, 16, 16, 3), generator=generator, dtype=torch.uint8)
    return pixels, torch.randn(b, t - 1, 2, 2, generator=generator)


class Adder:
    """The next embedding is the last plus the sum of the block's actions: exact where embeddings do that."""

    def __init__(self, interface):
        self.interface = interface

    def rollout(self, z, past, future):
        return z[:, None, -1:] + future.sum(dim=3).cumsum(dim=2)


def walk(actions, start=0.0):
    return torch.cat([torch.full_like(actions[:, :1, 0], start), start + actions.sum(dim=2).cumsum(dim=1)], dim=1)


def test_depth_1_is_the_models_own_surprise(tiny_model):
    pixels, actions = clip()
    with torch.inference_mode():
        errors = open_loop_errors(tiny_model, tiny_model.encode(pixels), actions, 3)
        expected = tiny_model.surprise(pixels, actions)
    assert torch.allclose(errors[:, 0].square().mean(-1), expected, atol=1e-6)


def test_each_depth_sees_no_frame_later_than_it_may_and_every_block_on_the_way(tiny_model):
    pixels, actions = clip()
    with torch.inference_mode():
        z = tiny_model.encode(pixels)
        for n in (1, 2, 3):
            for i in range(n - 1, 5):
                seen = i + 2 - n
                first = max(0, seen - tiny_model.interface.history)
                path = tiny_model.rollout(
                    z[:, first:seen],
                    actions[:, first : seen - 1],
                    repeat(actions[:, seen - 1 : i + 1], "b n k a -> b 1 n k a"),
                )
                errors = open_loop_errors(tiny_model, z, actions, 3)
                assert torch.allclose(errors[:, n - 1, i], path[:, 0, -1] - z[:, i + 1], atol=1e-6)


def test_steps_too_early_for_a_depth_are_nan_and_no_others(tiny_model):
    pixels, actions = clip(t=4)
    errors = open_loop_errors(tiny_model, tiny_model.encode(pixels), actions, 5)
    missing = torch.isnan(errors[0, :, :, 0])
    assert missing.tolist() == [[n > i for i in range(3)] for n in range(5)]
    known = known_before(tiny_model, tiny_model.encode(pixels), actions, errors)
    assert torch.equal(torch.isnan(known[0, :, :, 1]), missing)


def test_an_exact_model_errs_at_depth_n_in_the_n_steps_from_the_event_on(interface):
    _, actions = clip(t=9)
    z = walk(actions)
    z[:, 4:] += 10  # the event leads to frame 4: step 3
    errors = open_loop_errors(Adder(interface), z, actions, 3)
    for n in (1, 2, 3):
        wrong = errors[:, n - 1].abs().amax(dim=-1) > 1e-3  # NaN compares as False
        assert [i for i in range(8) if wrong[0, i]] == [i for i in range(3, 3 + n) if i >= n - 1]


def test_what_is_known_before_a_step_does_not_depend_on_its_outcome(interface):
    _, actions = clip(t=7)
    z = walk(actions)
    model = Adder(interface)
    jumped = z.clone()
    jumped[:, 4:] += 10
    plain, broken = (known_before(model, x, actions, open_loop_errors(model, x, actions, 2)) for x in (z, jumped))
    assert torch.allclose(plain, broken, atol=1e-4, equal_nan=True)
    standardised = (actions - torch.tensor([0.5, -1.0])) / torch.tensor([2.0, 0.5])
    assert torch.allclose(plain[:, 0, :, 0], standardised.square().mean(dim=(2, 3)).sqrt(), atol=1e-6)
    assert torch.allclose(plain[:, 1, 1:, 0] ** 2, (plain[:, 0, 1:, 0] ** 2 + plain[:, 0, :-1, 0] ** 2) / 2, atol=1e-5)
    assert torch.allclose(plain[:, 0, :, 1], (z[:, 1:] - z[:, :-1]).square().mean(-1).sqrt(), atol=1e-5)


def test_shared_frames_are_encoded_once_and_come_out_as_always(tiny_model):
    pixels, _ = clip(b=2)
    clips = torch.cat([pixels, pixels[:1], pixels.flip(1)])
    counted = []

    class Counting:
        def encode(self, pixels):
            counted.append(pixels.shape[1])
            return tiny_model.encode(pixels)

    with torch.inference_mode():
        assert torch.allclose(embed_once(Counting(), clips), tiny_model.encode(clips), atol=1e-5)
    assert counted == [12]
