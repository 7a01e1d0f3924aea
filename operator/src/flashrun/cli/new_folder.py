"""Folders that a command is to make, to which what it has made is moved as a whole."""

from pathlib import Path

from flashrun.cli.output.failure import UsageFailure


def refuse_taken_folder(folder: Path) -> None:
    """Raise ``UsageFailure`` if no folder can be moved to ``folder``; an empty one is replaced.

    Raises:
        OSError: it cannot be looked at.
    """
    if folder.is_symlink():
        raise UsageFailure(f"{folder} is a symbolic link", "name a new folder")
    if not folder.exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UsageFailure(f"{folder} exists already", "name a new folder")
    mounted = folder.resolve().is_mount()
    if mounted or folder.samefile(Path.cwd()):
        what = "a mounted volume" if mounted else "the folder that you are in"
        raise UsageFailure(
            f"{folder} is {what}, and a folder cannot take its place", "name a new folder in it"
        )


def expanded(what: str, text: str) -> Path:
    """Return a path in which ``~`` is the user's folder; ``what`` is the argument in messages.

    Raises:
        UsageFailure: the user that it names does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageFailure(
            f"{what} {text} is not a path: {error}", "write the whole path, without ~"
        ) from None
