"""The init container ``model``: downloads the base model into the model cache."""

import errno
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.exits import Exit
from flashrun.api.reasons import Activity, Reason
from flashrun.api.records import HubAccess, ResolvedRun
from flashrun.api.trainable_models import MODEL_FILES
from flashrun.hub_waits import bound_hub_waits
from flashrun.store import Store
from flashrun.store_errors import KeyNotFound, StorageForbidden, Unauthorized
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError, first_line

log = logging.getLogger(__name__)

_PUBLIC_HUB: Final = "https://huggingface.co"
_ABANDONED_SECONDS: Final = 6 * 3600
"""A partial download that has not changed for so long belongs to a pod that is gone."""


def run(pod: PodMounts) -> None:
    """Download the base model to its folder in the cache, unless it is there already."""
    spec = pod.run()
    folder = pod.model_folder(spec)
    if folder.exists():
        log.info("model %s is already in the cache", spec.model.id)
        return
    part = _partial_folder(pod, spec)
    shutil.rmtree(part, ignore_errors=True)
    _remove_abandoned_downloads(part.parent)
    if spec.model.source is Source.MIRROR:
        _from_mirror(pod.store(), spec, part)
    else:
        _from_hub(spec, part, pod.hub_access())
    # Move it in one step: another pod that shares the cache sees the whole model or none of it.
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(part)
    log.info("model %s is ready", spec.model.id)


def _remove_abandoned_downloads(folder: Path) -> None:
    """Remove partial downloads of pods that were stopped while they downloaded."""
    for part in folder.glob("*.part"):
        try:
            changed = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
        except OSError:  # a file has disappeared meanwhile: the download is still running
            continue
        if time.time() - changed > _ABANDONED_SECONDS:
            shutil.rmtree(part, ignore_errors=True)


def describe_activity(pod: PodMounts) -> str:
    """Return the activity for the heartbeat, with the size of what is downloaded so far."""
    files = (path for path in _partial_folder(pod, pod.run()).rglob("*") if path.is_file())
    # Parallel downloads leave holes in a file: count its blocks on disk, not its length.
    size = sum(path.stat().st_blocks * 512 for path in files)
    return Activity.DOWNLOADING.with_detail(f"{size / 2**30:.1f} GiB")


def _partial_folder(pod: PodMounts, run: ResolvedRun) -> Path:
    """Return the folder of an unfinished download: one per pod, because pods share the cache."""
    folder = pod.model_folder(run)
    return folder.with_name(f"{folder.name}.{pod.uid}.part")


def _from_mirror(store: Store, spec: ResolvedRun, folder: Path) -> None:
    prefix = names.model_prefix(spec.model.id, spec.model.revision)
    try:
        store.download_folder(prefix, folder)
    except Unauthorized:
        raise  # a failure of storage, not of the model
    except (KeyNotFound, StorageForbidden) as error:
        hint = "ask the platform's administrator to put the model into the mirror: flash model push"
        raise _unavailable(spec, str(error), hint) from None


def _from_hub(spec: ResolvedRun, folder: Path, access: HubAccess | None) -> None:
    """Download from the hub; credentials go only to the address that they are for."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    bound_hub_waits()
    if access is not None and access.endpoint != spec.hub_endpoint:
        access = None  # the platform has another hub than when this run began
    try:
        snapshot_download(
            spec.model.id,
            revision=spec.model.revision,
            endpoint=_address(spec.hub_endpoint, access) or None,
            token=access.token or None if access is not None else None,
            local_dir=folder,
            allow_patterns=list(MODEL_FILES),
        )
    except Exception as error:
        # The library wraps the hub's answers, and raises other types without a connection.
        answers = (cause for cause in _causes(error) if isinstance(cause, HfHubHTTPError))
        codes = (getattr(answer.response, "status_code", 0) for answer in answers)
        full = next((c for c in _causes(error) if getattr(c, "errno", 0) == errno.ENOSPC), None)
        if full is not None:
            raise full from error
        if status := next((code for code in codes if code in (401, 403, 404)), 0):
            raise _unavailable(
                spec,
                f"the hub answered {status}",
                "check the key model; the platform has to mirror a gated model, or to set "
                "trainer.hubSecret",
            ) from None
        raise _hub_unavailable(error) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _address(endpoint: str, access: HubAccess | None) -> str:
    """Return the address of the hub, with the user and the password that it asks for."""
    if access is None or not access.username:
        return endpoint
    user = ":".join(quote(part, safe="") for part in (access.username, access.password))
    scheme, _, rest = (endpoint or _PUBLIC_HUB).partition("://")
    return f"{scheme}://{user}@{rest}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unavailable(spec: ResolvedRun, why: str, hint: str) -> TrainerError:
    return TrainerError(
        Exit.MODEL_UNAVAILABLE,
        Reason.MODEL_UNAVAILABLE,
        f"model {spec.model.id} at revision {spec.model.revision} is not available: {why}",
        hint,
    )


def _hub_unavailable(error: Exception) -> TrainerError:
    return TrainerError(
        Exit.TEMPORARY,
        Reason.HUB_UNAVAILABLE,
        f"the model hub is not available: {first_line(str(error))}",
        "the run is retried; if it fails again, ask the platform's administrator to check the hub "
        "or to mirror the model",
    )
