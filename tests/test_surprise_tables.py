import json
from functools import cache

import numpy as np
import pytest
from rich.console import Console

from lewm.probes import surprise_tables
from lewm.probes.results import plain
from lewm.probes.surprise import Steps, depth_name, summarise
from lewm.probes.surprise_tables import (
    auroc_text,
    depths_of,
    false_alarms,
    few_depths,
    headline,
    kinds_of,
    natures_of,
    p_text,
    print_surprise,
    scorer_cells,
    scorers_of,
)

MANY = {
    kind: "physical" for kind in ("teleport", "time_jump", "reversal", "freeze", "frame_swap", "exchanged_actions")
} | {kind: "visual" for kind in ("recolour", "region_colour", "brightness", "noise", "patch")}


def result_of(natures=MANY, n=25, depth=3, calibrated=True, missing=()):
    """What `lewm surprise` writes of synthetic scores, as JSON holds it."""
    return json.loads(json_of(tuple(natures.items()), n, depth, calibrated, missing))


@cache
def json_of(natures, n, depth, calibrated, missing):
    natures = dict(natures)
    rng = np.random.default_rng(0)
    names = ["model", "untrained", "pixel_difference", "copy_last"] + ["calibrated"] * calibrated
    names += [depth_name(form, d) for form in ["model"] + ["calibrated"] * calibrated for d in range(2, depth + 1)]
    events = np.array([[-1 if kind in missing else 4 for kind in natures]] * n)
    by_scorer = {name: rng.normal(1, 0.1, (n, 1 + len(natures), 8)) for name in names}
    for values in by_scorer.values():
        values[:, 1:, 4] += rng.normal(0.4, 0.2, (n, len(natures)))
        values[:, 1:][events < 0] = np.nan
    steps = Steps(natures, by_scorer, events, np.arange(n))
    result = {"n": n, "clips": "synthetic clips", "natures": natures} | summarise(steps, "model")
    result["excluded"] = {kind: n * (kind in missing) for kind in natures}
    result["baselines"] = {name: summarise(steps, name) for name in names[1:4]}
    result["depths"] = {d: summarise(steps, depth_name("model", d)) for d in range(2, depth + 1)}
    if calibrated:
        result["calibrated"] = summarise(steps, "calibrated")
        result["calibrated_depths"] = {d: summarise(steps, depth_name("calibrated", d)) for d in range(2, depth + 1)}
        events = {kind: {"n": n, "rate": 0.8, "ci95": [0.6, 0.9]} for kind in natures if kind not in missing}
        result["alarms"] = {"level": 0.01, "smallest_p": 0.002, "ordinary_steps": 200, "events": events}
        result["alarms"] |= {"false_per_1000": 9.4, "false_per_1000_ci95": [4.0, 18.2]}
    else:
        result["not_calibrated"] = "there are no ordinary steps"
    return json.dumps(plain(result))


def printed(result, width, monkeypatch, capsys):
    monkeypatch.setattr(surprise_tables, "make_console", lambda: Console(width=width, markup=False))
    print_surprise(result)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 144])
