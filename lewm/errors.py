"""How a command ends early: the one class of error that a user can cause, a guard, a signal."""

from signal import SIGINT


class UserError(ValueError):
    """The user's input or machine is at fault: one line saying what, where and what to do; exit code 2."""


class GuardStop(RuntimeError):
    """A guard stopped the run (a NaN loss): exit code 3."""


class SignalStop(Exception):
    """A signal ended the run after it had saved: exit code 130 after Ctrl-C, 143 after SIGTERM and SIGUSR1."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.exit_code = 130 if number == SIGINT else 143
