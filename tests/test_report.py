import json
import re

import numpy as np
import pytest

from lewm import checkpoint as checkpoints
from lewm.errors import UserError
from lewm.probes.report import read_metrics, report
from lewm.probes.results import identify
from lewm.probes.verdict import judge, key_figures

HEALTHY = {
    "val/std_mean": 0.95,
    "val/effective_rank": 40.0,
    "val/pred_loss": 0.05,
    "val/copy_last": 0.4,
    "val/shuffled_action_ratio": 3.0,
}


def scores(r, mse=0.1):
    return {"r": r, "mse": mse, "r_ci95": [None if r is None else r - 0.1, None if r is None else r + 0.05]}


def probe_result():
    both = {"linear": scores(0.9), "mlp": scores(0.95)}
    low = {"linear": scores(0.3), "mlp": scores(0.4)}
    controls = {"untrained": low, "pixels": low, "shuffled": low, "constant": scores(None, 1.0)}
    row = {"h": 1, "mse": 0.05, "mse_ci95": [0.04, 0.06], "n": 30, "episodes": 25, "ci_method": "bootstrap"}
    for name, factor in (("copy_last", 4), ("zero_action", 2), ("shuffled_action", 3)):
        row |= {f"{name}_mse": 0.05 * factor, f"{name}_ratio": factor}
    return {
        "checkpoint": {"path": "x/step=400.ckpt", "sha256": "a" * 64, "step": 400},
        "data": {"path": "data/rooms.h5", "fingerprint": "f"},
        "horizon": {"<b>q</b>": [{"h": 1, "r": 0.8, "r_ci95": [0.7, 0.9], "mse": 0.3, "copy_last_r": 0.41}]},
        "command": "lewm probe RUN --data '<b>data</b>'",
        "split": "test",
        "how": "trained on train",
        "n_test": 100,
        "episodes_test": 25,
        "targets": {"<script>alert(1)</script>": both | {"controls": controls}},
        "layers": {},
        "latent": {"std_mean": 0.9, "effective_rank": 30.0},
        "open_loop": [row],
    }


def extended(result, unit="m"):
    """A result with all that older versions did not write."""
    (name,) = result["targets"]
    target = result["targets"][name]
    more = {"error": 31.25, "error_ci95": [30.0, 33.0], "ci_reliable": True}
    seen = scores(0.97) | more | {"error": 12.5, "n": 80, "share": 0.8}
    about = {"error_unit": unit, "num_frames": 1, "dropped": {"train": 12, "val": 0, "test": 3}}
    both = {probe: target[probe] | more | {"seen": seen} for probe in ("linear", "mlp")}
    row = {"r": 0.8, "r_ci95": [0.7, 0.9], "mse": 0.3, "error": 62.0, "copy_last_error": 127.0, "copy_last_r": 0.41}
    row |= {"encoded_error": 50.0, "encoded_r": 0.95, "shuffled_action_error": 139.0, "shuffled_action_r": 0.2}
    ahead = {name: [row | {"h": h} for h in range(1, 9)]}
    return result | {"targets": {name: target | both | about}, "horizon": ahead}


def surprise_result():
    kind = {"n": 20, "auroc": 0.9, "auroc_ci95": [0.8, 0.97], "effect_size": 1.2, "p_paired_t": 1e-4}
    both = {"kinds": {"visual": kind, "physical": kind | {"localised": 0.8}}, "physical_vs_visual": kind}
    return both | {
        "command": "lewm surprise",
        "n": 20,
        "clips": "triples",
        "baselines": {"pixel_difference": both, "untrained": both},
    }


