"""Models on the Hugging Face Hub: `from_pretrained`, `save_pretrained` and `push_to_hub`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download

from lewm import checkpoint
from lewm.card import card
from lewm.export import write
from lewm.model.world_model import WorldModel
from lewm.weights import CONFIG, WEIGHTS


class HubModel(WorldModel, ModelHubMixin, library_name="lewm", tags=["world-model", "jepa"]):
    """A `WorldModel` that goes to the Hub and comes from it, as `lewm export` writes it.

    `from_pretrained` takes a repository, an exported folder, a checkpoint file or a run folder, and gives the frozen
    model; UserError for what is damaged. Nothing that is read runs code.
    """

    card = ""  # that of the folder or run it came from
    content: dict[str, Any] = {}  # of its checkpoint

    def _save_pretrained(self, save_directory: Path) -> None:
        write(save_directory, self, self.card or card(self), self.content)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> HubModel:
        path = model_id
        if not Path(model_id).exists():
            path = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[WEIGHTS, CONFIG, "README.md"],
            )
        found = checkpoint.resolve(path)
        loaded = checkpoint.load(found)
        model = cls(loaded.interface, **loaded.config)
        model.load_state_dict(loaded.state_dict())
        readme = found.with_name("README.md")
        model.card = readme.read_text(encoding="utf-8") if readme.is_file() else card(loaded, found)
        model.content = {"lewm": checkpoint.read(found)["lewm"], "global_step": checkpoint.steps_trained(found)}
        return model.eval().requires_grad_(False)
