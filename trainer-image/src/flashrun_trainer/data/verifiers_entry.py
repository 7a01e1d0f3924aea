"""Whether an unpacked package is an environment of ``verifiers``, read without importing it.

An init container asks, too, so this module needs nothing of what reads an environment.
"""

from pathlib import Path

from flashrun.api.verifiers_packages import ENTRY_FILE, PROJECT_FILE, VerifiersEntry, find_entry


def verifiers_entry(folder: Path) -> VerifiersEntry | None:
    """Return where the environment of ``verifiers`` in ``folder`` is; None for any other."""
    texts = (
        path.read_text("utf-8", "replace") if path.is_file() else None
        for path in (folder / ENTRY_FILE, folder / PROJECT_FILE)
    )
    return find_entry(*texts)
