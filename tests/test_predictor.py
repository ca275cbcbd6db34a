"""AdaLN-zero and the transformer's shapes."""

from copy import deepcopy

import torch

from lewm.model import predictor as module
from lewm.model.predictor import Block, Predictor, Transformer


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
