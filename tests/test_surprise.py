import numpy as np
import pytest
import torch

from lewm.clip import Interface
from lewm.datasets.violation import Clip
from lewm.errors import UserError
from lewm.probes.calibration import Calibration, Ordinary
from lewm.probes.setting import check_fits
from lewm.probes.surprise import (
    ModelScorer,
    Pairs,
    Steps,
    alarms,
    aligned,
    allow_resize,
    fading,
    localisation,
    one_step,
    pixel_difference,
    score_trials,
    summarise,
)
from lewm.probes.trials import Trial, Trials, Version, event_step

NATURES = {"visual": "visual", "physical": "physical", "pushed": "physical"}


class Walker:
    """The embedding is the frame's first pixel; what is expected is that it moves by the sum of the actions."""

    def __init__(self, frameskip=2):
        self.interface = Interface(image_size=4, frameskip=frameskip, history=3, action_mean=(0.0,), action_std=(1.0,))

    def encode(self, pixels):
        return pixels[..., 0, 0, :1].float()

    def predict(self, z, actions):
        return z + actions.sum(dim=(2, 3))[..., None]

    def rollout(self, z, past, future):
        return z[:, None, -1:] + future.sum(dim=(3, 4))[..., None].cumsum(dim=2)


def walk(rng, frames=7, start=20):
    """A clip whose first pixel walks by the actions."""
    actions = rng.integers(0, 3, (frames - 1, 2, 1)).astype(np.float32)
    pixels = np.zeros((frames, 4, 4, 3), dtype=np.uint8)
    pixels[:, 0, 0, 0] = start + np.concatenate([[0], actions.sum(axis=(1, 2)).cumsum()])
    return Clip(pixels, actions)


def trials(num=24, lacking=(), seed=0):
    """Physical: a jump; pushed: two units more every frame; visual: another pixel changes."""
    rng = np.random.default_rng(seed)

    def trial(i):
        plain, event = walk(rng), 2 + i % 3
        made = {}
        for kind in NATURES:
            pixels = plain.pixels.copy()
            if kind == "visual":
                pixels[event + 1 :, 2, 2] = 200
            elif kind == "physical":
                pixels[event + 1 :, 0, 0, 0] += 50
            else:
                pixels[event + 1 :, 0, 0, 0] += (2 * np.arange(1, 7 - event)).astype(np.uint8)
            made[kind] = Version(Clip(pixels, plain.actions), event)
        return Trial(plain, {kind: v for kind, v in made.items() if (i, kind) not in lacking}, group=i)

    return Trials(NATURES, [trial(i) for i in range(num)], "none", "walks", "test")


def scored(found, depth=3, calibrations=None):
    model = Walker()
    scorers = [ModelScorer(model, depth, calibrations), one_step(model, "untrained"), pixel_difference]
    return score_trials(found, scorers, torch.device("cpu"))


def hand_made(steps, event, natures=None, group=None):
    """Steps of one scorer: (n, v, i)."""
    natures = natures or {"visual": "visual", "physical": "physical"}
    event = np.repeat(np.asarray(event)[:, None], len(natures), axis=1)
    return Steps(natures, {"model": steps}, event, np.arange(len(steps)) if group is None else group)


def test_an_exact_model_is_surprised_at_the_event_alone_or_from_it_on_where_it_lasts():
    steps = scored(trials())
    for kind in NATURES:
        plain, disturbed, event, _ = steps.pairs("model", kind)
        assert (plain == 0).all()
        for clip, e in zip(disturbed, event, strict=True):
            expected = {"visual": [], "physical": [e], "pushed": list(range(e, 6))}[kind]
            assert np.flatnonzero(clip).tolist() == expected


def test_a_slow_violation_grows_with_depth_and_a_fast_one_does_not():
    steps = scored(trials())
    one, three = (np.nanmax(steps.pairs(name, "pushed").disturbed, axis=1) for name in ("model", "depth_3"))
    assert (three >= 4 * one).all()  # two units a step add up: 4, then 16, then 36
    one, three = (np.nanmax(steps.pairs(name, "physical").disturbed, axis=1) for name in ("model", "depth_3"))
    assert np.array_equal(one, three)


def test_the_models_score_is_its_one_step_surprise():
    steps = scored(trials(4))
    assert np.array_equal(steps.by_scorer["model"], steps.by_scorer["untrained"])
    assert (
        np.isnan(steps.by_scorer["depth_3"][..., :2]).all() and not np.isnan(steps.by_scorer["depth_3"][..., 2:]).any()
    )


