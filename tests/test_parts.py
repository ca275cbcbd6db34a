import numpy as np
import pytest
from conftest import FakeSource

from lewm.datasets.split import episodes_of
from lewm.errors import UserError
from lewm.probes.parts import grouped, plan


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_probes_parts_are_disjoint_episodes(split):
    (parts,) = plan(FakeSource([3] * 300), split, 0, 0).folds
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert len(np.unique(together)) == len(together)
    assert min(len(parts.train), len(parts.val), len(parts.test)) > 10


@pytest.mark.parametrize(("split", "shares"), [("val", (0.8, 0.2)), ("train", (0.6, 0.2, 0.2))])
def test_most_episodes_fit_the_probes_and_fewer_choose_and_measure(split, shares):
    (parts,) = plan(FakeSource([3] * 300), split, 0, 0).folds
    sizes = np.array([len(parts.train), len(parts.val), len(parts.test)][: len(shares)])
    assert np.allclose(sizes / sizes.sum(), shares, atol=0.01)


@pytest.mark.parametrize("episodes", [3, 4, 5, 23])
def test_folds_measure_every_episode_once_and_never_one_they_were_fitted_on(episodes):
    made = plan(FakeSource([3] * episodes), "all", 0, 0)
    assert len(made.folds) == min(5, episodes)
    assert made.test.tolist() == list(range(episodes))
    for fold in made.folds:
        together = np.concatenate([fold.train, fold.val, fold.test])
        assert sorted(together.tolist()) == list(range(episodes))
        assert min(len(fold.train), len(fold.val), len(fold.test)) > 0
    assert [group.tolist() for group in made.groups] == [list(range(episodes))]


def test_too_few_episodes_are_refused_and_split_all_is_named():
    with pytest.raises(UserError, match=r"part of fake.h5 is empty \(2 episodes.*--split all"):
        plan(FakeSource([3, 3]), "test", 0, 0)
    source = FakeSource([3] * 300)
    source.keys = [f"k{e}" for e in range(300)]
    few = next(n for n in range(3, 300) if 0 < len_test(source.keys[:n]) < 3 and len_val(source.keys[:n]))
    with pytest.raises(UserError, match=r"at least 3 are needed.*--split all"):
        plan(FakeSource([3] * few), "test", 0, 0)
    with pytest.raises(UserError, match="folds need at least 3"):
        plan(FakeSource([3, 3]), "all", 0, 0)


def len_test(keys):
    return len(episodes_of("test", 0, keys))


def len_val(keys):
    return len(episodes_of("val", 0, keys))


def test_grouping_depends_on_keys_and_seed_only():
    keys = [f"e{i}" for i in range(20)]
    first = grouped(np.arange(20), keys, (0.5, 0.5), 0)
    back = grouped(np.arange(20), keys[::-1], (0.5, 0.5), 0)
    assert sorted(19 - back[0]) == first[0].tolist()
    assert grouped(np.arange(20), keys, (0.5, 0.5), 1)[0].tolist() != first[0].tolist()
