"""What ``helm test`` runs in a pod: the operator answers, and storage does what runs need.

``python -m flashrun.controller.release_check --settings platform.yaml --operator URL``. Its exit
code is 0 if both hold; otherwise it prints a sentence for each that does not.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError

from flashrun.api import names
from flashrun.controller.settings import KEYS_FOLDER, Settings, SettingsError, load_settings
from flashrun.controller.storage_access import assume
from flashrun.store_errors import StoreError
from flashrun.store_probe import StoreProbe

OPERATOR_SECONDS: Final = 60.0
"""How long to wait for the operator: a Service that was just made takes a moment."""
_PAUSE_SECONDS: Final = 1.0
_INSTALLATION: Final = "helm-test"
"""Where in storage it tries: beside the places of operators."""


def main() -> int:
    """Check the release; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flashrun.controller.release_check")
    parser.add_argument("--settings", type=Path, required=True, help="settings of the platform")
    parser.add_argument(
        "--storage-keys", type=Path, default=KEYS_FOLDER, help="folder of the storage keys"
    )
    parser.add_argument("--operator", required=True, help="address of the operator's probes")
    arguments = parser.parse_args()
    try:
        settings = load_settings(arguments.settings, arguments.storage_keys)
    except SettingsError as error:
        _say(f"fail settings: {error}")
        return 1
    problems = [*_operator_problems(arguments.operator), *_storage_problems(settings)]
    for problem in problems:
        _say(f"fail {problem}")
    return 1 if problems else 0


def _operator_problems(address: str) -> Iterator[str]:
    """Yield why no replica is ready, after it has had time."""
    end, problem = time.monotonic() + OPERATOR_SECONDS, ""
    with urllib3.PoolManager(timeout=5.0, retries=False) as pool:
        while time.monotonic() < end:
            try:
                answer = pool.request("GET", f"{address}/readyz")
                problem = "" if answer.status == 200 else answer.data.decode(errors="replace")
            except HTTPError as error:
                problem = f"no answer from {address} ({type(error).__name__}); is a pod running?"
            if not problem:
                _say("ok   operator: a replica is ready")
                return
            time.sleep(_PAUSE_SECONDS)
    yield f"operator: {problem[:500]}"


def _storage_problems(settings: Settings) -> Iterator[str]:
    """Yield what storage lacks, tried with the operator's own keys."""
    storage = settings.platform.storage
    try:
        store = settings.open_store()
        probe = StoreProbe(store, names.operator_probe_prefix(_INSTALLATION))
        findings = probe.examine(
            (lambda policy: assume(store, storage, policy, storage.credentials_seconds))
            if storage.sts
            else None
        )
        for finding in findings:
            if finding.problem:
                yield f"storage: {finding.of}: {finding.problem}"
            else:
                _say(f"ok   storage: {finding.of}")
    except StoreError as error:
        yield f"storage: {error}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
