"""Standard output and error of the process, whatever they lead to: a pipe, a full disk, nothing."""

import os
import sys
from typing import TextIO


def prepare_streams() -> None:
    """Make both streams such that a text of any letters can be written to them.

    Cron jobs and services may start a program with closed streams; what it prints is then dropped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            # Otherwise the next file or connection would get the number of the stream.
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
        elif name != "stdin":
            # An encoding that lacks a letter must not end the command.
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]


def discard(stream: TextIO) -> None:
    """Drop what is still to be written, so that the interpreter does not fail at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
