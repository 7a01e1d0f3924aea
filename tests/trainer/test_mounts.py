"""The spec that a pod reads is the one that the operator made the pod for."""

import hashlib
from pathlib import Path

import pytest

from flashrun.api import pod
from flashrun.api.exits import Exit
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.plan import worlds

pytestmark = pytest.mark.trainer


def mounts(path: Path, digest: str) -> PodMounts:
    return PodMounts.from_environment(
        {pod.SPEC_VARIABLE: str(path), pod.SPEC_DIGEST_VARIABLE: digest}
    )


def test_a_spec_of_another_digest_is_not_trained(tmp_path: Path) -> None:
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
