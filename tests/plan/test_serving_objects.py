"""The objects of a server of adapters."""

import json

import pytest

from flashrun.api import names, pod
from flashrun.api.platform import PodSettings, Pool
from flashrun.api.records import ResolvedRun
from flashrun.api.served import ServedAdapter, ServedList, ServingEngine
from flashrun.plan.serving_objects import AdapterServer, serving_objects
from flashrun.plan.types import Object
from tests.plan.worlds import running

RUN = running().pinned


POOL = Pool(
    name="h100",
    vram=80,
    node_selector={"gpu": "h100"},
    tolerations=({"key": "gpu", "operator": "Exists"},),
    runtime_class="nvidia",
)
PODS = PodSettings(image="registry/trainer@sha256:1")


def server(*ids: str, gpus: bool = False, pods: PodSettings = PODS) -> AdapterServer:
    adapters = tuple(
        ServedAdapter(id=each, prefix=f"{each}/", manifest="0" * 64, rank=8) for each in ids
    )
    gpu = {names.GPU_RESOURCE: "1"} if gpus else {}
    return AdapterServer(
        name="sums",
        namespace="team-a",
        engine=ServingEngine.VLLM if gpus else ServingEngine.TRANSFORMERS,
        run=RUN,
        served=ServedList(adapters=adapters),
        pods=pods,
        gpus=int(gpus),
        pool=POOL if gpus else None,
        requests={"cpu": "1", **gpu},
        limits={"memory": "4Gi", **gpu},
    )


def pod_template(*ids: str) -> Object:
    template: Object = serving_objects(server(*ids))[1]["spec"]["template"]
    return template


def test_the_pod_reads_its_list_and_names_secrets_without_their_values() -> None:
    config_map, deployment, service = serving_objects(server("run", "run/step-5"))

    assert ResolvedRun.model_validate_json(config_map["data"][names.SPEC_KEY]) == RUN
    served = ServedList.model_validate_json(config_map["data"][names.SERVED_KEY])
    assert [adapter.id for adapter in served.adapters] == ["run", "run/step-5"]
    spec = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["spec"]["configMap"]["name"] == config_map["metadata"]["name"]
    assert volumes["storage"]["secret"] == {"secretName": "flashrun-storage-user"}
    assert volumes["hub"]["secret"]["optional"] is True
    [container] = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    values = {item["name"]: item["value"] for item in container["env"]}
    assert values["FLASHRUN_SERVED"] == f"{pod.SPEC_FOLDER}/adapters.json"
    assert values["FLASHRUN_ENGINE"] == "transformers"
    assert container["args"] == ["serve"]
    [port] = service["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8000, container["ports"][0]["name"])


def test_the_pod_is_restricted_and_ready_when_the_model_is_loaded() -> None:
    spec = pod_template("run")["spec"]
    [container] = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_objects_select_their_own_pods_which_the_operator_does_not_know() -> None:
    config_map, deployment, service = serving_objects(server("run"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]

    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector.items() <= labels.items()
    assert names.RUN_UID_LABEL not in labels
    assert labels[names.MANAGED_BY_LABEL] != "flashrun"
    assert config_map["metadata"]["labels"] == labels


@pytest.mark.parametrize(
    ("other", "same"), [(("run", "run/step-5"), True), (("run", "run/step-10"), False)]
)
def test_only_another_list_makes_another_pod(other: tuple[str, ...], same: bool) -> None:
    assert (pod_template("run", "run/step-5") == pod_template(*other)) is same


def test_gpus_are_requested_as_they_are_planned() -> None:
    [container] = serving_objects(server("run", gpus=True))[1]["spec"]["template"]["spec"][
        "containers"
    ]

    assert container["resources"]["limits"] == {"memory": "4Gi", names.GPU_RESOURCE: "1"}
    assert json.dumps(container).count(names.GPU_RESOURCE) == 2
    assert {"name": "FLASHRUN_GPUS", "value": "1"} in container["env"]


def test_the_pod_has_what_pods_of_the_platform_have() -> None:
    pods = PODS.replace(
        pull_secrets=("registry",),
        ca_bundle_config_map="authorities",
        proxy={"https_proxy": "http://proxy:3128", "no_proxy": ".svc"},
        proxy_secret="proxy",
        run_as_user="cluster",
    )

    spec = serving_objects(server("run", gpus=True, pods=pods))[1]["spec"]["template"]["spec"]

    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert "runAsUser" not in spec["securityContext"]
    assert {"name": "ca", "configMap": {"name": "authorities"}} in spec["volumes"]
    [container] = spec["containers"]
    assert {"name": "ca", "mountPath": pod.CA_FOLDER, "readOnly": True} in container["volumeMounts"]
    variables = {item["name"]: item for item in container["env"]}
    assert variables["SSL_CERT_FILE"]["value"] == pod.CA_FILE
    assert variables["NO_PROXY"]["value"] == ".svc"
    secret = variables["HTTPS_PROXY"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "flashrun-upstreams", "key": "HTTPS_PROXY"}


def test_a_server_without_a_gpu_goes_to_any_node() -> None:
    assert (
        not {"nodeSelector", "tolerations", "runtimeClassName"} & pod_template("run")["spec"].keys()
    )
