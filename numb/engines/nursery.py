"""A Python that has imported what takes long, and forks a process for each script that it is asked to run.

It is run by the interpreter that the scripts would have, with a socket for each of those who ask. A request is a datagram of
JSON with the descriptors of the script's standard streams; the answer is the process id, and later how the process has ended.
What has been forked ends as an interpreter does: threads are waited for, exit hooks are called, files are closed.

Nothing is forked once CUDA has been started, a thread of Python's runs, or torch has computed with several threads: such a
process could not go on. Then the answer is a refusal, and whoever has asked starts an interpreter instead.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import types
import weakref
from collections.abc import Collection, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from typing import Any, NoReturn

# What interpreters and libraries read when they start, by how it begins: whoever has another value needs one of its own.
_SHELLS = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_")
_LIBRARIES = ("OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "TORCH", "PYTORCH_")
AT_START = (*_SHELLS, *_LIBRARIES)
_PATH = "PYTHONPATH"
_PARALLEL, _SIDE = 1 << 18, 128  # numbers, and rows of a matrix, that torch takes several threads for
_PATIENCE, _LOOK = 10.0, 0.005  # seconds for that, and between two looks
_LONGEST = 1 << 20  # bytes of a request
# What is sent to a whole group, or by Slurm to all of a job, is for the scripts.
_THEIRS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def serve(descriptors: Sequence[int], modules: Sequence[str]) -> NoReturn:
    """Import *modules*, those that can be, and answer until nobody can ask any more."""
    signals = {number: signal.signal(number, signal.SIG_IGN) for number in _THEIRS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # who has started it holds it back
    asking = {number: socket.socket(fileno=number) for number in descriptors}
    began = dict(os.environ)
    for name in modules:
        with contextlib.suppress(Exception):  # the script's own import says what is wrong
            importlib.import_module(name)
    made = {name: value for name, value in os.environ.items() if began.get(name) != value}  # by what was imported
    gc.collect()
    gc.freeze()  # so that a collection in a child does not copy what is shared
    is_stuck = _children_hang()
    wake, bell = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(bell, False)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    is_said = False
    children: dict[int, int] = {}  # by process id, who has asked
    while asking:
        ready, _, _ = select.select([wake, *asking], [], [])
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 1 << 16)
            _tell_the_ended(asking, children)
        for number in ready:
            if number == wake or number not in asking:
                continue
            try:
                content, streams, _, _ = socket.recv_fds(asking[number], _LONGEST, 3)
            except OSError:
                content, streams = b"", []
            if not content:
                asking.pop(number).close()
                continue
            asked = json.loads(content)
            why = "a module has used threads that a fork does not have" if is_stuck else _why_not(asked, began)
            if why and not is_said:
                is_said = True
                print(f"numb: scripts are started cold, because {why}", file=sys.stderr, flush=True)
            pid = 0
            if why is None:
                signal.pthread_sigmask(
                    signal.SIG_BLOCK, _THEIRS
                )  # so that none is lost which comes before it can be heard
                try:
                    pid = os.fork()
                except OSError as error:
                    why = f"no process can be forked: {error.strerror}"
            if why is None and pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, before)
                for number, handler in signals.items():
                    signal.signal(number, handler)
                os.close(wake)
                os.close(bell)
                for who in asking.values():
                    who.close()
                _become(asked, streams, began, made)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _THEIRS)
            for stream in streams:
                os.close(stream)
            if pid:
                children[pid] = number
            with contextlib.suppress(OSError):
                asking[number].send(json.dumps({"pid": pid, "refused": why}).encode())
    os._exit(0)


def _children_hang() -> bool:
    """Whether a forked process would wait for ever when it computes: a module has had torch do so by several threads."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            torch.ones(_PARALLEL).add_(1).sum()
            torch.ones(_SIDE, _SIDE) @ torch.ones(_SIDE, _SIDE)
        os._exit(0)
    until = time.monotonic() + _PATIENCE
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return True
        time.sleep(_LOOK)
    return False


def _why_not(asked: dict[str, Any], began: Mapping[str, str]) -> str | None:
    """Why what is asked for cannot be forked here, where an interpreter *began* in this environment; None where it can."""
    if at_start(asked["environment"]) != at_start(began):
        return "their environment is another one"
    if hidden := _hidden(asked, began):
        return f"{hidden}, which the script would find, has the name of a module that is imported here"
    if threading.active_count() > 1:
        return "a module has started a thread"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "a module has started CUDA"
    return None


