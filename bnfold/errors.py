"""Every exception bnfold raises on purpose.

    BnfoldError                     code           exit
    ├── CheckFailed                 CHECK          1     a check or --fail-on did not pass
    ├── UsageError                  USAGE          2     the call itself is wrong
    ├── InputError                  INPUT          3     the input is unsafe or cannot be read
    │   ├── UnreadableError         UNREADABLE
    │   ├── UnsafeError             UNSAFE
    │   └── LimitError              LIMIT
    ├── UnsupportedError            UNSUPPORTED    4     understood, but not something bnfold can do
    ├── OutputError                 OUTPUT         5     the result cannot be written
    └── InternalError               BUG            6     a mistake in bnfold

A message has two parts: what went wrong and where, and the one thing to do about it. Names in it may come from a model
file, so what cannot be printed is replaced when the error is made.
"""

from __future__ import annotations

from bnfold.wording import one_line


class BnfoldError(Exception):
    """The base of every error bnfold raises on purpose.

    Args:
        what: One line: what went wrong, and where. Names both sides of a disagreement.
        hint: One line: what the user can do about it.
    """

    code = "ERROR"
    exit_code = 6

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = one_line(what)
        self.hint = one_line(hint)
        super().__init__(self.what)

    def __str__(self) -> str:
        return f"error[{self.code}]: {self.what}" + (f"\n{self.hint}" if self.hint else "")


class CheckFailed(BnfoldError):
    """A verification or a `--fail-on` condition did not pass."""

    code = "CHECK"
    exit_code = 1


class UsageError(BnfoldError):
    """The command or call is wrong: an unknown flag, a missing argument, a shape that does not read."""

    code = "USAGE"
    exit_code = 2


class InputError(BnfoldError):
    """The input is refused."""

    code = "INPUT"
    exit_code = 3


class UnreadableError(InputError):
    """The input does not exist, is damaged, or is in no format bnfold knows."""

    code = "UNREADABLE"


class UnsafeError(InputError):
    """Reading the input would run code or reach outside the named files."""

    code = "UNSAFE"


class LimitError(InputError):
    """The input asks for more memory, time or nesting than it may, or claims to hold more than it does."""

    code = "LIMIT"


class UnsupportedError(BnfoldError):
    """The input was understood, and holds something bnfold cannot handle."""

    code = "UNSUPPORTED"
    exit_code = 4


class OutputError(BnfoldError):
    """The result cannot be written where it was asked for."""

    code = "OUTPUT"
    exit_code = 5


class InternalError(BnfoldError):
    """A mistake in bnfold itself."""

    code = "BUG"
    exit_code = 6
