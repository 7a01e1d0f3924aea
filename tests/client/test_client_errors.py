"""The exceptions of the client: one class, and the sentences of the command line."""

import pickle

import pytest

from flashrun.cli.config.problems import ConfigError, Origin, Problem
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.client import (
    DoesNotExist,
    FlashRunError,
    InvalidConfig,
    InvalidRequest,
    MissingPackage,
    RunFailed,
    RunState,
)
from flashrun.client.client_errors import public_errors
from flashrun.cluster_errors import Forbidden, NoCluster, NotFound
from flashrun.store_errors import KeyNotFound, Unavailable
from tests.cli.golden import golden_run

PROBLEMS = [Problem(Origin("config", 3), "a is wrong"), Problem(Origin("overrides"), "b, too")]
RAISED: list[tuple[Exception, type[FlashRunError], str]] = [
    (Failure("It broke.", "Mend it."), FlashRunError, "It broke.\nhint: Mend it."),
    (Failure("It broke."), FlashRunError, "It broke."),
    (NotFoundFailure("there is none", "make one"), DoesNotExist, "there is none\nhint: make one"),
    (UsageFailure("not so"), InvalidRequest, "not so"),
    (ConfigError(PROBLEMS), InvalidConfig, "config:3: a is wrong\noverrides: b, too"),
    (NotFound("no such object"), DoesNotExist, "no such object"),
    (KeyNotFound("no such key"), DoesNotExist, "no such key"),
    (NoCluster("no kubeconfig"), InvalidRequest, "no kubeconfig"),
    (Forbidden("you may not"), FlashRunError, "you may not"),
    (Unavailable("storage is away"), FlashRunError, "storage is away"),
    (OSError(28, "No space left", "a/b"), FlashRunError, "a/b: No space left"),
]


@pytest.mark.parametrize(("error", "kind", "text"), RAISED, ids=lambda item: str(item)[:40])
def test_everything_that_the_layers_below_raise_becomes_one_of_the_public_class(
    error: Exception, kind: type[FlashRunError], text: str
) -> None:
    with pytest.raises(FlashRunError) as caught, public_errors():
        raise error

    assert type(caught.value) is kind
    assert str(caught.value) == text
    assert caught.value.__suppress_context__  # a notebook shows this one alone


def test_a_mistake_in_this_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), public_errors():
        _ = 1 / 0


ERRORS = [
    FlashRunError("a", "b"), InvalidRequest("a"), InvalidConfig("a", "b"), DoesNotExist("a", "b"),
    MissingPackage("a", "b"), RunFailed(RunState(golden_run("failed"))),
]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_reaches_another_process_as_it_is(error: FlashRunError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
