"""Whatever standard output and error lead to, a command ends with its exit code and a sentence."""

import os
import subprocess

import pytest

from flashrun.cli.output.failure import ExitCode
from tests.cli.shell import Shell

COMMANDS = [
    (("version",), ExitCode.OK),
    (("--help",), ExitCode.OK),
    (("env", "--help"), ExitCode.OK),
    (("models", "--offline"), ExitCode.OK),  # with a note on standard error
    (("train", "config.toml", "--dry-run"), ExitCode.OK),
    (("train",), ExitCode.USAGE),
    (("explain", "stepz"), ExitCode.USAGE),
    (("status", "UPPER"), ExitCode.NOT_FOUND),
]
ENDINGS = pytest.mark.parametrize(
    ("words", "code"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS]
)


def run(shell: Shell, words: tuple[str, ...], redirections: str) -> tuple[int, str]:
    """Run ``flash`` with streams as a shell redirects them; return exit code and what is left."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *shell.argv(*words)],
        env=shell.environment,
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed
    assert "Exception ignored" not in printed
    return done.returncode, printed


@ENDINGS
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(
    shell: Shell, words: tuple[str, ...], code: ExitCode, closed: str
) -> None:
    assert run(shell, words, closed)[0] == code


@ENDINGS
def test_a_full_disk_below_standard_error_changes_nothing(
    shell: Shell, words: tuple[str, ...], code: ExitCode
) -> None:
    assert run(shell, words, "2>/dev/full")[0] == code


@ENDINGS
def test_a_full_disk_below_the_answer_is_named(
    shell: Shell, words: tuple[str, ...], code: ExitCode
) -> None:
    ending, printed = run(shell, words, ">/dev/full")

    assert ending == (ExitCode.RUN_FAILED if code is ExitCode.OK else code)
    assert ("error: No space left on device\n" in printed) == (code is ExitCode.OK)


@ENDINGS
def test_full_disks_below_both_leave_the_exit_code(
    shell: Shell, words: tuple[str, ...], code: ExitCode
) -> None:
    ending, _ = run(shell, words, ">/dev/full 2>/dev/full")

    assert ending == (ExitCode.RUN_FAILED if code is ExitCode.OK else code)


@ENDINGS
def test_a_reader_who_has_enough_is_not_an_error(
    shell: Shell, words: tuple[str, ...], code: ExitCode
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(
            shell.argv(*words),
            env=shell.environment,
            cwd=shell.folder,
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == code
    assert "Traceback" not in done.stderr


@ENDINGS
def test_a_pipe_of_another_encoding_gets_what_it_can(
    shell: Shell, words: tuple[str, ...], code: ExitCode
) -> None:
    shell.variables["PYTHONIOENCODING"] = "ascii"
    assert run(shell, words, "")[0] == code
