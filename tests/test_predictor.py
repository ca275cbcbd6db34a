"""AdaLN-zero and the transformer's shapes."""

from copy import deepcopy

import pytest
import torch
from conftest import TINY
from torch.utils._python_dispatch import TorchDispatchMode

from lewm.model import predictor as module
from lewm.model.predictor import Block, Predictor, Transformer, attend
from lewm.model.world_model import WorldModel


def test_a_block_starts_as_the_identity_and_deaf_to_actions():
    block, x = Block(8, 2, 4, 16, 0.0), torch.randn(2, 3, 8)
    assert torch.equal(block(x, torch.randn(2, 3, 8)), x)


def test_every_part_of_a_block_gets_a_gradient_once_the_gates_have_opened():
    block, x, c = Block(8, 2, 4, 16, 0.0), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    torch.nn.init.normal_(block.adaLN_modulation[1].weight)
    block(x, c).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_where_widths_differ_linear_maps_stand_before_and_after():
    same, other = (Transformer(8, width, 1, 2, 4, 16, 0.0) for width in (8, 12))
    added = {k.split(".")[0] for k in other.state_dict()} - {k.split(".")[0] for k in same.state_dict()}
    assert added == {"input_proj", "cond_proj", "output_proj"}
    assert other(torch.randn(1, 3, 8), torch.randn(1, 3, 8)).shape == (1, 3, 8)


def test_positions_make_the_order_of_frames_matter():
    torch.manual_seed(0)
    predictor = Predictor(8, history=3, width=8, depth=1, heads=2, head_dim=4, mlp=16, dropout=0.0).eval()
    torch.nn.init.normal_(predictor.transformer.layers[0].adaLN_modulation[1].weight)
    z, c = torch.randn(1, 3, 8), torch.randn(1, 1, 8).expand(1, 3, 8)
    swapped = predictor(z[:, [1, 0, 2]], c)[:, 2]
    assert (predictor(z, c)[:, 2] - swapped).abs().max() > 1e-3


def test_a_copy_of_a_compiled_transformer_uses_its_own_weights(monkeypatch):
    monkeypatch.setattr(module, "_compiled_extend", lambda: Transformer._extend)
    model, z, c = Transformer(8, 8, 1, 2, 4, 16, 0.0).eval(), torch.randn(2, 1, 8), torch.randn(2, 1, 8)
    model.extends_compiled = True
    copy = deepcopy(model)
    torch.nn.init.normal_(copy.layers[0].adaLN_modulation[1].weight)
    with torch.no_grad():
        (mine, _), (its, _) = (one.extend(z, one.modulations(c), []) for one in (model, copy))
    assert (mine - its).abs().max() > 1e-3


class Called(TorchDispatchMode):
    """Notes the names of torch's own operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mixed", [False, True])
def test_rollouts_of_a_frozen_model_multiply_matrices_not_one_small_product_a_candidate(interface, mixed):
    # Of a slice and a weight without a gradient torch makes a batch of products, with a copy of the weight for each.
    model, called = WorldModel(interface, **{**TINY, "predictor_depth": 2}).eval().requires_grad_(False), Called()
    k, a = interface.frameskip, interface.action_dim
    with called, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        for frames in (1, interface.history):
            past = torch.zeros(2, frames - 1, k, a)
            model.rollout(torch.randn(2, frames, 8), past, torch.randn(2, 5, 6, k, a))
    assert "bmm" not in called.names and {"mm", "addmm"} <= called.names


@pytest.mark.parametrize("later", [1, 2])
def test_attention_to_few_frames_in_bfloat16_has_the_numbers_of_float32(later):
    q, k, v = (torch.randn(3, 4, n, 8, generator=torch.Generator().manual_seed(n)).bfloat16() for n in (later, 3, 3))
    seen = torch.ones(later, 3, dtype=torch.bool).tril(3 - later)
    weights = (q.double() @ k.double().mT / 8**0.5).masked_fill(~seen, -torch.inf).softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(q, k, v, seen)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), weights @ v.double(), rtol=2**-8, atol=1e-6)
