"""Pairs are a pure function of seed and episode; a manifest is checked before it is believed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from lewm.errors import UserError
from lewm.plan.manifest import draw, mark_of, read
from lewm.plan.protocols import PROTOCOLS, protocol_of

STRICT, PAPER = PROTOCOLS["strict"], PROTOCOLS["paper"]
ABOUT = {"world": "two_room", "fingerprint": "abc", "split": "test", "split_seed": 0}


def sample(num=100, *, protocol=STRICT, lengths=None, keys=None, episodes=None, seed=0, reason=lambda e, row: None):
    lengths = [40 + e for e in range(30)] if lengths is None else lengths
    keys = [f"k{e}" for e in range(len(lengths))] if keys is None else keys

    def reasons(episode, offset):
        return [reason(episode, row) for row in range(lengths[episode] - offset)]

    episodes = list(range(len(lengths))) if episodes is None else episodes
    return draw(
        protocol,
        num,
        episodes=episodes,
        keys=keys,
        lengths=lengths,
        reasons=reasons,
        mark=mark,
        seed=seed,
        **ABOUT,
    )


def mark(pair, shift=0.0):
    """States that tell episode and row."""
    return mark_of(*(np.array([hash(pair.episode) % 97, row + shift]) for row in (pair.start, pair.goal)))


def test_a_pair_does_not_depend_on_which_other_episodes_there_are_or_on_their_order():
    every = {pair.episode: pair for pair in sample().pairs}
    few = sample(episodes=[17, 3, 9])
    assert {pair.episode for pair in few.pairs} == {"k17", "k3", "k9"}
    assert all(every[pair.episode] == pair for pair in few.pairs)
    order = [pair.episode for pair in sample().pairs]
    assert [pair.episode for pair in few.pairs] == [key for key in order if key in ("k17", "k3", "k9")]
    backwards = sample(lengths=[40 + e for e in range(30)][::-1], keys=[f"k{e}" for e in range(30)][::-1])
    assert backwards.pairs == sample().pairs


def test_another_seed_draws_other_pairs():
    assert sample(seed=1).pairs != sample().pairs
    assert sample(seed=1).pairs == sample(seed=1).pairs


def test_strict_draws_one_pair_an_episode_whose_goal_lies_the_offset_ahead_in_it():
    found = sample()
    assert len({pair.episode for pair in found.pairs}) == len(found.pairs) == 30
    for pair in found.pairs:
        assert pair.goal - pair.start == 25
        assert 0 <= pair.start < pair.goal < 40 + int(pair.episode[1:])


def test_the_first_pairs_of_a_sample_are_the_smaller_sample():
    assert sample(7).pairs == sample().pairs[:7] == sample().first(7).pairs
    with pytest.raises(UserError, match="30 pairs, --pairs asks for 31"):
        sample().first(31)


def test_pairs_that_ask_for_nothing_are_left_out_and_counted():
    def reason(episode, row):
        return "solved_at_start" if row < 5 else "one_room" if episode % 2 else None

    found = sample(reason=reason)
    assert {int(pair.episode[1:]) % 2 for pair in found.pairs} == {0}
    assert min(pair.start for pair in found.pairs) >= 5
    rows = [15 + e for e in range(30)]
    assert found.counts["reasons"] == {"solved_at_start": 150, "one_room": sum(n - 5 for n in rows[1::2])}
    assert found.counts["candidates"] == sum(rows) and found.counts["left"] == 15


def test_the_paper_keeps_them_and_draws_rows_uniformly():
    found = sample(10**6, protocol=PAPER, reason=lambda e, row: "one_room")
    assert len(found.pairs) == found.counts["candidates"] == found.counts["reasons"]["one_room"]
    lengths = [35, 225] * 40  # 10 and 200 candidates
    half = sample(4200, protocol=PAPER, lengths=lengths)
    long = np.mean([int(pair.episode[1:]) % 2 for pair in half.pairs])
    assert abs(long - 200 / 210) < 0.02


def test_long_episodes_are_not_favoured_where_each_gives_one_pair():
    lengths = [26, 400] * 200
    long = np.mean([int(pair.episode[1:]) % 2 for pair in sample(100, lengths=lengths).pairs])
    assert 0.3 < long < 0.7


def test_short_episodes_are_counted_and_no_pair_at_all_is_an_error():
    assert sample(lengths=[25, 26, 60]).counts["too_short"] == 1
    with pytest.raises(UserError, match="2 episodes: 2 too short"):
        sample(lengths=[25, 25])
    with pytest.raises(UserError, match="20 one_room"):
        sample(lengths=[45], reason=lambda e, row: "one_room")


def test_a_file_gives_the_same_manifest(tmp_path):
    found = sample(12)
    found.write(tmp_path / "m.json")
    assert read(tmp_path / "m.json") == found


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["pairs"].pop(), "checksum differs"),
        (lambda c: c["pairs"][0].update(start=3, goal=28), "checksum differs"),
        (lambda c: c.update(fingerprint="other"), "checksum differs"),
        (lambda c: c.update(format=1), "format 1, this version of lewm reads format 2; draw it again"),
        (lambda c: c["marks"].reverse(), "checksum differs"),
        (lambda c: c.pop("marks"), "damaged"),
        (lambda c: c.pop("seed"), "damaged"),
        (lambda c: c.update(more=1), "damaged"),
        (lambda c: c.pop("checksum"), "no manifest"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, match):
    sample(5).write(tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    change(content)
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=match):
        read(tmp_path / "m.json")


def test_what_is_no_manifest_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such manifest"):
        read(tmp_path / "m.json")
    for text in ("", "[]", "{", "\x00\x01", "3"):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(UserError, match="no manifest of pairs"):
            read(tmp_path / "m.json")


def test_a_manifest_for_something_else_is_refused():
    found, lengths = sample(5), {f"k{e}": 40 + e for e in range(30)}
    right = {"world": "two_room", "protocol": STRICT, "fingerprint": "abc", "lengths": lengths, "mark": mark}
    found.check("m.json", **right)
    for wrong, match in (
        ({"world": "push_t"}, "for two_room, not for push_t"),
        ({"protocol": PROTOCOLS["moderate"]}, "protocol strict, not moderate"),
        ({"protocol": STRICT.changed(offset=10, budget=None)}, "25 steps ahead, not 10"),
        ({"protocol": STRICT.changed(offset=None, budget=None, near=0.2)}, "--near None, not 0.2"),
        ({"fingerprint": "other"}, "for other data"),
        ({"lengths": dict.fromkeys(lengths, 26)}, "not there"),
        ({"lengths": {}}, "not there"),
        ({"mark": lambda pair: mark(pair, 0.01)}, "other data: the states of pair 0"),
    ):
        with pytest.raises(UserError, match=match):
            found.check("m.json", **(right | wrong))
    twice = sample(2, lengths=[60], protocol=PAPER)
    with pytest.raises(UserError, match="twice"):
        twice.check("m.json", **(right | {"lengths": {"k0": 60}, "protocol": replace(STRICT, name="paper")}))


def test_two_room_has_numbers_of_its_own_in_the_paper():
    assert (protocol_of("paper", "two_room").offset, protocol_of("paper", "two_room").budget) == (100, 150)
    assert (protocol_of("paper", "push_t").offset, protocol_of("paper", "push_t").budget) == (25, 50)
    assert (protocol_of("strict", "two_room").offset, protocol_of("strict", "two_room").budget) == (25, 50)
    with pytest.raises(UserError, match="no protocol 'lax'"):
        protocol_of("lax", "two_room")


def test_what_of_a_rule_is_not_met_is_said():
    assert STRICT.missed(STRICT, pairs=100, seeds=3, held_out=True) == []
    other = STRICT.changed(offset=None, budget=100)
    found = other.missed(STRICT, pairs=99, seeds=2, held_out=False)
    assert len(found) == 4 and "budget 100 instead of 50" in found and "99 pairs instead of 100" in found
    (unknown,) = STRICT.missed(STRICT, pairs=100, seeds=3, held_out=None)
    assert "perhaps not held out" in unknown
    assert PAPER.missed(PAPER, pairs=50, seeds=1, held_out=False) == []
    met = {"seeds": 3, "held_out": True}
    assert STRICT.missed(STRICT, pairs=150, asked=200, **met) == ["150 pairs instead of 200"]
    assert STRICT.missed(STRICT, pairs=50, asked=60, **met) == ["50 pairs instead of 100"]
    assert STRICT.missed(STRICT, pairs=100, goals=3, **met) == ["3 goal frames instead of one"]
    (why,) = STRICT.changed(offset=None, budget=None, near=0.2).missed(STRICT, pairs=100, **met)
    assert "within --near 0.2, not what a rule" in why
    for same, word in ((False, "not those"), (None, "perhaps not those")):
        (why,) = STRICT.missed(STRICT, pairs=100, as_drawn=same, **met)
        assert why.startswith(f"hand-picked pairs: {word}")
