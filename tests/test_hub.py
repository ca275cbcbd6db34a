"""Models go to the Hub and come from it; here into a folder that stands for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from published import same

import lewm
from lewm import HubModel
from lewm.errors import UserError
from lewm.export import export

COMMIT = "c" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A cache of the Hub into which what is pushed goes at once."""
    cache = tmp_path / "cache"

    def create(self, repo_id, **how):
        return type("Url", (), {"repo_id": repo_id})

    def upload(self, *, repo_id, folder_path, **how):
        repository = cache / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(folder_path, repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return cache


def test_a_model_saved_and_loaded_is_the_same_and_frozen(tiny_run, tmp_path):
    model = HubModel.from_pretrained(export(tiny_run, tmp_path / "a"))
    assert isinstance(model, lewm.WorldModel)
    (tmp_path / "b").mkdir()
    model.save_pretrained(tmp_path / "b")
    again, own = HubModel.from_pretrained(tmp_path / "b"), lewm.load(tiny_run)
    assert same(again.state_dict(), own.state_dict())
    assert (again.interface, again.config) == (own.interface, own.config)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    pixels = torch.randint(0, 256, (1, 3, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(again.encode(pixels), own.encode(pixels))
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert same(lewm.load(tmp_path / "b").state_dict(), own.state_dict())


def test_a_run_goes_to_the_hub_and_comes_back_by_its_name(tiny_run, hub):
    model = HubModel.from_pretrained(tiny_run)
    assert model.push_to_hub("someone/walks") == "https://hub/someone/walks"
    pushed = hub / "models--someone--walks" / "snapshots" / COMMIT
    assert sorted(p.name for p in pushed.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    again = HubModel.from_pretrained("someone/walks", cache_dir=hub, local_files_only=True)
    assert same(again.state_dict(), model.state_dict())
    assert "| optimizer steps | 5 |" in again.card
    assert same(lewm.load(pushed).state_dict(), model.state_dict())


def test_a_model_made_in_python_has_a_card_too(tiny_model, tmp_path):
    model = HubModel(tiny_model.interface, **tiny_model.config)
    model.load_state_dict(tiny_model.state_dict())
    model.save_pretrained(tmp_path / "m")
    assert same(lewm.load(tmp_path / "m").state_dict(), tiny_model.state_dict())
    assert "Nothing is known of it" in (tmp_path / "m" / "README.md").read_text()


def test_what_was_changed_on_the_way_is_refused(tiny_run, tmp_path):
    folder = export(tiny_run, tmp_path / "a")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="differs from its checksum"):
        HubModel.from_pretrained(folder)
