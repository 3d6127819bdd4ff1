"""Every error that numb raises on purpose.

    NumbError                      1   a refusal that a person can act on
    ├── Usage                      2   the call itself is wrong
    ├── ConfigError                2   a file of the user's that cannot be understood, with its line and column
    │   └── HyperparameterError        a hyperparameter is written, named or set in a way that cannot be
    │       ├── NotLiteralNameException    its name is no plain string in the source
    │       ├── NotLiteralEvaluable        a hint is no constant in the source
    │       ├── ArgumentCountException     it is called with no name, or with more than a name and a value
    │       ├── DoubleAssignmentException  it has two defaults
    │       ├── ImpossibleTree             it is a value and has others below it (a ValueError, too)
    │       └── UnknownHyperparameter      it is nowhere, or has no value (a KeyError, too)
    ├── NotARepository             1   there is no git repository here
    ├── NotInitialised             1   there is no nmb.json here
    ├── RunNotFound                1   no run, or several, answer to what was given
    ├── ArtifactMissing            1   the run has nothing of that name (a KeyError, too)
    ├── TargetExists               1   a file or directory would have to be overwritten
    ├── WouldOverwrite             1   the work tree holds something that numb will not replace
    ├── BranchInUse                1   the branch of the runs is checked out, or somebody else's
    ├── NotPossible                1   as things are, this cannot be done
    ├── ObjectMissing              1   bytes that a record names are not in the store
    ├── ObjectCorrupt              1   bytes in the store are not what their name says
    ├── StoreTooNew                1   written by a later numb
    ├── StorageFailed              125 the disk is full, read-only or failing
    ├── RemoteFailed               125 another place cannot be reached, is full or stalls
    ├── GitFailed                  125 git said no, and numb does not know why
    ├── Refused                    125 numb ended a script before it did its work
    │   └── Interrupted            130 Ctrl-C was the answer to a question
    ├── CannotStart                126 the user's command cannot be started
    ├── CommandNotFound            127 the user's command, or git, is not there
    └── ProblemsFound              3   a check found something wrong

Each carries what happened (`str(error)`), the next thing to type (`hint`), and the code that the process exits with.
"""

from __future__ import annotations


class NumbError(Exception):
    """What happened, in one line, and what to type next."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Usage(NumbError):
    exit_code = 2


class ConfigError(NumbError):
    exit_code = 2


class HyperparameterError(ConfigError):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        if hint and hasattr(self, "add_note"):  # Python 3.11: for the traceback, as these are raised in scripts, too
            self.add_note(f"try: {hint}")


class NotLiteralNameException(HyperparameterError):
    pass


class NotLiteralEvaluable(HyperparameterError):
    pass


class ArgumentCountException(HyperparameterError):
    pass


class DoubleAssignmentException(HyperparameterError):
    pass


class ImpossibleTree(HyperparameterError, ValueError):
    pass


class UnknownHyperparameter(HyperparameterError, KeyError):
    __str__ = NumbError.__str__  # not KeyError's, which is the text in quotes


class NotARepository(NumbError):
    pass


class NotInitialised(NumbError):
    pass


class RunNotFound(NumbError, KeyError):
    __str__ = NumbError.__str__  # not KeyError's, which is the text in quotes


class ArtifactMissing(NumbError, KeyError):
    __str__ = NumbError.__str__


class TargetExists(NumbError):
    pass


class WouldOverwrite(NumbError):
    pass


class BranchInUse(NumbError):
    pass


class NotPossible(NumbError):
    pass


class ObjectMissing(NumbError):
    pass


class ObjectCorrupt(NumbError):
    pass


class StoreTooNew(NumbError):
    pass


class StorageFailed(NumbError):
    exit_code = 125


class RemoteFailed(NumbError):
    exit_code = 125


class GitFailed(NumbError):
    exit_code = 125


class Refused(NumbError):
    exit_code = 125


class Interrupted(Refused):
    exit_code = 130


class CannotStart(NumbError):
    exit_code = 126


class CommandNotFound(NumbError):
    exit_code = 127


class ProblemsFound(NumbError):
    exit_code = 3


class Pruned(SystemExit):
    """Others were better by now: the script ends well, and what stands in its `finally` is done."""

    def __init__(self) -> None:
        super().__init__(0)


class Diverged(RuntimeError):
    """A guard (`--stop-on`) has ended the training; raised in the script by what was given the number."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line, whatever its class makes of that."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's own `__str__`
        text = ""
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def printable(text: str) -> str:
    """*text* without what a terminal would obey; a line break is spelled out too."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
