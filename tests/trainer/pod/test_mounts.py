"""The mounted files: a spec that cannot be read is reported."""

import json
from collections.abc import Callable

from flashrun_trainer.init.init_container import run_init_container
from tests.trainer.pods import TrainerPod


def test_a_spec_that_cannot_be_read_is_said_in_words(new_pod: Callable[..., TrainerPod]):
    pod = new_pod()
    plain = {**json.loads((pod.folder / "access.json").read_text()), "session_token": ""}
    (pod.folder / "access.json").write_text(json.dumps(plain))
    (pod.folder / "spec.json").write_text("{}")
    assert (
        run_init_container("test", lambda inside: inside.run() and None, lambda _: "", pod.inside)
        == 64
    )
    assert pod.termination.reason == "SpecInvalid"
    assert pod.termination.message.startswith("the resolved spec ")
