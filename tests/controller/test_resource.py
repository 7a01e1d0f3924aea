"""The custom resource on a real API server: what may change, and what may be said at all."""

from typing import Any

import pytest

from flashrun.api import names
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Invalid
from tests.controller.stage import ENVIRONMENT, flash_run

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
FULL: dict[str, Any] = {
    "thinking": False,
    "environment": {
        "id": ENVIRONMENT,
        "params": {"a": 1, "deep": {"b": [1, 2]}},
        "pip": ["openai>=1"],
        "secrets": ["SERVICE_API_KEY"],
    },
    "train": {"epochs": 1, "learningRate": 0.001},
    "eval": {"split": "test", "every": 5},
    "workerEnv": {"FLAG": "on"},
    "wandb": {"project": "p"},
    "secretRefs": [{"name": "keys"}],
}

CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("another model", {"model": "Qwen/Qwen3.5-2B"}),
    ("another algorithm", {"algorithm": "grpo"}),
    ("thinking turned on", {"thinking": True}),
    ("thinking left out", {"thinking": None}),
    ("another environment", {"environment": {"id": "org/other"}}),
    ("another parameter", {"environment": {"params": {"a": 2}}}),
    ("a parameter more", {"environment": {"params": {"c": 1}}}),
    ("a parameter less", {"environment": {"params": {"a": None}}}),
    ("a parameter of another type", {"environment": {"params": {"a": "1"}}}),
    ("a parameter deep down", {"environment": {"params": {"deep": {"b": [1, 3]}}}}),
    ("no parameters", {"environment": {"params": None}}),
    ("another package", {"environment": {"pip": ["openai>=2"]}}),
    ("no packages", {"environment": {"pip": None}}),
    ("another secret", {"environment": {"secrets": ["OTHER_KEY"]}}),
    ("a knob changed", {"train": {"epochs": 2}}),
    ("a knob more", {"train": {"maxSteps": 5}}),
    ("a knob less", {"train": {"learningRate": None}}),
    ("another split", {"eval": {"split": "exam"}}),
    ("fewer evaluations", {"eval": {"every": 10}}),
    ("no evaluation", {"eval": {"enabled": False}}),
    ("the default evaluation", {"eval": None}),
    ("a variable changed", {"workerEnv": {"FLAG": "off"}}),
    ("a variable more", {"workerEnv": {"MORE": "x"}}),
    ("no variables", {"workerEnv": None}),
    ("another project", {"wandb": {"project": "q"}}),
    ("no project", {"wandb": None}),
    ("another source of secrets", {"secretRefs": [{"name": "other"}]}),
    ("no source of secrets", {"secretRefs": None}),
]