def test_surprise_that_passes_stands_out_from_surprise_that_stays():
    ordinary = torch.tensor([[1.0, 2, 1, 1, 2, 1]])
    teleport, paint = ordinary.clone(), ordinary.clone()
    teleport[0, 2], paint[0, 2:] = 9, 9
    for clip in (ordinary, teleport, paint):
        naive = [clip[0, i] / (clip[0].median() + clip[0, i + 1 :].mean()) for i in range(5)]
        found = fading(clip)[0]
        assert found[:5].tolist() == pytest.approx([float(value) for value in naive])
        assert torch.isnan(found[5])
    high = [float(np.nanmax(fading(clip).numpy())) for clip in (ordinary, paint, teleport)]
    assert high[2] > 3 * high[0] and high[2] > 3 * high[1]
    assert fading(torch.zeros(1, 4))[0, :3].tolist() == [0, 0, 0]


def test_events_at_the_last_step_are_not_held_against_fading():
    late = [Trial(t.plain, {"physical": t.versions["physical"]}, t.group) for t in trials(9).each]
    for i, trial in enumerate(late[:4]):
        pixels = trial.plain.pixels.copy()
        pixels[6, 0, 0, 0] += 50
        late[i] = Trial(trial.plain, {"physical": Version(Clip(pixels, trial.plain.actions), 5)}, trial.group)
    steps = scored(Trials({"physical": "physical"}, late, "none", "walks", "test"))
    assert summarise(steps, "model")["kinds"]["physical"]["n"] == 9
    fades = summarise(steps, "fading")["kinds"]["physical"]
    assert fades["n"] == 5 and fades["auroc"] == fades["localised"] == 1


def test_clips_of_two_frames_are_judged_and_cannot_fade():
    short = [
        Trial(
            Clip(t.plain.pixels[:2], t.plain.actions[:1]),
            {"physical": Version(Clip(255 - t.plain.pixels[:2], t.plain.actions[:1]), 0)},
            t.group,
        )
        for t in trials(4).each
    ]
    steps = scored(Trials({"physical": "physical"}, short, "none", "walks", "test"), depth=1)
    assert "fading" not in steps.by_scorer and summarise(steps, "model")["kinds"]["physical"]["n"] == 4


def test_a_score_that_is_not_a_number_anywhere_is_named():
    def broken(pixels, actions):
        found = torch.zeros(len(pixels), 6)
        found[-1, 3] = torch.nan  # in one step of one disturbed clip
        return {"model": found}

    with pytest.raises(UserError, match="diverged"):
        score_trials(trials(2), [broken], torch.device("cpu"))


def test_a_kind_that_a_trial_lacks_counts_nowhere():
    steps = scored(trials(6, lacking={(1, "physical"), (4, "physical"), (0, "visual")}))
    assert (steps.event < 0).sum(axis=0).tolist() == [1, 2, 0]
    assert steps.pairs("model", "physical").group.tolist() == [0, 2, 3, 5]
    found = summarise(steps, "model")
    assert [found["kinds"][kind]["n"] for kind in NATURES] == [5, 4, 6]
    assert found["kinds"]["physical"]["auroc"] == 1
    assert found["physical_vs_visual"]["n"] == 10


def test_a_kind_that_never_happens_has_no_numbers_and_no_place_in_holms_correction():
    lacking = {(i, "pushed") for i in range(8)}
    found = summarise(scored(trials(8, lacking)), "model")
    assert found["kinds"]["pushed"]["n"] == 0 and np.isnan(found["kinds"]["pushed"]["auroc"])
    physical = found["kinds"]["physical"]
    assert physical["p_wilcoxon_holm"] == pytest.approx(2 * physical["p_wilcoxon"])  # of two kinds, not three
    assert list(found["versus"]) == ["physical"]


def test_a_model_of_physics_is_surprised_by_teleports_and_not_by_colours():
    steps = scored(trials())
    found = summarise(steps, "model")
    physical, visual = found["kinds"]["physical"], found["kinds"]["visual"]
    assert physical["auroc"] == 1 and physical["localised"] == physical["localised_within_1"] == 1
    assert physical["auroc_ci95"] == [pytest.approx(0.025 ** (1 / 24)), 1]
    assert physical["p_paired_t"] < 0.01 and physical["n"] == 24 and physical["nature"] == "physical"
    assert visual["auroc"] == 0.5 and visual["p_paired_t"] == 1 and visual["clips_needed"] is None
    assert found["physical_vs_visual"]["auroc"] == 1 and found["versus"]["pushed"]["visual"]["auroc"] == 1
    pixels = summarise(steps, "pixel_difference")
    assert pixels["kinds"]["visual"]["auroc"] == 1  # the control does see the colour
    assert summarise(steps, "copy_last")["kinds"]["visual"]["auroc"] == 0.5