def of_kinds(natures, depth=3):
    """A surprise result of today, kind after kind a little less surprising; the first kind is easy for pixels too."""

    def summary(aurocs):
        kinds = {
            kind: {
                "nature": nature,
                "n": 20,
                "groups": 20,
                "auroc": auroc,
                "auroc_ci95": [auroc - 0.05, min(1.0, auroc + 0.05)],
                "ci_method": "bootstrap",
                "p_paired_t": 1e-6,
                "p_paired_t_holm": 1e-5,
                "p_wilcoxon": 1e-6,
                "p_wilcoxon_holm": 1e-5,
                "effect_size": 1.25,
                "clips_needed": 12,
                "localised": 0.85,
                "localised_ci95": [0.7, 0.9],
                "localised_within_1": 0.9,
            }
            for (kind, nature), auroc in zip(natures.items(), aurocs, strict=True)
        }
        by = {nature: [kind for kind in natures if natures[kind] == nature] for nature in ("physical", "visual")}
        over = {"n": 40, "groups": 20, "auroc": 0.8, "auroc_ci95": [0.72, 0.86], "ci_method": "bootstrap"}
        pair = {"auroc": 0.77, "auroc_ci95": [0.7, 0.8], "n": 20}
        versus = {p: {v: pair for v in by["visual"]} for p in by["physical"]}
        return {"kinds": kinds, "physical_vs_visual": over if all(by.values()) else None, "versus": versus}

    falling = [0.95 - 0.05 * i for i in range(len(natures))]
    chance = summary([0.5] * len(natures))
    pixel = summary([0.97] + [0.5] * (len(natures) - 1))
    if pixel["physical_vs_visual"]:
        pixel["physical_vs_visual"]["auroc"] = 0.55
    events = {kind: {"n": 20, "rate": 0.75, "ci95": [0.5, 0.9]} for kind in natures}
    return summary(falling) | {
        "command": "lewm surprise RUN",
        "n": 20,
        "groups": 20,
        "steps": 11,
        "clips": "disturbed clips of 12 frames from rooms.h5",
        "natures": natures,
        "excluded": dict.fromkeys(natures, 3),
        "baselines": {"untrained": chance, "pixel_difference": pixel, "copy_last": chance},
        "depths": {str(n): summary(falling) for n in range(2, depth + 1)},
        "calibrated": summary(falling),
        "calibrated_depths": {str(n): summary(falling) for n in range(2, depth + 1)},
        "alarms": {
            "level": 0.01,
            "smallest_p": 0.001,
            "ordinary_steps": 220,
            "false_per_1000": 9.25,
            "false_per_1000_ci95": [4.0, 18.0],
            "events": events,
        },
        "reference": {"path": "data/rooms.h5", "fingerprint": "f", "split": "val", "episodes": 40, "steps": 1600},
    }


KINDS = {"teleport": "physical", "exchanged_actions": "physical", "recolour": "visual", "noise": "visual"}


def write(folder, name, content):
    path = folder / "report" / name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def visible(page):
    return re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)


def test_an_empty_run_gets_a_page_that_names_the_commands_to_run(tmp_path):
    path = report(tmp_path)
    page = path.read_text()
    assert path == tmp_path / "report" / "report.html"
    assert "Not judged yet" in page
    for command in ("lewm probe", "lewm surprise"):
        assert f"{command} {tmp_path}" in page
    assert json.loads((tmp_path / "report" / "report.json").read_text())["missing"] == ["probe", "surprise", "plan"]


