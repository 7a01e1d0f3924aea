"""Commands that follow a run for longer than ten bearer tokens are valid, on a real API server.

``FLASHRUN_TOKEN_SECONDS=20`` takes tokens of 20 seconds, which takes some minutes.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cli.following import Following, ForegroundTrain, Stage, wait_until
from tests.cli.shell import Served
from tests.servers import kubectl
from tests.short_tokens import ShortTokens

SECONDS = int(os.environ.get("FLASHRUN_TOKEN_SECONDS", "4"))
TOKENS = 11
LIMIT = 30.0 * SECONDS + 60


@pytest.fixture
def person(served: Served, short_tokens: ShortTokens) -> Callable[[str], Served]:
    """The same namespace for somebody whose tokens have a name of their own."""

    def make(name: str) -> Served:
        own = served.flash.folder / f"{name}.kubeconfig"
        assert served.flash.kubeconfig is not None
        short_tokens.kubeconfig(served.flash.kubeconfig, own, name, SECONDS)
        return replace(served, flash=replace(served.flash, kubeconfig=own))

    return make


def test_a_token_is_refused_when_it_has_ended(
    person: Callable[[str], Served], short_tokens: ShortTokens
) -> None:
    """What the other test rests on."""
    kubeconfig = person("ended").flash.kubeconfig
    assert kubeconfig is not None
    assert "default" in kubectl(kubeconfig, "get", "serviceaccounts", "default")
    (token,) = short_tokens.accepted["ended"]
    own = kubeconfig.with_name("fixed.kubeconfig")
    own.write_text(kubeconfig.read_text())
    kubectl(own, "config", "set-credentials", "fixed", "--token", token)
    kubectl(own, "config", "set-context", "--current", "--user", "fixed")

    def is_refused() -> bool:
        try:
            kubectl(own, "get", "serviceaccounts", "default")
        except subprocess.CalledProcessError as error:
            return "Unauthorized" in error.stderr or "logged in" in error.stderr
        return False

    wait_until(is_refused)


def test_following_a_run_outlives_ten_tokens(
    stage: Stage, person: Callable[[str], Served], short_tokens: ShortTokens
) -> None:
    first = stage.pod(1)
    first.write("first line")
    stage.report(phase="Running", **stage.attempts(1))
    log, status, train = (person(name) for name in ("log", "status", "train"))

    def used(name: str) -> int:
        return len(short_tokens.accepted.get(name, ()))

    with (
        Following(replace(stage, served=log), "log", stage.run, "-f", seconds=LIMIT) as lines,
        Following(
            replace(stage, served=status), "status", stage.run, "-f", seconds=LIMIT
        ) as watched,
        ForegroundTrain(train) as (submitted, process),
    ):
        lines.wait_for("first line")
        for name in ("log", "status", "train"):
            wait_until(lambda name=name: used(name) >= TOKENS, LIMIT)
        first.write("a line on the stream that the first token opened")
        stage.ended(1)
        second = stage.pod(2)
        stage.report(phase="Running", **stage.attempts(1, 2))
        second.write("a line of the second attempt")
        lines.wait_for("a line of the second attempt")
        stage.ended(2)
        for run in (stage.run, submitted):
            stage.served.report(run, phase="Succeeded", adapter={"ref": run, "bytes": 1})
        assert lines.finish()[1] == 0
        assert watched.finish()[1] == 0
        assert process.wait(timeout=60) == 0
    assert "a line on the stream that the first token opened" in lines.seen
    assert not [token for token in short_tokens.refused if ".ended." not in token]
