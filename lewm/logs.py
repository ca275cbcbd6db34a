"""What a run writes down while it trains: rows of `metrics.csv`, lines of `log.txt`."""

from __future__ import annotations

import csv
import errno
import logging
import os
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_warn

from lewm.errors import GuardStop, SignalStop, UserError
from lewm.paths import written_atomically

LOG = logging.getLogger("lewm")


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, which deletes what a resumed run logged before; this one goes on after it.

    The file stays as it is until there is a row to add, so that a run that cannot be gone on with loses nothing.

    Args:
        folder: the run's.
        before: earlier rows are kept up to this optimiser step; None for all.
    """

    def __init__(self, folder: Path, before: int | None = None) -> None:
        super().__init__(folder, name="", version="")
        self._before = before

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir, self._before)
        return self._experiment  # type: ignore[return-value]


class _Writer(ExperimentWriter):
    """Adds rows at the end; where columns come up that the file lacks, another one takes its place in one step."""

    def __init__(self, folder: str, before: int | None) -> None:
        super().__init__(folder)
        self._path, self._before = Path(self.metrics_file_path), before

    def _check_log_dir_exists(self) -> None:
        """Not as Lightning's, which deletes the file here."""

    def save(self) -> None:
        """Write the rows that were logged since the last time."""
        if not self.metrics:
            return
        try:
            if set().union(*self.metrics) <= set(self.metrics_keys):
                self._append()
            else:  # the first time too, when no column is known
                self._rewrite([*logged_rows(self._path, self._before), *self.metrics])
                self._before = None
        except UserError as error:
            raise _Unwritten(str(error)) from error
        self.metrics = []

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        columns = sorted(set().union(*rows))
        with written_atomically(self._path) as temporary:
            _write(temporary, columns, rows, header=True)
        self.metrics_keys = columns

    def _append(self) -> None:
        size = self._path.stat().st_size
        try:
            _write(self._path, self.metrics_keys, self.metrics, header=False)
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, size)  # a row of which half was written would spoil the next
            raise UserError(
                f"cannot write {self._path}: {error.strerror}; free space and go on with --resume auto"
            ) from error


def _write(path: Path, columns: list[str], rows: Iterable[dict[str, Any]], *, header: bool) -> None:
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        if header:
            writer.writeheader()
        writer.writerows(rows)


def logged_rows(path: Path, before: int | None) -> list[dict[str, str]]:
    """Rows of a metrics file of steps before `before` (all for None), without empty cells.

    A last line without an end was being written when its run was killed: it is left out.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        whole = [line for line in file if line.endswith("\n")]
    rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(whole)]
    return [row for row in rows if before is None or int(row.get("step", 0)) < before]


def open_log(folder: Path) -> logging.Handler:
    """Let `log.txt` take what the run says: its beginning, health after each validation, warnings, its end."""
    handler = _LogFile(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    return handler


def close_log(handler: logging.Handler) -> None:
    """Let go of what `open_log` opened."""
    LOG.removeHandler(handler)
    with suppress(OSError):  # a full disk
        handler.close()


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn a full disk that is met in writing without a file's name into one line about a run's folder.

    TensorBoard writes from a thread of its own, and raises again in the one that trains: it prints nothing of itself.
    """
    print_of_thread = threading.excepthook

    def print_others(args: Any) -> None:
        if not _is_full(args.exc_value):
            print_of_thread(args)

    threading.excepthook = print_others
    try:
        yield
    except (OSError, _Unwritten) as error:
        why = str(error)
        if isinstance(error, OSError):
            if not (_is_full(error) and _is_of_tensorboard(error)):
                raise
            why = f"cannot write the logs in {folder}: {error.strerror}; free space and go on with --resume auto"
        if (stop := _stop_before(error)) is not None:
            rank_zero_warn(why)
            raise stop from None
        raise UserError(why) from error
    finally:
        threading.excepthook = print_of_thread


class _Unwritten(UserError):
    """Rows could not be written."""


def _stop_before(error: BaseException) -> GuardStop | SignalStop | None:
    """What had ended the run already when its logs were closed, which is what its exit code has to say."""
    before = error.__context__
    while before is not None and not isinstance(before, GuardStop | SignalStop):
        before = before.__context__
    return before


def _is_of_tensorboard(error: BaseException) -> bool:
    return any("tensorboard" in frame.filename for frame in traceback.extract_tb(error.__traceback__))


def _is_full(error: BaseException | None) -> bool:
    if not isinstance(error, OSError) or error.filename is not None:
        return False
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Not with a traceback: a disk that is full ends the run at its next row or checkpoint, with one line."""