def test_a_full_run_shows_its_numbers_with_intervals_and_asks_no_network(tmp_path):
    write(tmp_path, "probe", probe_result())
    write(tmp_path, "surprise", surprise_result())
    lines = ["step,train/loss,val/effective_rank,val/std_mean", "10,1.0,,", "20,0.5,33.3,0.9"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    (tmp_path / "config.yaml").write_text("name: <i>demo</i>")
    (tmp_path / "env.json").write_text(json.dumps({"command": ["lewm", "fit", "--config", "a b"], "data": None}))
    page = report(tmp_path).read_text()
    for text in ("Healthy", "0.900 [0.800, 0.950]", "33.3", "lewm fit --config &#x27;a b&#x27;"):
        assert text in page
    assert page.count("data:image/png;base64,") == 1  # the curves; there are no other plots in this run
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page and "viewport" in page


def test_text_from_files_is_escaped(tmp_path):
    run = tmp_path / "a<b>&c"
    run.mkdir()
    write(run, "probe", probe_result())
    (run / "config.yaml").write_text("</code><script>alert(2)</script>")
    page = report(run).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page and "&lt;script&gt;alert(2)" in page
    assert "<b>data" not in page and "a<b>" not in page
    assert "&lt;script" in visible(page)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "healthy"),
        ({"val/std_mean": 0.01}, "collapsed"),
        ({"val/effective_rank": 1.2}, "collapsed"),
        ({"val/pred_loss": 0.5}, "no better than copying"),
        ({"val/shuffled_action_ratio": 1.0}, "blind to actions"),
        ({"val/std_mean": 0.01, "val/shuffled_action_ratio": 1.0}, "collapsed, blind to actions"),
    ],
)
def test_the_verdict_follows_the_numbers(change, word):
    verdict = judge(HEALTHY | change, None, None)
    assert verdict.word == word
    assert verdict.good is (word == "healthy")


def test_held_out_evaluations_count_more_than_the_last_validation():
    blind = probe_result()
    blind["open_loop"][0]["shuffled_action_ratio"] = 1.0
    assert judge(HEALTHY, blind, None).word == "blind to actions"
    assert judge({}, None, None).good is None
    reasons = " ".join(judge({}, probe_result(), surprise_result()).reasons)
    assert "Physical events surprise it: AUROC 0.90" in reasons


def test_reading_better_than_reduced_pixels_is_claimed_only_where_it_is_so():
    better, worse = probe_result(), probe_result()
    (target,) = worse["targets"].values()
    target["controls"] = target["controls"] | {"pixels": {"linear": scores(0.85), "mlp": scores(0.9)}}
    says = [judge({}, result, None).reasons[-1] for result in (better, worse)]
    assert all("pixels reduced to as many numbers as the embedding" in each for each in says)
    assert "reads 1 of 1 physical quantities better" in says[0] and "and 1 better than from pixels" in says[0]
    assert "reads 1 of 1 physical quantities better" in says[1] and "and none better than from pixels" in says[1]


def surprise_with(physical, visual, pixel, untrained=0.55):
    def kinds(p, v):
        return {
            k: {"n": 20, "auroc": a, "auroc_ci95": [a - 0.1, a + 0.05]} for k, a in (("physical", p), ("visual", v))
        }

    return {
        "kinds": kinds(physical, visual),
        "physical_vs_visual": {"auroc": 0.7, "auroc_ci95": [0.6, 0.8]},
        "baselines": {"pixel_difference": {"kinds": kinds(pixel, 0.9)}, "untrained": {"kinds": kinds(untrained, 0.5)}},
    }


def test_the_verdict_on_physical_events_names_its_controls_and_what_they_take_away():
    (fine,) = judge({}, None, surprise_with(0.9, 0.5, 0.6)).reasons
    for text in ("0.90 [0.80, 0.95]", "untrained network 0.55", "changes 0.50 [0.40, 0.55]", "0.70 [0.60, 0.80]"):
        assert text in fine
    assert "surprise it too" not in fine and "no world model" not in fine
    (coloured,) = judge({}, None, surprise_with(0.9, 0.7, 0.6)).reasons
    assert "mere visual changes surprise it too" in coloured
    (plain,) = judge({}, None, surprise_with(0.9, 0.5, 0.895)).reasons
    assert "physical events need no world model to be seen" in plain


