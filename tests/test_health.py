"""Health figures on embeddings whose state is known."""

import pytest
import torch
from torch import nn

from lewm.clip import ClipBatch
from lewm.health import HealthMeter, effective_rank, straightness, verdicts
from lewm.loss.sigreg import SIGReg


def test_effective_rank_counts_the_directions_in_use():
    assert float(effective_rank(torch.eye(7))) == pytest.approx(7)
    assert float(effective_rank(torch.diag(torch.tensor([1.0, 1.0, 0, 0])))) == pytest.approx(2)
    assert float(effective_rank(torch.zeros(4, 4))) == pytest.approx(1, abs=1e-6)


def test_a_straight_path_has_straightness_one_and_a_zigzag_minus_one():
    t = torch.arange(5.0)
    line = torch.stack([t, 2 * t], dim=-1)[None]
    zigzag = torch.stack([t % 2, t % 2], dim=-1)[None]
    assert straightness(line).item() == pytest.approx(1)
    assert straightness(zigzag).item() == pytest.approx(-1)


class Known(nn.Module):
    """Embeddings are the frames' first pixel; prediction adds the action: exact on data made that way."""

    deaf = False

    def encode(self, pixels):
        return pixels[:, :, 0, 0, :2].float()

    def predict(self, z, actions):
        return z if self.deaf else z + actions.sum((2, 3))[..., None]


def clips(n: int = 64) -> ClipBatch:
    g = torch.Generator().manual_seed(0)
    actions = torch.randint(1, 9, (n, 3, 1, 1), generator=g).float()
    z = torch.cat([torch.randint(0, 99, (n, 1, 1), generator=g).float(), actions[:, :, 0]], dim=1).cumsum(1)
    pixels = z[..., None, None].expand(-1, -1, 1, 1, 2).to(torch.uint8)
    return ClipBatch(pixels, actions, torch.arange(n), torch.ones(n))


def measured(model, batches) -> dict[str, float]:
    meter = HealthMeter(SIGReg(directions=8), 0.1)
    for i, batch in enumerate(batches):
        meter.update(model, batch, i)
    return {k: float(v) for k, v in meter.compute().items()}


def test_an_exact_model_is_better_than_copying_and_misses_its_actions():
    health = measured(Known(), [clips()])
    assert health["pred_loss"] == 0
    assert health["copy_last"] > 1
    assert health["shuffled_action_ratio"] == float("inf")
    assert not any("actions" in v or "prediction" in v for v in verdicts(health))


def test_a_model_blind_to_its_actions_and_no_better_than_copying_is_said_so():
    model = Known()
    model.deaf = True
    health = measured(model, [clips()])
    assert health["zero_action_ratio"] == health["shuffled_action_ratio"] == 1
    assert {"no prediction", "blind to actions"} <= {v.split(":")[0] for v in verdicts(health)}


def test_collapse_is_said_with_its_values():
    batch = clips()._replace(pixels=torch.full((64, 4, 1, 1, 2), 5, dtype=torch.uint8))
    health = measured(Known(), [batch])
    assert health["std_mean"] == 0
    said = verdicts(health)
    assert "collapse: the embedding's mean std is 0, healthy is 1" in said
    assert "collapse: the embedding's effective rank is 1" in said


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("std_mean", 0.0994, "collapse: the embedding's mean std is 0.0994, healthy is 1"),
        ("effective_rank", 1.987, "collapse: the embedding's effective rank is 1.99"),
        ("pred_loss", 0.5, "no prediction: error 0.5, copying the last embedding 0.5"),
        ("shuffled_action_ratio", 1.0091, "blind to actions: shuffled ones change the error by 1.009"),
    ],
)
def test_each_verdict_is_passed_at_its_threshold_and_says_its_value(figure, value, said):
    # The least that passes: std 0.1, effective rank 2, an error below that of copying, 1 % more with wrong actions.
    sound = {"std_mean": 0.1, "effective_rank": 2.0, "pred_loss": 0.49, "copy_last": 0.5, "shuffled_action_ratio": 1.01}
    assert verdicts(sound) == []
    assert verdicts(sound | {figure: value}) == [said]


def test_embeddings_on_one_line_are_told_from_collapsed_ones_by_their_rank_alone():
    batch = clips()
    batch = batch._replace(pixels=batch.pixels[..., :1].expand(-1, -1, -1, -1, 2))
    health = measured(Known(), [batch])
    assert health["std_mean"] > 1
    collapse = [verdict for verdict in verdicts(health) if verdict.startswith("collapse")]
    assert collapse == ["collapse: the embedding's effective rank is 1"]


def test_padding_of_weight_zero_changes_nothing():
    whole = clips(40)
    first = ClipBatch(*(x[:24] for x in whole))
    rest = ClipBatch(*(torch.cat([x[24:], x[-1:].expand(8, *x.shape[1:])]) for x in whole))
    rest = rest._replace(weight=torch.tensor([1.0] * 16 + [0.0] * 8))
    padded, plain = measured(Known(), [first, rest]), measured(Known(), [first, ClipBatch(*(x[24:] for x in whole))])
    for name in ("copy_last", "std_mean", "effective_rank", "straightness", "zero_action_ratio", "sigreg"):
        assert padded[name] == pytest.approx(plain[name], rel=1e-6), name