async def change(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> None:
    await cluster.patch(names.KIND, namespace, RUN, {"spec": spec})


@pytest.mark.parametrize("spec", [case[1] for case in CHANGES], ids=[case[0] for case in CHANGES])
async def test_a_run_is_what_was_submitted(cluster: Cluster, namespace: str, spec: dict[str, Any]):
    await cluster.create(flash_run(namespace, RUN, **FULL))
    with pytest.raises(Invalid, match="cannot change once the run exists"):
        await change(cluster, namespace, spec)


@pytest.mark.parametrize(
    "added",
    [
        {"thinking": True},
        {"environment": {"params": {"a": 1}}},
        {"environment": {"secrets": ["KEY_A"]}},
        {"eval": {"maxExamples": 8}},
        {"workerEnv": {"A": "b"}},
        {"wandb": {"project": "p"}},
        {"secretRefs": [{"name": "keys"}]},
    ],
    ids=lambda added: ".".join(added),
)
async def test_what_was_left_out_cannot_be_added(
    cluster: Cluster, namespace: str, added: dict[str, Any]
):
    await cluster.create(flash_run(namespace, RUN))
    with pytest.raises(Invalid, match="cannot change once the run exists"):
        await change(cluster, namespace, added)


@pytest.mark.parametrize(
    "project", ["my-team/reading-club", "a\\b", "a#b", "a?b", "a%b", "x" * 129]
)
async def test_a_project_that_weights_and_biases_refuses_is_refused(
    cluster: Cluster, namespace: str, project: str
):
    with pytest.raises(Invalid, match=r"spec\.wandb\.project"):
        await cluster.create(flash_run(namespace, RUN, wandb={"project": project}))
    await cluster.create(flash_run(namespace, RUN, wandb={"project": "reading club (é) [2]"}))


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        ({"every": -1}, r"spec\.eval\.every"),
        ({"every": 0}, r"spec\.eval\.every"),
        ({"maxExamples": 0}, r"spec\.eval\.maxExamples"),
        ({"samples": 1025}, r"spec\.eval\.samples"),
        ({"split": ""}, r"spec\.eval\.split"),
        ({"split": "../train"}, r"spec\.eval\.split"),
        ({"metric": "m" * 65}, r"spec\.eval\.metric"),
        ({"enabled": "yes"}, r"spec\.eval\.enabled"),
        ({"metric": "pass@4"}, "pass@k needs several answers"),
        ({"metric": "pass@4", "samples": 1}, "pass@k needs several answers"),
    ],
    ids=str,
)
async def test_an_evaluation_that_cannot_work_is_refused(
    cluster: Cluster, namespace: str, evaluation: dict[str, Any], sentence: str
):
    with pytest.raises(Invalid, match=sentence):
        await cluster.create(flash_run(namespace, RUN, eval=evaluation))


async def test_a_loss_judges_the_best_checkpoint_in_sft_only(cluster: Cluster, namespace: str):
    by_loss = {"metric": "loss"}
    with pytest.raises(Invalid, match="measured in SFT only"):
        await cluster.create(flash_run(namespace, RUN, algorithm="grpo", eval=by_loss))
    off = {"enabled": False, **by_loss}
    await cluster.create(flash_run(namespace, RUN, algorithm="grpo", eval=off))
    await cluster.create(flash_run(namespace, f"{RUN}-sft", eval=by_loss))


async def test_control_may_change_except_that_cancel_never_goes_back(
    cluster: Cluster, namespace: str
):
    await cluster.create(flash_run(namespace, RUN))
    for control in (
        {"suspend": True},
        {"suspend": False},
        {"saveRequest": "one"},
        {"saveRequest": "two"},
        {"cancel": True},
        {"suspend": True},
    ):
        await change(cluster, namespace, {"control": control})
    for back in ({"control": {"cancel": False}}, {"control": {"cancel": None}}, {"control": None}):
        with pytest.raises(Invalid, match="a cancelled run stays cancelled"):
            await change(cluster, namespace, back)


@pytest.mark.parametrize("name", ["1-starts-with-a-digit", "a" * 53, "has.dots", "ends-", "UPPER"])
async def test_a_name_that_children_cannot_carry_is_refused(
    cluster: Cluster, namespace: str, name: str
):
    with pytest.raises(Invalid, match=r"metadata\.name|RFC 1035|lower-case"):
        await cluster.create(flash_run(namespace, name))


@pytest.mark.parametrize(
    "hostile",
    [
        {"image": "evil"},
        {"nodeName": "node-1"},
        {"serviceAccountName": "admin"},
        {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]},
        {"command": ["sh"]},
    ],
    ids=lambda hostile: next(iter(hostile)),
)
async def test_nothing_of_a_pod_can_be_passed_through(
    cluster: Cluster, namespace: str, hostile: dict[str, Any]
):
    created = await cluster.create(flash_run(namespace, RUN, **hostile))
    assert not created["spec"].keys() & hostile.keys()


async def test_the_largest_run_still_fits(cluster: Cluster, namespace: str):
    params = {f"key-{number}": "x" * 200 for number in range(64)}
    await cluster.create(
        flash_run(namespace, "a" * 52, environment={"id": ENVIRONMENT, "params": params})
    )