def test_the_verdict_is_on_the_kind_that_stands_for_its_nature_and_counts_the_others():
    (reason,) = judge({}, None, of_kinds(KINDS)).reasons
    assert reason == (
        "Teleports surprise it: AUROC 0.95 [0.90, 1.00], against an untrained network 0.50 and the pixel difference "
        "alone 0.97; changes of colour 0.85 [0.80, 0.90]; teleports over changes of colour 0.77 [0.70, 0.80], "
        "calibrated 0.77 [0.70, 0.80]; 2 of 2 physical kinds surprise it; 2 of 2 visual kinds surprise it too; "
        "teleports need no world model to be seen."
    )
    (other,) = judge({}, None, of_kinds({"through_wall": "physical", "agent_colour": "visual"})).reasons
    assert other.startswith("Through wall events surprise it: AUROC 0.95") and "mere changes of the agent's" in other


def test_the_verdict_is_silent_on_physics_where_nothing_physical_happened():
    assert judge({}, None, of_kinds({"recolour": "visual"})).reasons == []
    nothing = of_kinds(KINDS)
    for kind in ("teleport", "exchanged_actions"):
        nothing["kinds"][kind] = {"n": 0, "nature": "physical", "auroc": None, "localised": None}
    assert judge({}, None, nothing).reasons == []


def test_the_report_says_where_the_world_model_does_better_than_pixels_and_where_not(tmp_path):
    write(tmp_path, "surprise", of_kinds(KINDS))
    text = visible(report(tmp_path).read_text())
    better = (
        "does better than the pixel difference (the whole interval of its AUROC is above) at exchanged_actions (0.90 "
        "[0.85, 0.95] against 0.50), physical against visual events (0.80 [0.72, 0.86] against 0.55)."
    )
    for form in ("The world model", "Calibrated, it"):
        assert f"{form} {better}" in text
        assert f"{form} does no better than the pixel difference at teleport (0.95 [0.90, 1.00] against 0.97)." in text


def test_the_report_shows_every_kind_every_scorer_depths_and_false_alarms(tmp_path):
    write(tmp_path, "surprise", of_kinds(KINDS))
    page = report(tmp_path).read_text()
    cells = re.findall(r"<tr><td>exchanged_actions</td>(.*?)</tr>", page)
    found = [re.findall(r"<td>(.*?)</td>", row) for row in cells]
    assert found[0] == ["20", "3", "0.900 [0.850, 0.950]", "1.25", "&lt;1e-4", "0.85", "12"]
    assert len(found[1]) == 5 and found[1][3] == "0.50 [0.45, 0.55]"  # by scorer: pixel difference
    assert found[2] == ["0.770 [0.700, 0.800]"] * 2  # against each visual kind
    assert found[3] == found[4] == ["0.900"] * 3  # by depth, and calibrated
    text = visible(page)
    assert "9.2 [4.0, 18.0] of 1000 ordinary steps, 75 % of physical events, 75 % of visual events." in text
    assert "Ordinary steps are 1600 of 40 episodes, data/rooms.h5, split val." in text


def test_results_of_surprise_from_older_versions_are_shown(tmp_path):
    write(tmp_path, "surprise", surprise_result())
    page = report(tmp_path).read_text()
    assert "0.900 [0.800, 0.970]" in page and page.count("0.90 [0.80, 0.97]") >= 9 and "physical events" in page
    assert "rollout depth" not in visible(page) and "False alarms" not in page


def test_surprise_without_a_nature_or_without_calibration_is_shown(tmp_path):
    result = of_kinds({"recolour": "visual"})
    for name in ("calibrated", "calibrated_depths", "alarms"):
        del result[name]
    write(tmp_path, "surprise", result | {"reference": None, "not_calibrated": "there are <3> steps"})
    page = report(tmp_path).read_text()
    assert "Not calibrated: there are &lt;3&gt; steps." in page and "does better" not in page
    assert "kinds pooled" not in page