def test_p_values_are_corrected_for_the_number_of_kinds():
    kinds = summarise(scored(trials()), "model")["kinds"]
    raw = [kinds[kind]["p_wilcoxon"] for kind in NATURES]
    corrected = [kinds[kind]["p_wilcoxon_holm"] for kind in NATURES]
    assert corrected[0] == 1 and all(c >= p for c, p in zip(corrected, raw, strict=True))
    assert min(corrected) == pytest.approx(3 * min(raw))


def test_exchanged_actions_cannot_be_seen_in_pixels():
    found = trials()
    swapped = [
        Trial(t.plain, {"exchanged": Version(Clip(t.plain.pixels, t.plain.actions[::-1] + 1), 2)}, t.group)
        for t in found.each
    ]
    steps = scored(Trials({"exchanged": "physical"}, swapped, "none", "walks", "test"))
    model, pixels = (summarise(steps, name)["kinds"]["exchanged"] for name in ("model", "pixel_difference"))
    assert model["auroc_ci95"][0] > 0.5
    assert pixels["auroc"] == 0.5 and pixels["auroc_ci95"][0] < 0.5 < pixels["auroc_ci95"][1]
    assert summarise(steps, "model")["physical_vs_visual"] is None


def test_scores_without_relation_to_the_event_give_half():
    rng = np.random.default_rng(1)
    found = summarise(hand_made(rng.random((60, 3, 8)), rng.integers(0, 8, 60)), "model")["kinds"]["physical"]
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
    steps = hand_made(np.random.default_rng(0).random((12, 3, 5)), np.zeros(12, dtype=int), group=np.arange(12) // 3)
    found = summarise(steps, "model")
    assert found["physical_vs_visual"]["n"] == 12 and found["physical_vs_visual"]["groups"] == 4
    assert found["kinds"]["visual"]["groups"] == found["kinds"]["visual"]["pairs"] == 4


def calibration(steps=2000, d=1):
    rng = np.random.default_rng(0)
    error, known = rng.normal(size=(steps, d)), rng.uniform(0.5, 3, (steps, 2))
    return Calibration(Ordinary(error, known, rng.integers(0, 40, steps)))


def test_calibrated_scores_stand_beside_the_plain_ones_at_every_depth():
    steps = scored(trials(6), depth=2, calibrations=[calibration(), calibration()])
    calibrated, deeper = (steps.by_scorer[name] for name in ("calibrated", "calibrated_depth_2"))
    assert np.isnan(deeper[..., 0]).all() and not np.isnan(deeper[..., 1:]).any() and not np.isnan(calibrated).any()
    assert summarise(steps, "calibrated")["kinds"]["physical"]["auroc"] == 1


def test_alarms_count_ordinary_steps_and_events_apart():
    null = calibration()
    score = np.full((50, 3, 6), 1.0)
    score[:5, 0, 2] = 1e6  # five false alarms in 300 ordinary steps
    score[:, 2, 3] = 1e6  # every physical event
    score[:10, 1, 3] = 1e6
    score[:, 1, 4] = 1e6  # beside the event: does not count
    steps = hand_made(score, np.full(50, 3))
    steps.by_scorer["calibrated"] = score
    found = alarms(steps, null)
    assert found["ordinary_steps"] == 300 and found["false_per_1000"] == pytest.approx(1000 * 5 / 300)
    low, high = found["false_per_1000_ci95"]
    assert low < found["false_per_1000"] < high
    assert found["events"]["physical"]["rate"] == 1 and found["events"]["visual"]["rate"] == pytest.approx(0.2)
    assert found["smallest_p"] == 1 / (1 + len(null.ranks))


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


def test_a_diverged_model_and_an_empty_set_of_clips_are_named():
    with pytest.raises(UserError, match="diverged"):
        score_trials(trials(2), [lambda p, a: {"model": torch.full((len(p), 6), torch.nan)}], torch.device("cpu"))
    with pytest.raises(UserError, match="no clip to score"):
        scored(Trials(NATURES, [], "none", "walks", "test"))


def test_pairs_are_of_the_trials_that_have_both():
    steps = scored(trials(3, lacking={(1, "visual")}))
    pairs = steps.pairs("pixel_difference", "visual")
    assert isinstance(pairs, Pairs) and len(pairs.plain) == len(pairs.disturbed) == len(pairs.event) == 2
