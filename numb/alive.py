"""Whether a process is still the one that was meant: its number may have been given to another since."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def start_token(pid: int) -> str:
    """What tells a process from a later one with the same number; empty when it has ended or cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    except (OSError, IndexError):
        return ""


def boot_id() -> str:
    """What changes when the machine restarts."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def identity(pid: int | None = None) -> dict[str, Any]:
    """Name this process (or *pid*) so that `is_alive` can tell later whether it still runs."""
    number = os.getpid() if pid is None else pid
    return {"pid": number, "token": start_token(number), "boot": boot_id()}


def is_alive(known: Mapping[str, Any]) -> bool:
    """Whether the very process that *known* names still runs."""
    pid, token = known.get("pid"), known.get("token")
    if not (isinstance(pid, int) and token):
        return False
    return known.get("boot") == boot_id() and start_token(pid) == token


def whereabouts() -> dict[str, Any]:
    """Name this process so that `is_gone` can tell later, also on another machine that has the same files."""
    return {**identity(), "host": os.uname().nodename, "machine": _machine(), "namespace": _namespace()}


def is_gone(known: Mapping[str, Any]) -> bool | None:
    """Whether the process that `whereabouts` has named has ended; None where that cannot be told from here.

    A machine that has restarted since has ended it. Of another machine, or another container's processes, nothing is known.
    """
    if known.get("boot") == boot_id() and known.get("namespace") == _namespace():
        return not is_alive(known)
    if (known.get("host"), known.get("machine")) == (os.uname().nodename, _machine()) and _machine():
        return True if known.get("boot") != boot_id() else None
    return None


def is_here(known: Mapping[str, Any]) -> bool:
    """Whether `whereabouts` of this very process said that."""
    return "pid" in known and {**known, **whereabouts()} == dict(known)


def _machine() -> str:
    """What stays the same when the machine restarts; empty where it has no such name."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Which processes can be seen: a container has its own numbers for them."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