def test_pictures_of_surprise_stand_in_order_and_only_the_results_own(tmp_path):
    from PIL import Image

    names = ["curves", "roc", "scores", "depths", "extremes", "sheet"]
    result = of_kinds(KINDS) | {"figures": sorted(names[:-1])}
    write(tmp_path, "surprise", result)
    for name in names:
        Image.new("RGB", (2, 2)).save(tmp_path / "report" / "surprise" / f"{name}.png")
    figures = re.findall(r"<figcaption>(.+?)</figcaption>\n<img alt=\"(.+?)\"", report(tmp_path).read_text())
    assert [alt for _, alt in figures] == names[:-1]
    assert len({caption for caption, _ in figures}) == len(names) - 1


@pytest.mark.parametrize("lost", ["nan", "inf"])
def test_a_run_whose_last_validation_is_not_finite_has_diverged(tmp_path, lost):
    header = ",".join(["step", *HEALTHY])
    fine, bad = ",".join(map(str, [10, *HEALTHY.values()])), f"20,0.9,40.0,{lost},0.4,3.0"
    (tmp_path / "metrics.csv").write_text("\n".join([header, fine, bad]))
    write(tmp_path, "probe", probe_result())
    page = report(tmp_path).read_text()
    assert "<strong>Diverged</strong>" in page and "not finite: val/pred_loss" in page
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["verdict"]["word"] == "diverged" and content["verdict"]["good"] is False
    assert content["health"]["val/pred_loss"] is None


def test_whether_a_model_uses_its_actions_is_not_known_from_one_window():
    single = probe_result()
    single["open_loop"][0] |= {"shuffled_action_mse": None, "shuffled_action_ratio": None}
    verdict = judge({}, single, None)
    assert verdict.word == "healthy" and not any("actions" in reason for reason in verdict.reasons)


def write_checkpoint(run, model, step):
    path = run / "checkpoints" / f"step={step}.ckpt"
    path.parent.mkdir(exist_ok=True)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoints.write({"lewm": checkpoints.describe(model), "state_dict": state, "global_step": step}, path)
    return identify(path)


def test_results_say_what_they_are_of_and_count_only_for_the_newest_checkpoint(tmp_path, tiny_model):
    blind = probe_result()
    blind["open_loop"][0]["shuffled_action_ratio"] = 1.0
    blind["checkpoint"] = write_checkpoint(tmp_path, tiny_model, 400)
    write(tmp_path, "probe", blind)
    page = report(tmp_path).read_text()
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["verdict"]["word"] == "blind to actions" and content["outdated"] == {}
    assert page.count("Measured on step 400, data/rooms.h5, split test.") == 2  # open loop and quantities
    assert content["figures"][0]["note"].endswith("; step 400, data/rooms.h5, split test")

    write_checkpoint(tmp_path, tiny_model, 800)
    page = report(tmp_path).read_text()
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content["verdict"]["word"] == "not judged yet"
    assert content["verdict"]["reasons"] == ["Not counted here: probe, measured on step 400, the run is at step 800."]
    assert page.count("Outdated: measured on step 400, the run is at step 800.") == 2
    assert content["figures"][0]["note"].endswith("; measured on step 400, the run is at step 800")


def test_the_report_shows_quantities_read_from_imagined_embeddings(tmp_path):
    write(tmp_path, "probe", probe_result())
    page = report(tmp_path).read_text()
    assert "0.800 [0.700, 0.900]" in page and "0.410" in page and "<b>q" not in page
    assert "as many numbers as the embedding has" in page


def test_the_report_shows_errors_in_units_of_the_world(tmp_path):
    write(tmp_path, "probe", extended(probe_result()))
    page = report(tmp_path).read_text()
    assert ", error in m</th>" in page and "<td>31.2</td>" in page
    text = visible(page)
    for sentence in (
        "embedding, inside the picture: the same probe",
        "is inside the picture in 80 % of the frames (80).",
        "which were left out: 12 of train, 3 of test.",
    ):
        assert sentence in text
    assert "fewer than 20 episodes" not in page and "Checkpoints" not in page


