"""Which config files a command line means, in which order they count, and what a resumed run takes from its own."""

from __future__ import annotations

from pathlib import Path

import yaml

from lewm import checkpoint
from lewm.errors import UserError
from lewm.paths import shipped


def with_configs(argv: list[str]) -> list[str]:
    """`base` first, then the configs named, then all other words, so that a flag beats a config wherever it stands.

    Shipped names, as in `--config demo`, become files. Where a run is resumed and no config named, its own is taken.
    """
    configs, words, rest = [str(shipped("base.yaml"))], [], iter(argv)
    for word in rest:
        if word in ("-c", "--config") or word.startswith("--config="):
            name = word.partition("=")[2] or next(rest, "")
            configs.append(_config_file(name))
        else:
            words.append(word)
    if len(configs) == 1 and (own := _config_of_resumed(words)) is not None:
        configs.append(str(own))
    return [word for path in configs for word in ("--config", path)] + words


def _config_file(name: str) -> str:
    if not name or name.startswith("--"):
        raise UserError("--config needs the name of a shipped config or a YAML file")
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise UserError(f"no such config file: {name}")
        return name
    return str(shipped(f"{name}.yaml"))


def _config_of_resumed(words: list[str]) -> Path | None:
    given = [w.removeprefix("--resume=") for w in words if w.startswith("--resume=")]
    given += [words[i + 1] for i, w in enumerate(words[:-1]) if w == "--resume"]
    if not given or given[-1] in ("auto", "null"):
        return None
    folder = checkpoint.run_folder(given[-1])
    return folder / "config.yaml" if folder is not None and (folder / "config.yaml").is_file() else None


def saved_precision(path: Path) -> str | None:
    """The precision in the config of a checkpoint's run, so that a resumed run goes on as it began."""
    run = checkpoint.run_folder(path)
    if run is None or not (run / "config.yaml").is_file():
        return None
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        return config["trainer"]["precision"]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise UserError(
            f"{run / 'config.yaml'} is damaged; restore it, or name --config and --trainer.precision"
        ) from error
