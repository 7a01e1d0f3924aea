"""What the Python client raises: the sentences of the command line, as exceptions of one class."""

import contextlib
from collections.abc import Iterator

from flashrun.cli.cluster.connection import errors_as_failures
from flashrun.cli.config.problems import ConfigError
from flashrun.cli.output.failure import Failure, NotFoundFailure, UsageFailure
from flashrun.client.run_state import RunState


class FlashRunError(Exception):
    """What was asked could not be done; ``str`` is what the command line prints about it."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence, hint)
        self.sentence = sentence
        """What happened, and where."""
        self.hint = hint
        """What to do; empty when the sentence says it."""

    def __str__(self) -> str:
        """Return the sentence, and the hint on a line of its own."""
        return f"{self.sentence}\nhint: {self.hint}" if self.hint else self.sentence


class InvalidRequest(FlashRunError):
    """The call is wrong, the platform refuses it, or no kubeconfig can be used."""


class InvalidConfig(InvalidRequest):
    """A config cannot be used, and nothing was submitted."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.args = problems
        self.problems = problems
        """Everything that is wrong with it, one sentence each, with its place."""


class DoesNotExist(FlashRunError):
    """What the call names does not exist."""


class MissingPackage(FlashRunError):
    """A Python package that the call needs is not installed."""


class RunFailed(FlashRunError):
    """A run that was waited for did not succeed."""

    def __init__(self, state: RunState) -> None:
        super().__init__(state.sentence)
        self.args = (state,)
        self.state = state
        """The run as it ended."""


@contextlib.contextmanager
def public_errors() -> Iterator[None]:
    """Raise what goes wrong as ``FlashRunError``."""
    try:
        with errors_as_failures():
            yield
    except ConfigError as error:
        raise InvalidConfig(*map(str, error.problems)) from None
    except NotFoundFailure as error:
        raise DoesNotExist(error.sentence, error.hint) from None
    except UsageFailure as error:
        raise InvalidRequest(error.sentence, error.hint) from None
    except Failure as error:
        raise FlashRunError(error.sentence, error.hint) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise FlashRunError(f"{place}{error.strerror or error}") from None
