"""The custom resource on a real API server: what may change, and what may be said at all."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.base import error_sentences
from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRun, FlashRunSpec, manifest
from flashrun.cluster import Cluster
from flashrun.cluster_errors import Invalid
from tests.controller.stage import ENVIRONMENT, MODEL, World, flash_run
from tests.servers import CRD, install_crd, kubectl

pytestmark = pytest.mark.api
RUN = "flash-1-0a1b2c3d"
FULL: dict[str, Any] = {
    "thinking": True,
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
    ("thinking turned off", {"thinking": False}),
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


WRITTEN_OUT: dict[str, Any] = {
    "thinking": False,
    "environment": {"params": {}, "pip": [], "secrets": []},
    "eval": {"enabled": True},
    "workerEnv": {},
    "wandb": {},
    "secretRefs": [],
    "floatParams": [],
    "control": {"suspend": False, "cancel": False, "saveRequest": ""},
}


async def test_a_spec_with_its_defaults_written_out_is_the_same_spec(
    cluster: Cluster, namespace: str, installed: Path
):
    """Programs that keep runs in git write them, and leave them out again."""
    short = flash_run(namespace, RUN)
    long = flash_run(namespace, RUN, **WRITTEN_OUT)
    long["spec"]["environment"] = {**short["spec"]["environment"], **WRITTEN_OUT["environment"]}
    for number, version in enumerate((short, long, short, long)):
        words = ("apply", "-f", "-") if number < 2 else ("replace", "-f", "-")
        await asyncio.to_thread(kubectl, installed, *words, stdin=json.dumps(version))
    found = await cluster.get(names.KIND, namespace, RUN)
    spec = FlashRun.from_manifest(found).spec
    assert spec.to_manifest() == FlashRunSpec.validate_manifest(short["spec"]).to_manifest()


async def test_params_keep_their_types_through_the_api_server(world: World):
    """The API server keeps 2.0 as 2; the trainer reads what the person wrote."""
    params = {"temperature": 2.0, "rates": [1.0, 1, 0.5], "deep": {"a/b": -3.0, "n": 3}, "s": "1e3"}
    environment = {"id": ENVIRONMENT, "params": params}
    config = RunConfig.validate_toml(
        {"model": MODEL, "algorithm": "sft", "environment": environment}
    )
    await world.cluster.create(manifest(RUN, world.namespace, FlashRunSpec.from_config(config)))
    await world.phase(RUN, "Starting")
    spec = json.loads((await world.spec_config_map(RUN))["data"][names.SPEC_KEY])
    kept = spec["environment"]["params"]
    assert json.dumps(kept, sort_keys=True) == json.dumps(params, sort_keys=True)


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


A_TOKEN = "hf_" + "abcdefghijklmnop"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("a reserved name", {"workerEnv": {"SEED": "1"}},
     "cannot be SEED, which is reserved: the platform sets it"),
    ("a reserved name as a secret", {"environment": {"secrets": ["HF_TOKEN"]}},
     "cannot be HF_TOKEN, which is reserved: the platform sets it"),
    ("a name that loads code", {"workerEnv": {"LD_PRELOAD": "/x.so"}},
     "cannot be LD_PRELOAD, which would change how the trainer itself runs"),
    ("a path of modules", {"workerEnv": {"PYTHONPATH": "/x"}},
     "cannot be PYTHONPATH, which would change how the trainer itself runs"),
    ("a name that takes the place of a program", {"environment": {"secrets": ["path"]}},
     "cannot be path, which would change how the trainer itself runs"),
    ("a name that is none", {"workerEnv": {"A-B": "1"}},
     "must be the name of an environment variable: letters, digits and '_', and no value"),
    ("the name of a secret", {"workerEnv": {"SERVICE_API_KEY": "x"}},
     "is the name of a secret: put its name in [environment].secrets"),
    ("the name of a secret in camel case", {"workerEnv": {"accessToken": "x"}},
     "is the name of a secret: put its name in [environment].secrets"),
    ("a token as a name", {"environment": {"secrets": [A_TOKEN]}},
     "looks like a Hugging Face token: write the name of a variable, not its value"),
    ("a token as a value", {"workerEnv": {"FLAG": f"x {A_TOKEN}"}},
     "looks like a Hugging Face token, which must not be in a spec"),
    ("an address with a password", {"workerEnv": {"FLAG": "redis://me:pw@host/1"}},
     "looks like a URL with a password, which must not be in a spec"),
    ("a bearer token", {"workerEnv": {"HEADER": "BEARER abcdefghijklmnop"}},
     "looks like a bearer token, which must not be in a spec"),
    ("an option of pip", {"environment": {"pip": ["--index-url=https://x.example"]}},
     "is an option of pip; only requirements are allowed"),
    ("a second line", {"environment": {"pip": ["openai\n--pre"]}},
     "must be one line: write one requirement per entry"),
    ("a folder of the machine", {"environment": {"pip": ["./x"]}},
     "is not a requirement (PEP 508)"),
    ("an adapter of no run", {"train": {"initFromAdapter": "../x"}},
     "is not an adapter reference: use <run> or <run>/step-N"),
    ("a count as a metric", {"eval": {"metric": "seconds"}},
     "cannot be 'seconds', which says nothing about the model"),
    ("a package of a repository", {"environment": {"pip": ["x @ git+https://x.example/x"]}},
     "names an address that does not begin with https://"),
    ("a package of the machine", {"environment": {"pip": ["x @ file:///etc/x.whl"]}},
     "names an address that does not begin with https://"),
    ("credentials of an index", {"environment": {"pip": ["x @ https://me@x.example/x.whl"]}},
     "names an address with credentials or a query, which must not be in a spec"),
    ("a query", {"environment": {"pip": ["x @ https://x.example/x.whl?key=1"]}},
     "names an address with credentials or a query, which must not be in a spec"),
    ("a folder in a package", {"environment": {"pip": ["x @ https://x.example/x.whl#a=b"]}},
     "names an address that ends in #…; only #sha256=… is allowed there"),
]  # fmt: skip
"""What no run may have, and how ``flash`` and the API server say so."""


@pytest.mark.parametrize(
    ("changes", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_flash_and_the_api_server_refuse_the_same_in_the_same_sentence(
    cluster: Cluster, namespace: str, changes: dict[str, Any], sentence: str
):
    environment = {"id": ENVIRONMENT, **changes.get("environment", {})}
    made = flash_run(namespace, RUN, **{**changes, "environment": environment})
    with pytest.raises(ValidationError) as by_flash:
        FlashRunSpec.validate_manifest(made["spec"])
    assert any(sentence in problem for problem in error_sentences(by_flash.value))
    with pytest.raises(Invalid) as by_server:
        await cluster.create(made)
    assert sentence in str(by_server.value)


ALLOWED: dict[str, Any] = {
    "workerEnv": {
        "FLAG": "on", "MONKEY": "1", "KEYBOARD": "us", "TOKENIZERS_PARALLELISM": "false",
        "MAX_TOKENS": "3", "pathway": "x", "URL": "https://host.example/a@b", "SEEDS": "1",
        "COMMIT": "0123456789abcdef0123456789abcdef01234567",
    },
    "environment": {
        "id": ENVIRONMENT,
        "secrets": ["SERVICE_API_KEY", "MY_TOKEN"],
        "pip": [
            "openai>=1", "x[a,b]==1.0; python_version < '4'", "x @ https://host.example/x.whl",
            f"x @ https://host.example/x.whl#sha256={'0' * 64}",
            f"x @ https://host.example/x.whl#sha256={'0' * 64} ; python_version < '4'",
        ],
    },
}  # fmt: skip


async def test_names_and_packages_that_flash_accepts_pass(cluster: Cluster, namespace: str):
    made = flash_run(namespace, RUN, **ALLOWED)
    FlashRunSpec.validate_manifest(made["spec"])
    await cluster.create(made)


async def test_a_run_from_before_the_rules_is_suspended_and_gets_its_status(
    installed: Path, cluster: Cluster, namespace: str
):
    """An update of the chart adds rules; what runs already has to be reported all the same."""
    definition = yaml.safe_load(CRD.read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    without = schema["properties"]["spec"]["properties"]
    del without["workerEnv"]["x-kubernetes-validations"]
    del without["environment"]["properties"]["pip"]["items"]["x-kubernetes-validations"]
    install_crd(installed, definition)
    old = flash_run(namespace, RUN, workerEnv={"PYTHONPATH": "/x"})
    old["spec"]["environment"]["pip"] = ["--pre"]
    try:
        await _create_once_allowed(cluster, old)
    finally:
        install_crd(installed)
    await _wait_until_refused(cluster, flash_run(namespace, "flash-2-x", workerEnv={"LD_X": "1"}))
    await cluster.patch_status(names.KIND, namespace, RUN, {"phase": "Running"})
    await change(cluster, namespace, {"control": {"suspend": True}})
    kept = await cluster.get(names.KIND, namespace, RUN)
    assert kept["status"]["phase"] == "Running"
    assert kept["spec"]["workerEnv"] == {"PYTHONPATH": "/x"}


async def _create_once_allowed(cluster: Cluster, manifest: dict[str, Any]) -> None:
    """Create an object as soon as the API server has the rules that allow it."""
    for remaining in reversed(range(200)):
        try:
            await cluster.create(manifest)
        except Invalid:
            if not remaining:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def _wait_until_refused(cluster: Cluster, manifest: dict[str, Any]) -> None:
    for _ in range(200):
        try:
            await cluster.create(manifest, dry_run=True)
        except Invalid:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the rules never came back")
