"""Known answers: straight paths, planted directions, planted attention, the nearest of known frames."""

import numpy as np
import pytest
from conftest import write_walks

from lewm.datasets.schema import open_source
from lewm.errors import UserError
from lewm.probes.frames import Frames, choose_frames
from lewm.probes.latent_map import colours, mapped, principal, quantities_of
from lewm.probes.look_parts import around, attended, embedded, pixel_paths, straight
from lewm.probes.nearest import Neighbours
from lewm.probes.targets import Quantity

RNG = np.random.default_rng


def test_a_straight_line_has_straightness_1_a_way_back_and_forth_minus_1_and_noise_about_minus_a_half():
    t, step = np.arange(9.0)[None, :, None], RNG(0).normal(size=(30, 1, 6))
    paths = {
        "embedding": t * step + 5,
        "imagined": (t % 2) * step,
        "untrained": RNG(1).normal(size=(30, 9, 200)),
        "pixels": np.zeros((30, 2, 4)),  # two frames have one velocity
    }
    found = straight(paths, np.arange(30), seed=0)
    assert found["embedding"]["mean"] == pytest.approx(1, abs=1e-6)
    assert found["imagined"]["mean"] == pytest.approx(-1, abs=1e-6)
    assert found["untrained"]["mean"] == pytest.approx(-0.5, abs=0.02)  # velocities share one frame of two
    assert found["untrained"]["ci95"][0] < found["untrained"]["mean"] < found["untrained"]["ci95"][1]
    assert "pixels" not in found


def test_principal_components_are_the_planted_directions_with_their_variance():
    axes = np.linalg.qr(RNG(0).normal(size=(10, 10)))[0]
    latent = RNG(1).normal(size=(4000, 10)) * ([5.0, 3.0] + [0.1] * 8)
    found, share = principal((latent @ axes.T + 7).astype(np.float32), seed=0)
    assert abs(np.corrcoef(found[:, 0], latent[:, 0])[0, 1]) > 0.999
    assert abs(np.corrcoef(found[:, 1], latent[:, 1])[0, 1]) > 0.999
    assert share == pytest.approx([25 / 34.08, 9 / 34.08], abs=0.02)


def test_tsne_keeps_planted_groups_apart_and_is_the_same_for_the_same_seed():
    group = np.repeat(np.arange(3), 40)
    z = 30 * np.eye(8)[group] + RNG(0).normal(size=(120, 8))
    maps, about = mapped(z, seed=0)
    again, _ = mapped(z, seed=0)
    assert all(np.array_equal(maps[name], again[name]) for name in maps) and set(maps) == {"PCA", "t-SNE"}
    distance = np.linalg.norm(maps["t-SNE"][:, None] - maps["t-SNE"][None], axis=-1) + 1e9 * np.eye(120)
    assert np.array_equal(group[distance.argmin(axis=1)], group)
    assert about["trustworthiness"]["t-SNE"] > 0.85 and about["n"] == 120


def test_attention_on_the_planted_place_is_counted_and_even_attention_is_1():
    places = np.array([[0.1, 0.95], [0.5, 0.5], [1.2, 0.5]])  # x, y; the last is outside the picture
    near = around(places[:2], (4, 8))
    assert np.argwhere(near[0]).tolist() == [[2, 0], [2, 1], [3, 0], [3, 1]]  # a corner, as a row and a column
    assert near[1].sum() == 9 and near[1][1:4, 3:6].all()
    even = np.full((3, 4, 8), 0.02)
    assert attended(even, places, np.arange(3), seed=0)["ratio"] == pytest.approx(1)
    on = np.zeros((3, 4, 8))
    on[0, 3, 0] = on[1, 2, 4] = on[2, 0, 0] = 0.5
    found = attended(on, places, np.arange(3), seed=0)
    assert found["n"] == 2 and found["ratio"] == pytest.approx((32 / 4 + 32 / 9) / 2)
    assert attended(on[2:], places[2:], np.arange(1), seed=0)["n"] == 0


def test_the_nearest_frame_is_that_of_the_nearest_embedding_in_any_order_and_twice(tmp_path):
    source = open_source(write_walks(tmp_path / "w.h5", 3))
    among = choose_frames(source.lengths, np.arange(3), 30)
    z = RNG(0).normal(size=(30, 4)).astype(np.float32)
    wanted = [17, 3, 17, 29, 0]
    found = Neighbours(source, among, z).frames(z[wanted] + 1e-4)
    for frame, i in zip(found, wanted, strict=True):
        assert np.array_equal(frame, source.frames(int(among.episode[i]), among.row[i : i + 1])[0])


def test_neighbours_embed_the_frames_that_they_show(tmp_path, monkeypatch):
    class Flat:
        def encode(self, pixels):
            return pixels.float().flatten(2)

    monkeypatch.setattr("lewm.probes.nearest.NEIGHBOURS", 50)
    source = open_source(write_walks(tmp_path / "w.h5", 3))
    found = Neighbours.of(Flat(), source, np.array([1, 2]))
    assert len(found.among) == 48 and set(found.among.episode) == {1, 2}
    frame = source.frames(2, np.array([7]))
    assert np.array_equal(found.frames(frame.reshape(1, -1)), frame)


def test_windows_are_embedded_frame_by_frame():
    class Mean:
        def encode(self, pixels):
            return pixels.float().mean(dim=(2, 3, 4))[..., None]

    pixels = RNG(0).integers(0, 256, (40, 5, 4, 4, 3), dtype=np.uint8)
    assert np.allclose(embedded(Mean(), pixels)[..., 0], pixels.mean(axis=(2, 3, 4)), atol=1e-3)
    assert pixel_paths(pixels).shape == (40, 5, 48)


def test_maps_are_coloured_by_what_one_frame_tells_else_by_time(tmp_path):
    source = open_source(write_walks(tmp_path / "w.h5", 3))
    frames = Frames(np.array([0, 1]), np.array([3, 9]), 2)
    about = {"history": 3, "frameskip": 2}
    place = Quantity(name="p", column="state", slice=(0, 2), image={"left": 0, "right": 1, "top": 0, "bottom": 1})
    speed = Quantity(name="v", column="state", slice=(0, 2), kind="velocity")
    angle = Quantity(name="a", column="state", slice=(0, 1), kind="angle")
    x, y, turned = colours(source, [speed, place, angle], frames, **about)
    state = [source.column("state", e)[r] for e, r in ((0, 3), (1, 9))]
    assert (x.name, y.name) == ("p, x", "p, y") and np.allclose(np.stack([x.values, y.values], 1), state)
    wrapped = (np.array(state)[:, 0] + np.pi) % (2 * np.pi) - np.pi
    assert turned.cyclic and np.allclose(turned.values, np.degrees(wrapped), atol=1e-3)
    (time,) = colours(source, [speed], frames, **about)
    assert time.values.tolist() == [3, 9]
    source.columns.pop("state")
    assert quantities_of(None, source) == (None, [])
    with pytest.raises(UserError, match="no column 'state'"):
        quantities_of("two_room", source)
