"""The one class of error that a user can cause."""


class UserError(ValueError):
    """The user's input or machine is at fault: one line saying what, where and what to do; exit code 2."""


class GuardStop(RuntimeError):
    """A guard stopped the run (a NaN loss): exit code 3."""
