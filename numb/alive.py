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
    return bool(pid and token) and known.get("boot") == boot_id() and start_token(int(pid or 0)) == token