def _hidden(asked: dict[str, Any], began: Mapping[str, str]) -> str | None:
    """A file beside the script that its imports would find, and that are done here: to an interpreter it comes first.

    Or one in a folder that only the script is to look in.
    """
    folder = os.path.dirname(os.path.realpath(os.path.join(asked["cwd"], asked["words"][0])))
    other = asked["environment"].get(_PATH) != began.get(_PATH)
    for each in [folder, *(_folders(asked["environment"], asked["cwd"]) if other else ())]:
        with contextlib.suppress(OSError):
            for name in os.listdir(each):
                module = sys.modules.get(name.partition(".")[0])
                is_one = name.endswith((".py", ".so")) or (each != folder and os.path.isdir(os.path.join(each, name)))
                if module is not None and is_one and not _is_below(module, each):
                    return str(name)
    return None


def _folders(environment: Any, cwd: str) -> list[str]:
    path = environment.get(_PATH)
    return [os.path.join(cwd, folder) for folder in path.split(os.pathsep)] if path else []


def _look_in(asked: dict[str, Any], began: Mapping[str, str]) -> None:
    """Look for modules where an interpreter with the environment that is asked for does."""
    before = _folders(began, os.getcwd())
    sys.path[:] = _folders(asked["environment"], asked["cwd"]) + [each for each in sys.path if each not in before]


def _is_below(module: types.ModuleType, folder: str) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(folder + os.sep)


def at_start(environment: Any) -> dict[str, str]:
    """What of an environment is read when an interpreter starts, but for where modules are: see `_look_in`."""
    return {name: value for name, value in environment.items() if name.startswith(AT_START) and name != _PATH}


def _tell_the_ended(asking: dict[int, socket.socket], children: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        who = children.pop(pid, None)
        if who in asking:
            with contextlib.suppress(OSError):
                asking[who].send(json.dumps({"pid": pid, "status": os.waitstatus_to_exitcode(status)}).encode())


def _become(
    asked: dict[str, Any], streams: Sequence[int], began: Mapping[str, str], made: Mapping[str, str]
) -> NoReturn:
    """Be the script, as `python script` is it, in a process that was forked for it."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    words: list[str] = asked["words"]
    with contextlib.suppress(OSError):
        os.chdir(asked["cwd"])
    if (
        torch := sys.modules.get("torch")
    ) and torch.cuda._is_in_bad_fork():  # a module has asked whether there is a GPU
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _THEIRS)
        os.execve(asked["executable"], [asked["executable"], *words], asked["environment"])
    _look_in(asked, began)
    os.environ.clear()
    os.environ.update({**asked["environment"], **made})
    sys.orig_argv[:] = [asked["executable"], *words]
    sys.argv[:] = words
    if not getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, os.path.dirname(os.path.realpath(words[0])))
    importlib.invalidate_caches()
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()  # another for each, as when it is imported
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()
    _run(os.path.abspath(words[0]))


def _run(script: str) -> NoReturn:
    known = set(sys.modules)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", script)
    vars(main).update(
        __annotations__={}, __builtins__=__builtins__, __cached__=None, __file__=script, __loader__=loader
    )
    code, is_interrupted = 0, False
    try:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _THEIRS)
            with open(script, "rb") as file:
                compiled = compile(file.read(), script, "exec", dont_inherit=True)
            exec(compiled, vars(main))
        except SystemExit as error:
            code = _code(error)
        except BaseException as error:
            code, is_interrupted = 1, isinstance(error, KeyboardInterrupt)
            _tell(error)
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter's own end does
    except BaseException as error:  # Ctrl-C meanwhile
        is_interrupted = isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error, error.__traceback__)
    _end(code, is_interrupted, known)


def _tell(error: BaseException) -> None:
    """Do with an error what the interpreter does with one that nobody has caught."""
    trace = error.__traceback__ and error.__traceback__.tb_next  # without this module's function
    error.__traceback__ = trace
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.excepthook(type(error), error, trace)


def _code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    with contextlib.suppress(Exception):
        print(error.code, file=sys.stderr)
    return 1


def _end(code: int, is_interrupted: bool, known: Collection[str]) -> NoReturn:
    """End the process: exit hooks, then what the script itself has made is let go, as files that it has not closed.

    What was there before it is not taken apart: that takes half a second of torch, and is of no use.
    """
    atexit._run_exitfuncs()
    sys.last_type = sys.last_value = sys.last_traceback = None
    if sys.version_info >= (3, 12):
        sys.last_exc = None
    own = [name for name in reversed([*sys.modules]) if name not in known or name == "__main__"]
    modules = [weakref.ref(each) for each in map(sys.modules.pop, own) if isinstance(each, types.ModuleType)]
    gc.collect()
    for module in filter(None, [each() for each in modules]):  # as the interpreter takes apart what is still held
        for name in sorted(vars(module), key=lambda name: not name.startswith("_")):
            if not name.startswith("__"):
                vars(module)[name] = None
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception:
            code = 120  # as the interpreter says it
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)  # what C code has printed
    if is_interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)
