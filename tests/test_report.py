import json
import re

import numpy as np
import pytest

from lewm.errors import UserError
from lewm.probes.report import read_metrics, report
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


def surprise_result():
    kind = {"n": 20, "auroc": 0.9, "auroc_ci95": [0.8, 0.97], "effect_size": 1.2, "p_paired_t": 1e-4}
    both = {"kinds": {"visual": kind, "physical": kind | {"localised": 0.8}}, "physical_vs_visual": kind}
    return both | {"command": "lewm surprise", "n": 20, "clips": "triples", "baselines": {"pixel_difference": both}}


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
    for command in ("lewm probe", "lewm surprise", "lewm plan"):
        assert f"{command} {tmp_path}" in page
    assert json.loads((tmp_path / "report" / "report.json").read_text())["missing"] == ["probe", "surprise", "plan"]


def test_a_full_run_shows_its_numbers_with_intervals_and_asks_no_network(tmp_path):
    write(tmp_path, "probe", probe_result())
    write(tmp_path, "surprise", surprise_result())
    write(tmp_path, "plan", {"success": {"n": 50, "rate": 0.8, "ci95": [0.67, 0.89]}, "command": "lewm plan"})
    lines = ["step,train/loss,val/effective_rank,val/std_mean", "10,1.0,,", "20,0.5,33.3,0.9"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    (tmp_path / "config.yaml").write_text("name: <i>demo</i>")
    (tmp_path / "env.json").write_text(json.dumps({"command": ["lewm", "fit", "--config", "a b"], "data": None}))
    page = report(tmp_path).read_text()
    for text in ("Healthy", "0.900 [0.800, 0.950]", "80 %", "33.3", "lewm fit --config &#x27;a b&#x27;"):
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
    assert "reads 1 better" in reasons and "Teleports surprise it: AUROC 0.90" in reasons


def test_key_figures_carry_their_interval():
    figures = {f.label: f for f in key_figures(HEALTHY, {"surprise": surprise_result()})}
    assert figures["surprise at teleports, AUROC"].note == "95 %: 0.80 to 0.97; n = 20"
    assert key_figures({}, {}) == []


def test_metrics_with_gaps_and_words_are_read(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,a,b\n0,5,1.5,\n0,9,,nan\n1,12,2.5,word\n")
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert set(metrics) == {"a"}
    assert np.array_equal(metrics["a"], [[5, 12], [1.5, 2.5]])


def test_a_damaged_result_and_a_missing_run_are_the_users_errors(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        report(tmp_path / "none")
    write(tmp_path, "probe", {})
    (tmp_path / "report" / "probe" / "result.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        report(tmp_path)
