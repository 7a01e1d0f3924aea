"""The termination message: without secrets, and never too long for the kubelet."""

from collections.abc import Callable

import pytest

from flashrun.api.exits import Termination
from flashrun.api.records import StorageAccess
from flashrun_trainer.pod.trainer_errors import TrainerError
from flashrun_trainer.records import termination
from tests.trainer.pods import TrainerPod


def test_the_current_storage_keys_are_hidden(new_pod: Callable[..., TrainerPod]):
    pod = new_pod()
    redact = termination.pod_redactor(pod.inside)
    place = pod.inside.storage
    access = StorageAccess.model_validate_json(place.read_bytes())
    place.unlink()
    place.write_text(access.model_copy(update={"secret_key": "renewed-key"}).model_dump_json())
    assert redact(f"renewed-key after {access.secret_key}") == "*** after ***"
    place.unlink()
    assert redact("renewed-key") == "***"


def test_an_error_with_lone_surrogates_is_reported(new_pod: Callable[..., TrainerPod]):
    pod = new_pod()
    end = termination.end_with_error(
        ValueError("no \ud83d here"), pod.inside, termination.pod_redactor(pod.inside)
    )
    assert end == 1
    assert pod.termination.message == r"the trainer failed with ValueError: no \ud83d here"


@pytest.mark.parametrize("word", ["x", "語", '"'])
def test_a_long_message_reaches_the_kubelet_whole(new_pod: Callable[..., TrainerPod], word: str):
    pod = new_pod()
    error = TrainerError(75, "StorageUnavailable", word * 5000, hint=word * 5000)
    termination.end_with_error(error, pod.inside, termination.pod_redactor(pod.inside))
    kept = (pod.folder / "termination").read_bytes()[-4096:]
    assert Termination.model_validate_json(kept).reason == "StorageUnavailable"
