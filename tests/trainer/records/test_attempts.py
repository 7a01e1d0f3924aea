"""Claims: each pod has an attempt of its own."""

from flashrun.api import names
from flashrun.api.records import Claim, StorageAccess
from flashrun.store import Store
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.records import attempts
from tests.trainer.pods import resolved


def test_two_pods_claim_two_attempts(access: StorageAccess):
    run, store = resolved("sft"), Store(access)
    pods = [PodMounts.from_environment({"FLASHRUN_POD_UID": f"uid-{n}"}) for n in (1, 2)]
    first, second = (attempts.claim_attempt(store, run, pod) for pod in pods)
    assert (first.number, second.number) == (1, 2)
    second.confirm()
    claim = store.get_json(names.claim_key(first.prefix, 1), Claim)
    assert claim.pod_uid == "uid-1"