@pytest.mark.parametrize("part", ["whole", "seen"])
def test_intervals_from_few_episodes_are_warned_of(tmp_path, part):
    few = extended(probe_result())
    (target,) = few["targets"].values()
    (target["linear"] if part == "whole" else target["linear"]["seen"])["ci_reliable"] = False
    write(tmp_path, "probe", few)
    warned = re.findall(r'<p class="warning">(.*?)</p>', report(tmp_path).read_text())
    assert len(warned) == 1 and "fewer than 20 episodes" in warned[0]
    assert ("inside the picture" in warned[0]) == (part == "seen")


def test_imagined_states_are_shown_at_four_horizons_beside_what_they_compete_with(tmp_path):
    write(tmp_path, "probe", extended(probe_result()))
    page = report(tmp_path).read_text()
    rows = re.findall(r"<tr><td>(\d)</td><td>0.800 \[0.700, 0.900\]</td>(.*?)</tr>", page)
    assert [h for h, _ in rows] == ["1", "2", "4", "8"]
    cells = ["62.0", "50.0 (0.950)", "127 (0.410)", "–", "139 (0.200)"]  # there is no row of zeroed actions here
    assert re.findall(r"<td>(.*?)</td>", rows[0][1]) == cells


@pytest.mark.parametrize("horizon", [True, False])
def test_results_of_older_versions_make_a_report(tmp_path, horizon):
    old = probe_result()
    old["layers"] = {"cls": {"targets": old["targets"]}}
    if not horizon:
        del old["horizon"]
    write(tmp_path, "probe", old)
    text = visible(report(tmp_path).read_text())
    assert "0.900 [0.800, 0.950]" in text and "–" in text and "cls: the encoder" in text
    assert ("From imagined states" in text) == horizon
    assert "Checkpoints" not in text and "off by" not in text


def checkpoint_row(step, run="a", **changes):
    found = {"path": f"{run}/checkpoints/step={step}.ckpt", "step": step, "run": run, "val_error": 0.25}
    return found | {"targets": {"q<b>": {"linear": scores(0.9)}}, "best": False, "as_good": False} | changes


@pytest.mark.parametrize(
    ("split", "says"), [("test", "split test, which the choice has not seen"), ("all", "has seen these episodes")]
)
def test_several_checkpoints_are_listed_with_the_best_and_how_it_was_chosen(tmp_path, split, says):
    rows = [checkpoint_row(10), checkpoint_row(20, as_good=True), checkpoint_row(30, best=True, as_good=True)]
    write(tmp_path, "probe", extended(probe_result()) | {"checkpoints": rows, "split": split})
    page = report(tmp_path).read_text()
    words = re.findall(r"<tr><td>step=\d+.ckpt</td><td>(\d+)</td><td>(.*?)</td>", page)
    assert words == [("10", ""), ("20", "as good"), ("30", "best")]
    assert "probed on validation episodes" in page and says in page and "q<b>" not in page


def test_checkpoints_of_several_runs_are_told_apart(tmp_path):
    rows = [checkpoint_row(10, run="x/one"), checkpoint_row(10, run="x/two", best=True) | {"step": None}]
    write(tmp_path, "probe", probe_result() | {"checkpoints": rows})
    page = report(tmp_path).read_text()
    assert "one, step=10.ckpt" in page and "<td>two, step=10.ckpt</td><td>–</td>" in page


