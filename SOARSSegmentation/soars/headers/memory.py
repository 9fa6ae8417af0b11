"""Whether a volume fits into the memory that is free, before it is asked for."""

from __future__ import annotations

from pathlib import Path

from soars.errors import InputError


def check_memory(wanted: int, path: Path | str) -> None:
    """Raise `InputError` when ``wanted`` bytes are more than the computer has free. Linux overcommits memory, and
    kills the program that uses it."""
    free = free_memory()
    if free is not None and wanted > free:
        raise InputError(
            f"{path}: needs {wanted / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; close other programs, "
            "or is its size wrong?"
        )


def free_memory() -> int | None:
    """Bytes that a program can still allocate, swap included; None where the system does not say (all but Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    if "MemAvailable" not in sizes:
        return None
    return 1024 * (int(sizes["MemAvailable"]) + int(sizes.get("SwapFree", "0")))
