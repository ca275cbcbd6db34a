from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lewm.clip import Interface
from lewm.errors import UserError
from lewm.probes.clips import disturb, disturbed_triples, event_step, is_triples, read_triples, recoloured
from lewm.probes.setting import check_fits
from lewm.probes.surprise import (
    aligned,
    allow_resize,
    copy_last,
    localisation,
    pixel_difference,
    score_triples,
    summarise,
)


class Walker:
    """The embedding is the frame's first pixel; what is expected is that it moves by the sum of the actions."""

    def __init__(self, frameskip):
        self.interface = Interface(image_size=4, frameskip=frameskip, history=3, action_mean=(0.0,), action_std=(1.0,))

    def encode(self, pixels):
        return pixels[..., 0, 0, :1].float()

    def surprise(self, pixels, actions):
        z = self.encode(pixels)
        return (z[:, 1:] - z[:, :-1] - actions.sum(dim=(2, 3))[..., None]).square().mean(-1)


def write_triples(path, perturbed, frames=13, kinds=("unperturbed", "visual", "physical"), jump=50):
    """Clips whose first pixel walks by the actions; a physical event adds a jump, a visual one changes pixel 2."""
    rng = np.random.default_rng(0)
    n = len(perturbed)
    actions = np.repeat(rng.integers(0, 3, (n, 1, frames, 1)), 3, axis=1).astype(np.float32)
    pixels = np.zeros((n, 3, frames, 4, 4, 3), dtype=np.uint8)
    walk = np.concatenate([np.zeros((n, 1)), np.cumsum(actions[:, 0, :-1, 0], axis=1)], axis=1)
    pixels[..., 0, 0, 0] = walk[:, None]
    for i, p in enumerate(perturbed):
        pixels[i, kinds.index("physical"), p:, 0, 0, 0] += jump
        pixels[i, kinds.index("visual"), p:, 2, 2, :] = 200
    with h5py.File(path, "w") as file:
        file["pixels"], file["action"] = pixels, actions
        file["perturb_step"], file["kind"] = np.array(perturbed), np.array(kinds, dtype="S")
    return path


def run(path, frameskip, scorers=None):
    model = Walker(frameskip)
    return score_triples(read_triples(path, frameskip, 99), scorers or {"model": model.surprise}, torch.device("cpu"))


