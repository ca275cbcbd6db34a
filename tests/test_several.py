import numpy as np
import pytest
from conftest import FakeSource
from test_quantities import ROWS, table_of, world

from lewm.probes import several
from lewm.probes.parts import plan
from lewm.probes.quantities import observe, read_both
from lewm.probes.targets import Quantity

FAR = Quantity(name="far", column="far", slice=(0, 1))
PLACE = Quantity(name="place", column="place", slice=(0, 2))


def readings_of(noise, seed=0):
    """Readings of two quantities, one in units a thousand times as small, from features with noise in them."""
    source, x = world()
    far = source._columns["place"][:, :1] * 1000
    source = FakeSource([ROWS] * 120, {"place": source._columns["place"], "far": far})
    how = plan(source, "val", 0, 0)
    values = [observe(source, q, how, 500, history=1, frameskip=1) for q in (PLACE, FAR)]
    blurred = (x + noise * np.random.default_rng(seed).normal(size=x.shape)).astype(np.float32)
    return [read_both(table_of(v, {"embedding": blurred}), v, how, "embedding") for v in values]


def test_the_error_that_chooses_is_that_of_the_linear_probes_standardised():
    readings = readings_of(1.0)
    found = several.by_episode(readings)
    expected = {}
    for both in readings:
        r = both["linear"]
        for e in np.unique(r.episode):
            own = r.episode == e
            error = (((r.true - r.read)[own] / r.scale.std) ** 2).mean()
            expected.setdefault(int(e), []).append(error)
    assert found == pytest.approx({e: np.mean(v) for e, v in expected.items()})


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """Rows for checkpoints whose features are blurred by some noise."""

    def judge(noises):
        asked = iter([readings_of(noise, seed) for seed, noise in enumerate(noises)])
        monkeypatch.setattr(several, "require_comparable", lambda *_: None)
        monkeypatch.setattr(several, "plan", lambda *_: None)
        monkeypatch.setattr(several.checkpoints, "interface_of", lambda _: Fed())
        monkeypatch.setattr(several.checkpoints, "load", lambda _: Loaded())
        monkeypatch.setattr(several, "on_device", lambda model: model)
        monkeypatch.setattr(several, "identify", lambda path: {"path": str(path), "step": 1})
        monkeypatch.setattr(several.checkpoints, "run_folder", lambda _: None)
        monkeypatch.setattr(several, "Questions", lambda *_, **__: Asked(asked))
        paths = [tmp_path / str(i) for i in range(len(noises))]
        rows, best = several.choose(paths, None, [], None, split="test", max_frames=100, seed=0)
        return rows, paths.index(best)

    return judge


class Fed:
    split_seed, history, frameskip = 0, 1, 1


class Loaded:
    interface = Fed()


class Asked:
    def __init__(self, readings):
        self.readings = readings

    def ask(self, *_):
        return next(self.readings)


def test_the_best_has_the_smallest_error_and_only_what_is_not_told_from_it_is_as_good(judged):
    rows, best = judged([3.0, 0.5, 0.5, 1.5])
    assert best in (1, 2) and rows[best]["best"] and sum(row["best"] for row in rows) == 1
    assert [row["as_good"] for row in rows] == [False, True, True, False]
    assert rows[0]["behind_ci95"][0] > rows[3]["behind_ci95"][0] > 0