def test_tables_keep_names_and_numbers_whole(width, monkeypatch, capsys):
    result = result_of()
    result["fading"] = result["calibrated"]
    text = printed(result, width, monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= width
    for kind, scores in result["kinds"].items():
        assert text.count(f"{kind} ") >= 3  # in the tables of kinds, of scorers, of depths
        assert auroc_text(scores, 3 if width == 144 else 2) in text
    assert "…" not in text and auroc_text(result["calibrated"]["physical_vs_visual"]) in text


def test_wide_tables_have_every_baselines_interval_and_narrow_ones_their_aurocs(monkeypatch, capsys):
    result = result_of()
    wide, narrow = (printed(result, width, monkeypatch, capsys) for width in (144, 80))
    for scores in result["baselines"].values():
        found = scores["kinds"]["freeze"]
        assert auroc_text(found) in wide and auroc_text(found) not in narrow
        assert auroc_text(found, 3, False) in narrow


def test_a_kind_that_never_happened_is_a_row_of_dashes_and_left_out_below(monkeypatch, capsys):
    result = result_of(missing=("freeze",))
    lines = [line.split() for line in printed(result, 144, monkeypatch, capsys).splitlines() if "freeze" in line]
    assert lines == [["freeze", "physical", "0", "25", *["–"] * 5]]


def test_one_nature_alone_and_no_calibration_are_printed(monkeypatch, capsys):
    text = printed(result_of({"recolour": "visual"}, calibrated=False), 80, monkeypatch, capsys)
    assert "Physical against visual" not in text and "by scorer" in text
    assert "Not calibrated: there are no ordinary steps." in text


def test_results_of_older_versions_are_printed(monkeypatch, capsys):
    kind = {"n": 20, "auroc": 0.9, "auroc_ci95": [0.8, 0.97], "effect_size": 1.2, "p_paired_t": 1e-5}
    both = {"kinds": {"visual": kind, "physical": kind | {"localised": 0.8}}, "physical_vs_visual": kind}
    old = both | {"n": 20, "clips": "triples", "baselines": {"pixel_difference": both, "untrained": both}}
    assert natures_of(old) == {"visual": "visual", "physical": "physical"}
    text = printed(old, 144, monkeypatch, capsys)
    assert "0.900 [0.800, 0.970]" in text and "<1e-4" in text and "rollout depth" not in text


@pytest.mark.parametrize(
    ("kinds", "stands"),
    [(["freeze", "teleport"], "teleport"), (["teleport", "physical"], "physical"), (["freeze", "reversal"], "freeze")],
)
def test_the_first_known_kind_stands_for_its_nature_or_else_the_first(kinds, stands):
    result = {"kinds": {kind: {"nature": "physical", "n": 3} for kind in kinds}}
    assert headline(result, "physical") == stands
    assert headline(result, "visual") is None
    result["kinds"][stands]["n"] = 0
    assert headline(result, "physical") != stands and stands not in kinds_of(result, "physical")


def test_scorers_and_depths_come_in_order_from_1():
    result = result_of()
    assert list(scorers_of(result)) == ["model", "calibrated", "untrained", "pixel_difference", "copy_last"]
    depths = depths_of(result)
    assert {form: list(found) for form, found in depths.items()} == {"model": [1, 2, 3], "calibrated": [1, 2, 3]}
    assert depths["calibrated"][1] is result["calibrated"]
    assert depths_of(result_of(depth=1, calibrated=False)) == {}
    assert few_depths(dict.fromkeys(range(1, 12))) == [1, 2, 4, 8, 11]


def test_alarms_are_pooled_over_the_kinds_of_a_nature():
    result = result_of({"a": "physical", "b": "physical", "c": "visual"})
    result["alarms"]["events"]["a"] |= {"n": 75, "rate": 0.4}
    assert false_alarms(result) == (
        "Alarms (p <= 0.01): 9.4 [4.0, 18.2] of 1000 ordinary steps, 50 % of physical events, 80 % of visual events."
    )
    result["alarms"]["smallest_p"] = 0.02
    assert false_alarms(result).endswith(" The smallest p possible is 0.020.")


def test_numbers_are_as_short_as_they_can_be():
    assert p_text({"p_paired_t": 0.2, "p_paired_t_holm": 0.4}) == "0.4000"
    assert p_text({"p_paired_t": None}) == "–" and p_text({"p_paired_t": 1e-9}) == "<1e-4"
    assert auroc_text(None) == auroc_text({"auroc": None}) == "–"
    assert auroc_text({"auroc": 0.5, "auroc_ci95": [None, None]}) == "0.500"


def test_kinds_of_few_episodes_are_marked(monkeypatch, capsys):
    result = result_of()
    result["kinds"]["freeze"]["groups"] = 19
    result["kinds"]["teleport"]["groups"] = 20
    text = printed(result, 144, monkeypatch, capsys)
    assert "Fewer than 20 episodes at freeze: these intervals are not reliable." in text


def test_fading_is_not_asked_of_events_that_last():
    result = result_of()
    result["fading"], result["lasts"] = result["calibrated"], {"freeze": True, "teleport": False}
    place = list(scorers_of(result)).index("fading")
    assert scorer_cells(result, "freeze", True)[place] == "–" != scorer_cells(result, "teleport", True)[place]
