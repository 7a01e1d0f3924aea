"""Where an export goes: a new folder, a new prefix of S3, or a repository of the model hub."""

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from flashrun.cli.models.handoff_files import DIGESTS
from flashrun.cli.new_folder import expanded, refuse_taken_folder
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.hub_waits import bound_hub_waits

if TYPE_CHECKING:
    from flashrun.store import Store

_S3: Final = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<prefix>[^/].*)")
_HUB: Final = re.compile(r"hf:(?P<id>[^/]+/[^/]+)")
_OTHER_SCHEME: Final = re.compile(r"\w+://.*|(s3|hf):.*", re.ASCII | re.IGNORECASE)
"""What nobody means as the name of a folder."""
_EXTRA: Final = "pip install 'flashrun[models]'"


class FolderTarget(NamedTuple):
    """A new folder on this machine."""

    path: Path

    def __str__(self) -> str:
        """Return it as it was typed."""
        return str(self.path)

    @property
    def above(self) -> Path:
        """The nearest folder above it that exists: what is written there can be moved to it."""
        return next(folder for folder in self.path.absolute().parents if folder.exists())


class S3Target(NamedTuple):
    """A prefix of a bucket that has nothing below it."""

    bucket: str
    prefix: str
    """It ends with a slash."""

    def __str__(self) -> str:
        """Return its URL."""
        return f"s3://{self.bucket}/{self.prefix}"


class HubTarget(NamedTuple):
    """A repository of the model hub."""

    id: str

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"hf:{self.id}"


ExportTarget: TypeAlias = FolderTarget | S3Target | HubTarget


def parse_target(text: str) -> ExportTarget:
    """Return what ``--to`` names; raises ``UsageFailure`` if nothing can be written there."""
    if text.startswith("s3://"):
        if not (match := _S3.fullmatch(text)):
            raise UsageFailure(
                f"{text!r} names no prefix of a bucket", "use s3://BUCKET/PREFIX, a prefix at least"
            )
        return S3Target(match["bucket"], f"{match['prefix'].rstrip('/')}/")
    if text.startswith("hf:"):
        if not (match := _HUB.fullmatch(text)):
            raise UsageFailure(f"{text!r} names no repository of the hub", "use hf:ORG/NAME")
        if not importlib.util.find_spec("huggingface_hub"):
            raise UsageFailure(
                "writing to the hub needs huggingface_hub, which this Python does not have", _EXTRA
            )
        _check_repository(match["id"])
        return HubTarget(match["id"])
    if not text or _OTHER_SCHEME.fullmatch(text):
        raise UsageFailure(
            f"{text!r} is not a place to which an adapter can be written",
            "use the name of a new folder, s3://BUCKET/PREFIX, or hf:ORG/NAME",
        )
    folder = expanded("--to", text)
    if not (target := FolderTarget(folder)).above.is_dir():
        raise UsageFailure(f"{target.above} is not a folder", "name a new folder")
    refuse_taken_folder(folder)
    return target


def _check_repository(name: str) -> None:
    """Raise ``UsageFailure`` for a name that no repository of the hub can have."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageFailure(f"hf:{name} names no repository of the hub", str(error)) from None


def check_target(target: ExportTarget, variables: Mapping[str, str] = os.environ) -> None:
    """Refuse what ``deliver`` would refuse after a download, and hours of merging.

    Raises:
        UsageFailure: something is there already, or credentials are missing.
        StoreError: storage refuses.
    """
    match target:
        case S3Target(bucket, _):
            _refuse_taken(_open_store(bucket, variables), target)
        case HubTarget(repository):
            from huggingface_hub import get_token

            try:
                bound_hub_waits()
            except ImportError:
                raise UsageFailure(
                    "this Python's huggingface_hub is older than 1.0", _EXTRA
                ) from None
            if get_token() is None:
                raise UsageFailure(
                    f"writing to {repository} on the hub needs a token",
                    "export HF_TOKEN, a token that may write, and HF_ENDPOINT for another hub",
                )
        case FolderTarget():
            pass  # it was looked at when it was read


def deliver(folder: Path, target: ExportTarget, variables: Mapping[str, str] = os.environ) -> None:
    """Put the files in ``folder`` where they are to go; a folder is moved.

    Raises:
        UsageFailure: something is there already, or credentials are missing.
        Failure: the hub or the disk refuses.
        StoreError: storage refuses.
    """
    match target:
        case FolderTarget(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(path)
            except OSError as error:
                raise Failure(
                    f"{path} cannot be written: {error.strerror}", "name a new folder"
                ) from None
        case S3Target(bucket, _):
            _upload(folder, _open_store(bucket, variables), target)
        case HubTarget(repository):
            _publish(folder, repository)


def _open_store(bucket: str, variables: Mapping[str, str]) -> "Store":
    """Return the bucket, with the endpoint and the credentials that AWS's own programs read."""
    from flashrun.api.records import StorageAccess
    from flashrun.store import Store

    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
    access, secret = (
        variables.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    if not access or not secret:
        raise UsageFailure(
            f"writing to s3://{bucket} needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            "export them, and AWS_ENDPOINT_URL_S3 for a store other than AWS: the platform's own "
            "keys do not reach other buckets",
        )
    if not f"{access}{secret}{variables.get('AWS_SESSION_TOKEN', '')}".isprintable():
        raise UsageFailure(
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_SESSION_TOKEN has a line break or "
            "another control character",
            "export what the store has given you, in one line",
        )
    return Store(
        StorageAccess(
            endpoint=(endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/"),
            bucket=bucket,
            region=region,
            access_key=access,
            secret_key=secret,
            session_token=variables.get("AWS_SESSION_TOKEN", ""),
        )
    )


def _refuse_taken(store: "Store", target: S3Target) -> None:
    if next(iter(store.list(target.prefix)), None) is not None:
        raise UsageFailure(f"{target} has something in it already", "name a new prefix")


def _upload(folder: Path, store: "Store", target: S3Target) -> None:
    """Upload the files, and the list of their digests last: whoever sees it sees all of them."""
    _refuse_taken(store, target)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    wanted = dict(line.split("  ", 1)[::-1] for line in _lines(folder / DIGESTS))
    try:
        for name in sorted(names, key=lambda name: (name == DIGESTS, name)):
            sent = store.put_file(target.prefix + name, folder / name, wanted.get(name, ""))
            if sent.sha256 != wanted.get(name, sent.sha256):
                raise Failure(f"{name} was changed on this machine while it was uploaded")
    except BaseException:  # Ctrl-C, too
        terminal.note(
            f"{target} may have some of the files, without {DIGESTS}: delete what is below it, or "
            "name another prefix"
        )
        raise


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _publish(folder: Path, repository: str) -> None:
    """Upload the files in one commit; a new repository is private."""
    from huggingface_hub import HfApi

    bound_hub_waits()
    hub = HfApi()
    refused = True
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        refused = False
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export from FlashRun"
        )
    except Exception as error:  # the library also raises errors of the HTTP client beneath it
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not refused:
            _note_left_repository(repository)
        raise Failure(
            f"{repository} was not written on the hub: {why}",
            "check the id, and HF_ENDPOINT and HF_TOKEN of your shell",
        ) from None
    except BaseException:  # Ctrl-C; the request to create it may have arrived
        _note_left_repository(repository)
        raise


def _note_left_repository(repository: str) -> None:
    terminal.note(
        f"the private repository {repository} may exist on the hub, without these files: run the "
        "same command again, or delete it there"
    )
