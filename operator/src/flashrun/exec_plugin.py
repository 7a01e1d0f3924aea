"""Exec plugins: programs that a kubeconfig names, and that answer credentials.

The protocol is described in
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
The kubernetes package has it too, but takes longer to load than a short command takes in all.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


async def run_exec_plugin(plugin: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run the plugin in ``folder``'s kubeconfig, and return the status that it answers.

    Raises:
        OSError: there is no such program.
        ValueError: the plugin fails, or its answer is not a status.
        KeyError: the kubeconfig names no command or no version.
    """
    version, command = str(plugin["apiVersion"]), str(plugin["command"])
    if os.sep in command:  # beside the kubeconfig, when it is not absolute
        command = str(folder / command)
    information = {
        "apiVersion": version,
        "kind": "ExecCredential",
        "spec": {"interactive": sys.stdin is not None and sys.stdin.isatty()},
    }
    variables = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()}
    process = await asyncio.create_subprocess_exec(
        command,
        *map(str, plugin.get("args") or ()),
        env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(information)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    answer, complaint = await process.communicate()
    if process.returncode:
        sentence = complaint.decode(errors="replace").strip()
        raise ValueError(
            f"exec: process returned {process.returncode}" + (f": {sentence}" if sentence else "")
        )
    return _status(answer, version)


def _status(answer: bytes, version: str) -> dict[str, Any]:
    try:
        credential = json.loads(answer)
        answered, status = credential["apiVersion"], credential["status"]
    except (ValueError, LookupError, TypeError):
        raise ValueError("exec: the plugin does not answer an ExecCredential") from None
    if answered != version:
        raise ValueError(f"exec: the plugin answers version {answered}, not {version}")
    if not isinstance(status, dict):
        raise ValueError("exec: the plugin answers no status")
    return status
