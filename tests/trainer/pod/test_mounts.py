"""The mounted files: a spec is read if it is the one that the operator made the pod for."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flashrun.api import pod as pod_contract
from flashrun.api.exits import Exit
from flashrun_trainer.init.init_container import run_init_container
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.pods import TrainerPod


def test_a_spec_that_cannot_be_read_is_reported(new_pod: Callable[..., TrainerPod]):
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


def mounts(path: Path, digest: str) -> PodMounts:
    return PodMounts.from_environment(
        {pod_contract.SPEC_VARIABLE: str(path), pod_contract.SPEC_DIGEST_VARIABLE: digest}
    )


def test_a_spec_of_another_digest_is_not_trained(tmp_path: Path) -> None:
    # The operator's tests are not in the trainer image, where this file is imported, too.
    from tests.plan import worlds

    config_map = worlds.World(worlds.make_run()).settled().observed.config_map
    assert config_map is not None
    text = config_map["data"]["spec.json"]
    path, digest = tmp_path / "spec.json", hashlib.sha256(text.encode()).hexdigest()

    path.write_text(text)
    assert mounts(path, digest).run().run.uid == worlds.UID
    path.write_text(text.replace('"seed": ', '"seed": 1'))
    with pytest.raises(TrainerError, match="not the one that the pod was made for") as error:
        mounts(path, digest).run()
    assert error.value.code == Exit.INTERRUPTED_UNSAVED
