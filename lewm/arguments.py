"""A command's arguments from the words of the command line, by the signature and docstring of its function."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from lewm.errors import UserError


def parse(function: Callable[..., None], positional: tuple[str, ...], argv: list[str]) -> dict[str, Any]:
    """Arguments of `function`; `positional` names those given without a flag. UserError for what does not fit."""
    from jsonargparse import ArgumentError, ArgumentParser

    about = (function.__doc__ or "").split("\n\n    Args:")[0]
    command = function.__name__.rstrip("_")  # one is named by a word that Python keeps for itself
    parser = ArgumentParser(prog=f"lewm {command}", description=about, exit_on_error=False)
    parser.add_function_arguments(function, as_group=False, skip=set(positional))
    several = {name for name, p in signature(function).parameters.items() if p.annotation == "list[str]"}
    for name in positional:
        how: dict[str, Any] = {"type": str, "nargs": "+"} if name in several else {"type": str}
        parser.add_argument(name, help=_help_of(function, name), **how)
    try:
        values = parser.parse_args(_bare_flags(function, [_spelled(word) for word in argv]))
    except ArgumentError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{line}; see `lewm {command} --help`") from error
    arguments = {name: values[name] for name in signature(function).parameters}
    for name, value in arguments.items():
        if isinstance(value, int) and value < 0:
            raise UserError(f"--{name} is {value}; it must not be negative")
    return arguments


def _spelled(word: str) -> str:
    """Flags may be written with hyphens or underscores; `--json` is the one whose name Python has taken."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return {"--json": "--as_json"}.get(name, "--" + name[2:].replace("-", "_")) + equals + value


def _help_of(function: Callable[..., None], name: str) -> str:
    lines = [line.strip() for line in (function.__doc__ or "").splitlines()]
    return next(line.split(": ", 1)[1] for line in lines if line.startswith(f"{name}: "))


def _bare_flags(function: Callable[..., None], argv: list[str]) -> list[str]:
    """`--verify` alone means `--verify true`."""
    switches = {f"--{name}" for name, p in signature(function).parameters.items() if p.default is False}
    words = []
    for i, word in enumerate(argv):
        words.append(word)
        if word in switches and (i + 1 == len(argv) or argv[i + 1].lower() not in ("true", "false")):
            words.append("true")
    return words