def test_pictures_stand_in_order_each_with_what_it_shows(tmp_path):
    from PIL import Image

    rows = [checkpoint_row(10, best=True)]
    write(tmp_path, "probe", extended(probe_result()) | {"checkpoints": rows})
    names = ["open_loop", "correlations", "scatter", "error_map", "poses", "spectrum", "horizon", "checkpoints"]
    for name in names:
        Image.new("RGB", (2, 2)).save(tmp_path / "report" / "probe" / f"{name}.png")
    page = report(tmp_path).read_text()
    figures = re.findall(r"<figcaption>(.+?)</figcaption>\n<img alt=\"(.+?)\"", page)
    assert [alt for _, alt in figures] == [name.replace("_", " ") for name in names]
    assert len({caption for caption, _ in figures}) == len(names)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "What it imagines follows the world"),
        ({"copy_last_error": 60.0}, "no nearer to the world than the last frame"),
        ({"shuffled_action_error": 60.0}, "does not follow its actions"),
    ],
)
def test_the_verdict_says_how_far_off_the_farthest_imagined_state_is(changes, says):
    result = extended(probe_result(), unit="units of the 512-unit window")
    (rows,) = result["horizon"].values()
    rows[-1] |= changes
    (reason,) = [reason for reason in judge({}, result, None).reasons if "imagines" in reason]
    assert says in reason and "imagined 8 blocks ahead" in reason
    assert "is off by 62.0 units of the 512-unit window on average; copying the last frame: " in reason
    assert "127, actions of another window: 139." in reason or changes


@pytest.mark.parametrize("lacking", ["error", "copy_last_error", "shuffled_action_error"])
def test_the_verdict_is_silent_on_imagined_states_where_errors_are_missing(lacking):
    result = extended(probe_result())
    (rows,) = result["horizon"].values()
    del rows[-1][lacking]
    assert not any("imagine" in reason for reason in judge({}, result, None).reasons)
    assert not any("imagine" in reason for reason in judge({}, probe_result(), None).reasons)


def test_the_verdict_on_imagined_states_is_of_a_quantity_that_one_frame_tells():
    result = extended(probe_result())
    ((name, target),), (rows,) = result["targets"].items(), result["horizon"].values()
    result["targets"] = {"velocity": target | {"num_frames": 3}, name: target}
    result["horizon"] = {"velocity": rows, name: rows}
    (reason,) = [reason for reason in judge({}, result, None).reasons if "imagines" in reason]
    assert f"{name} is off by 62.0 m" in reason
    result["targets"] = {"velocity": target | {"num_frames": 3}}
    assert not any("imagines" in reason for reason in judge({}, result, None).reasons)


def test_key_figures_of_quantities_carry_the_error_in_its_unit():
    new, old = (key_figures({}, {"probe": result})[0] for result in (extended(probe_result()), probe_result()))
    assert new.note.startswith("95 %: 0.800 to 0.950; MLP 0.950; off by 31.2 m") and "off by" not in old.note


def test_key_figures_carry_their_interval():
    figures = {f.label: f for f in key_figures(HEALTHY, {"surprise": surprise_result()})}
    assert figures["surprise at physical events, AUROC"].note == "95 %: 0.80 to 0.97; n = 20"
    assert figures["physical events over visual changes, AUROC"].note == "95 %: 0.80 to 0.97"
    new = {f.label: f for f in key_figures({}, {"surprise": of_kinds(KINDS)})}
    assert new["surprise at teleports, AUROC"].value == "0.950"
    assert new["teleports over changes of colour, AUROC"].note == "95 %: 0.70 to 0.80; calibrated 0.770"
    assert new["false alarms per 1000 steps"].note == "ordinary steps with p <= 0.01; 10 are expected"
    assert key_figures({}, {"surprise": of_kinds({"recolour": "visual"}) | {"alarms": None}}) == []
    assert key_figures({}, {}) == []


def test_metrics_with_gaps_and_words_are_read(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,a,b\n0,5,1.5,\n0,9,,nan\n1,12,2.5,word\n")
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert set(metrics) == {"a", "b"}
    assert metrics["b"][0].tolist() == [9] and np.isnan(metrics["b"][1]).all()
    assert np.array_equal(metrics["a"], [[5, 12], [1.5, 2.5]])


def test_a_damaged_result_and_a_missing_run_are_the_users_errors(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        report(tmp_path / "none")
    write(tmp_path, "probe", {})
    (tmp_path / "report" / "probe" / "result.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        report(tmp_path)
