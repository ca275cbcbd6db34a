"""The command line: one entry, dispatched before anything heavy is imported."""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from lewm.commands import COMMANDS, POSITIONAL
from lewm.errors import GuardStop, UserError
from lewm.job import speaks

HELP = """usage: lewm COMMAND [options]

Train, probe and test world models on offline pixel trajectories.

  fit        train: --config NAME|FILE --data.path PATH, any --model.* --data.* --trainer.*, --resume auto|CKPT
  validate   losses and health on the validation split: --resume CKPT|RUN
  test       the same on the test split
  predict    embeddings of the test split
  collect    run a behaviour policy in a world and write shards
  convert    any readable source to shards
  inspect    what is in a data set; --verify reads every byte
  probe      physical quantities from frozen embeddings, and open-loop error
  surprise   violation of expectation
  look       the latent space made visible: decoded frames, imagined rollouts, maps, attention
  plan       goal-reaching in latent space, beside a random policy
  report     one HTML page of all that is known about a run
  import     published weights to a run of ours
  export     a model as safetensors, config and card, or for stable-worldmodel
  doctor     versions, devices, and what is wrong with this installation

`lewm COMMAND --help` says more. Exit codes: 0 done, 2 the input or the machine is at fault, 3 a guard stopped the run,
1 a bug of ours, 130 and 143 on signals. --debug shows the traceback of an error.

  lewm collect two_room --out data/two_room --episodes 500
  lewm fit --config demo --data.path data/two_room
  lewm probe runs/demo --data data/two_room
"""
TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    warnings.showwarning = _show_warning
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except GuardStop as error:
        return _fail(str(error), 3, debug)
    except (UserError, OSError, MemoryError) as error:
        return _fail(_describe(error), 2, debug)
    except Exception as error:
        if (lost := _lost_worker(error)) is None:
            raise
        return _fail(lost, 2, debug)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if argv[0] == "--version":
        from lewm import __version__

        print(f"lewm {__version__}")
        return 0
    command, rest = argv[0], argv[1:]
    if command in TRAINER_COMMANDS:
        from lewm.fit import main as fit

        return fit(command, rest)
    if command not in COMMANDS:
        raise UserError(f"no such command: {command!r}; one of {', '.join((*TRAINER_COMMANDS, *COMMANDS))}")
    from lewm.arguments import parse

    COMMANDS[command](**parse(COMMANDS[command], POSITIONAL.get(command, ()), rest))
    return 0


def _describe(error: BaseException) -> str:
    """One line; of an error that a loader's worker handed on, the original alone."""
    text = str(error)
    if text.startswith("Caught ") and "Traceback" in text:
        return text.rstrip().splitlines()[-1].partition(": ")[2]
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__


def _lost_worker(error: BaseException | None) -> str | None:
    """What to do about a loader's worker that the system ended; None for any other error.

    torch raises in a signal's handler, wherever the program just is, so that the error may have become another's cause.
    """
    if error is None:
        return None
    text = " ".join(str(error).split())
    if not text.startswith("DataLoader worker ("):
        return _lost_worker(error.__cause__ or error.__context__)
    shared = Path("/dev/shm")
    free = f" ({shutil.disk_usage(shared).free / 2**30:.1f} GiB free)" if shared.exists() else ""
    return (
        f"{text.partition('. ')[0].rstrip('.')}: memory ran out, or shared memory in /dev/shm{free}, or a data file "
        "shrank; lower data.num_workers or data.global_batch, or give more, and go on with --resume auto"
    )


def _fail(message: str, code: int, debug: bool = False) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    if speaks():
        print(f"lewm: error: {_without_secrets(message)}", file=sys.stderr)
    return code


def _without_secrets(message: str) -> str:
    if "://" not in message:
        return message
    from lewm.datasets.remote import without_secrets

    return without_secrets(message)


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    print(f"lewm: warning: {message}", file=sys.stderr)
    logging.getLogger("lewm").warning(str(message))