@pytest.mark.parametrize("frameskip", [1, 2, 3, 5])
@pytest.mark.parametrize("perturbed", [1, 4, 5, 6, 10])
def test_the_event_is_found_at_the_step_that_leads_into_it(tmp_path, frameskip, perturbed):
    if perturbed > (13 - 1) // frameskip * frameskip:
        pytest.skip("not visible in the subsampled clip")
    steps = run(write_triples(tmp_path / "t.h5", [perturbed]), frameskip)
    plain, visual, physical = steps.by_scorer["model"][0]
    assert (plain == 0).all() and (visual == 0).all()
    assert np.flatnonzero(physical).tolist() == [steps.event[0]]
    assert steps.event[0] == -(-perturbed // frameskip) - 1


def test_kinds_are_found_by_name_whatever_their_order(tmp_path):
    steps = run(write_triples(tmp_path / "t.h5", [6], kinds=("physical", "unperturbed", "visual")), 2)
    assert steps.by_scorer["model"][0].max(axis=1).tolist() == [0, 0, 2500]


def test_a_model_of_physics_is_surprised_by_teleports_and_not_by_colours(tmp_path):
    path = write_triples(tmp_path / "t.h5", [3 + i % 6 for i in range(24)])
    model = Walker(2)
    steps = run(path, 2, {"model": model.surprise, "pixel_difference": pixel_difference, "copy_last": copy_last(model)})
    found = summarise(steps.by_scorer["model"], steps.event, steps.group)
    physical, visual = found["kinds"]["physical"], found["kinds"]["visual"]
    assert physical["auroc"] == 1 and physical["localised"] == physical["localised_within_1"] == 1
    assert physical["auroc_ci95"] == [pytest.approx(0.025 ** (1 / 24)), 1]
    assert physical["p_paired_t"] < 0.01 and physical["n"] == 24
    assert visual["auroc"] == 0.5 and visual["p_paired_t"] == 1
    assert found["physical_vs_visual"]["auroc"] == 1
    pixels = summarise(steps.by_scorer["pixel_difference"], steps.event, steps.group)
    assert pixels["kinds"]["visual"]["auroc"] == 1  # the control does see the colour
    assert summarise(steps.by_scorer["copy_last"], steps.event, steps.group)["kinds"]["visual"]["auroc"] == 0.5


def test_scores_without_relation_to_the_event_give_half():
    rng = np.random.default_rng(1)
    steps, event = rng.random((60, 3, 8)), rng.integers(0, 8, 60)
    found = summarise(steps, event, np.arange(60))["kinds"]["physical"]
    assert found["auroc_ci95"][0] < 0.5 < found["auroc_ci95"][1]
    assert found["p_paired_t"] > 0.001
    assert found["localised_ci95"][0] < 1 / 8 < found["localised_ci95"][1]


def test_localised_within_one_counts_neighbours_only():
    steps = np.eye(6)[[0, 1, 2, 5]]
    found = localisation(steps, np.array([0, 2, 4, 5]), np.arange(4))
    assert found["localised"] == 0.5
    assert found["localised_within_1"] == 0.75


def test_clips_of_one_episode_do_not_narrow_the_interval_of_localisation():
    # 20 episodes of 5 clips each, which are localised together or not at all.
    hit = np.arange(20) % 2 == 0
    steps, group = np.eye(6)[np.where(hit, 0, 3)].repeat(5, axis=0), np.arange(20).repeat(5)
    found = localisation(steps, np.zeros(100, dtype=int), group)
    once = localisation(steps[::5], np.zeros(20, dtype=int), np.arange(20))
    assert found["localised"] == once["localised"] == 0.5
    width, expected = (np.ptp(each["localised_ci95"]) for each in (found, once))
    assert width == pytest.approx(expected, rel=0.15)  # Wilson's over clips is half as wide
    all_hit = localisation(np.eye(6)[np.zeros(100, dtype=int)], np.zeros(100, dtype=int), group)
    assert all_hit["localised_ci95"] == [pytest.approx(0.025 ** (1 / 20)), 1]


def test_scores_say_how_many_groups_they_are_of():
    steps = np.random.default_rng(0).random((12, 3, 5))
    found = summarise(steps, np.zeros(12, dtype=int), np.arange(12) // 3)
    assert found["physical_vs_visual"]["n"] == 12 and found["physical_vs_visual"]["groups"] == 4
    assert found["kinds"]["visual"]["groups"] == 4


def test_aligned_curves_put_every_event_at_zero():
    steps = np.zeros((3, 5))
    event = np.array([1, 4, 0])
    steps[np.arange(3), event] = 7
    relative, values = aligned(steps, event)
    assert relative.tolist() == list(range(-4, 5))
    assert (values[:, relative == 0] == 7).all()
    assert np.nansum(values) == 21 and np.isnan(values[0, 0])


@pytest.mark.parametrize(("perturbed", "frames"), [(0, 4), (16, 4), (20, 4)])
def test_an_event_outside_the_clip_is_refused(perturbed, frames):
    with pytest.raises(UserError, match="outside the clip"):
        event_step(perturbed, 5, frames)
    assert event_step(15, 5, 4) == 2
    assert event_step(1, 5, 4) == 0


def test_clips_that_are_too_short_or_of_other_kinds_are_refused(tmp_path):
    path = write_triples(tmp_path / "t.h5", [2], frames=4)
    with pytest.raises(UserError, match=r"4 frames .* too short for frameskip 5"):
        next(read_triples(path, 5, 1))
    with h5py.File(path, "a") as file:
        del file["kind"]
        file["kind"] = np.array(["a", "b", "c"], dtype="S")
    with pytest.raises(UserError, match="kind a, b, c"):
        next(read_triples(path, 1, 1))


def test_frames_and_actions_that_do_not_fit_are_refused_with_both_values():
    model = Walker(2)
    with pytest.raises(UserError, match="8 x 8, the model takes 4 x 4"):
        check_fits((8, 8, 3), 1, model.interface, "x.h5")
    with pytest.raises(UserError, match="have 2 numbers, the model takes 1"):
        check_fits((4, 4, 3), 2, model.interface, "x.h5")
    with pytest.raises(UserError, match="1 channels, the model takes 3"):
        check_fits((4, 4, 1), 1, model.interface, "x.h5")
    allow_resize(model)
    check_fits((8, 8, 3), 1, model.interface, "x.h5")


class Flat:
    """Episodes whose first pixel walks by the actions, each from a start of its own."""

    path = Path("flat")
    frame_shape = (4, 4, 3)

    def __init__(self, lengths):
        rng = np.random.default_rng(0)
        self.lengths, self.keys = np.array(lengths), [str(e) for e in range(len(lengths))]
        self._actions = [rng.integers(0, 2, (n, 1)).astype(np.float32) for n in lengths]

    def frames(self, episode, rows):
        out = np.zeros((len(rows), 4, 4, 3), dtype=np.uint8)
        walked = np.concatenate([[0], np.cumsum(self._actions[episode][:-1, 0])])[rows]
        out[:, 0, 0, :] = (20 * episode + walked)[:, None]
        out[:, 1, 1] = (255, 0, 0)
        return out

    def actions(self, episode):
        return self._actions[episode]


def test_a_splice_breaks_the_dynamics_at_the_event_and_nowhere_else():
    source, model = Flat([30] * 8), Walker(2)
    triples = disturbed_triples(source, np.arange(8), 2, 16, seed=0)
    steps = score_triples(triples, {"model": model.surprise}, torch.device("cpu"))
    plain, visual, physical = steps.by_scorer["model"].swapaxes(0, 1)
    assert len(steps.event) == 16 and set(steps.group) == set(range(8))
    assert (plain == 0).all() and (visual == 0).all()
    hit = np.zeros_like(physical, dtype=bool)
    hit[np.arange(16), steps.event] = True
    assert (physical[hit] > 0).all()
    assert (physical[~hit] == 0).all()


def test_a_colour_change_turns_red_into_green_from_the_event_on():
    triple = next(disturbed_triples(Flat([30, 30]), np.arange(2), 2, 2, seed=0))
    first = triple.event + 1
    assert (triple.pixels[1, :first] == triple.pixels[0, :first]).all()
    assert (triple.pixels[1, first:, 1, 1] == (0, 255, 0)).all()
    for channels in (1, 3):  # turning the channels of grey frames would leave them as they are
        grey = np.full((1, 2, 2, channels), 10, dtype=np.uint8)
        assert (recoloured(grey) == 245).all()


def test_a_splice_needs_two_episodes():
    with pytest.raises(UserError, match="needs 2 episodes"):
        next(disturbed_triples(Flat([30]), np.arange(1), 2, 2, seed=0))


def test_a_diverged_model_is_named():
    triples = disturbed_triples(Flat([30, 30]), np.arange(2), 2, 2, seed=0)
    with pytest.raises(UserError, match="diverged"):
        score_triples(triples, {"model": lambda p, a: torch.full((3, 4), torch.nan)}, torch.device("cpu"))


def test_triples_are_told_from_data_sets(tmp_path):
    assert is_triples(write_triples(tmp_path / "t.h5", [2]))
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["pixels"] = np.zeros(3)
    (tmp_path / "text.h5").write_text("no")
    assert not any(is_triples(tmp_path / name) for name in ("flat.h5", "text.h5", "missing.h5", "."))


def test_the_block_that_leads_into_a_splice_is_still_the_clips_own():
    frames = [np.full((6, 2, 2, 3), value, dtype=np.uint8) for value in (1, 2)]
    actions = [np.full((5, 2, 1), value, dtype=np.float32) for value in (1, 2)]
    triple = disturb((frames[0], actions[0]), (frames[1], actions[1]), 3, 2, 0)
    assert triple.event == 2
    assert triple.pixels[2, :, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert triple.actions[2, :, 0, 0].tolist() == [1, 1, 1, 2, 2]
