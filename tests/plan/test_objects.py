"""What a trainer pod looks like: placement, security, and what a user cannot change."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from flashrun.api import names
from flashrun.api.platform import Platform
from flashrun.api.pod import (
    CA_FILE,
    MODEL_CONTAINER,
    NETRC_FILE,
    NO_TELEMETRY,
    PACKAGES_CONTAINER,
)
from flashrun.api.quantities import parse_quantity
from flashrun.api.records import ResolvedRun, Scale
from flashrun.plan import objects
from tests.plan import worlds
from tests.plan.worlds import PLATFORM, World, make_run

_PINNED = World(make_run()).settled().pinned
assert _PINNED is not None
RESOLVED: ResolvedRun = _PINNED
STEM = names.object_stem(worlds.NAME, worlds.UID)


def pod_of(platform: Platform = PLATFORM, **config) -> dict:
    placement = objects.JobPlacement(0, platform.pools[0])
    made = objects.trainer_job(make_run(config), placement, platform, RESOLVED)
    return made["spec"]["template"]["spec"]


def with_trainer(**changes) -> Platform:
    trainer = PLATFORM.trainer.model_copy(update=changes)
    return PLATFORM.model_copy(update={"trainer": trainer})


def containers(pod: dict) -> list[dict]:
    return [*pod["initContainers"], *pod["containers"]]


def environment(container: dict) -> dict[str, str]:
    return {item["name"]: item.get("value", "") for item in container["env"]}


def test_every_container_meets_the_restricted_pod_security_standard() -> None:
    pod = pod_of()

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
    allowed = {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
    assert all(volume.keys() - {"name"} <= allowed for volume in pod["volumes"])


def test_a_trainer_has_no_way_to_the_kubernetes_api() -> None:
    assert pod_of()["automountServiceAccountToken"] is False


def test_only_the_trainer_sees_secrets_and_gpus() -> None:
    pod = pod_of(secret_refs=[{"name": "team-keys"}])
    *prepare, trainer = containers(pod)

    assert trainer["envFrom"] == [{"secretRef": {"name": f"{STEM}-secrets"}}]
    assert trainer["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for container in prepare:
        assert "envFrom" not in container
        assert "nvidia.com/gpu" not in container["resources"].get("limits", {})
        assert environment(container)["NVIDIA_VISIBLE_DEVICES"] == "void"


def test_what_the_platform_sets_comes_after_what_the_user_sets() -> None:
    platform = with_trainer(environment={"OMP_NUM_THREADS": "1"})
    pod = pod_of(platform, worker_env={"FEATURE_FLAG": "on", "OMP_NUM_THREADS": "64"})
    variables = [item["name"] for item in pod["containers"][0]["env"]]
    values = environment(pod["containers"][0])  # the last of a name wins, as in a container

    assert values["FEATURE_FLAG"] == "on"
    assert values["OMP_NUM_THREADS"] == "1"
    assert variables.count("OMP_NUM_THREADS") == 2


def test_no_library_reports_to_its_developers() -> None:
    for container in containers(pod_of()):
        values = environment(container)
        assert values["HF_HUB_DISABLE_TELEMETRY"] == values["VLLM_NO_USAGE_STATS"] == "1"
        assert NO_TELEMETRY.items() <= values.items()


def test_log_lines_never_reach_the_pods_status() -> None:
    assert {item["terminationMessagePolicy"] for item in containers(pod_of())} == {"File"}


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"pull_secrets": ("regcred",)}, "imagePullSecrets", [{"name": "regcred"}]),
        ({"priority_class": "low"}, "priorityClassName", "low"),
        ({"dns_policy": "Default"}, "dnsPolicy", "Default"),
        ({"grace_seconds": 60}, "terminationGracePeriodSeconds", 60),
    ],
)
def test_platform_settings_reach_the_pod(changes, key, value) -> None:
    assert pod_of(with_trainer(**changes))[key] == value


def test_a_certificate_bundle_reaches_every_library_that_reads_one() -> None:
    pod = pod_of(with_trainer(ca_bundle_config_map="corporate-ca"))

    for container in containers(pod):
        values = environment(container)
        assert {values[name] for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")} == {
            CA_FILE
        }
        assert any(mount["name"] == "ca" for mount in container["volumeMounts"])


def test_credentials_of_the_index_and_of_the_hub_reach_one_container_each() -> None:
    secrets = {"pip_index_secret": "of-index", "hub_secret": "of-hub"}
    pod = pod_of(with_trainer(pip_index_url="https://index.example", **secrets))
    mounted = {
        container["name"]: {mount["name"] for mount in container["volumeMounts"]}
        for container in containers(pod)
    }
    with_index = [name for name, volumes in mounted.items() if "index" in volumes]
    with_hub = [name for name, volumes in mounted.items() if "hub" in volumes]

    assert (with_index, with_hub) == ([PACKAGES_CONTAINER], [MODEL_CONTAINER])
    values = {container["name"]: environment(container) for container in containers(pod)}
    assert values[PACKAGES_CONTAINER]["NETRC"] == NETRC_FILE
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "index"]
    assert volume["secret"]["items"] == [{"key": "netrc", "path": "netrc"}]


def test_a_proxy_with_a_password_is_named_by_its_secret() -> None:
    proxy = {"https_proxy": "http://proxy.example:3128", "no_proxy": "s3.example"}
    pod = pod_of(with_trainer(proxy=proxy, proxy_secret="of-proxy"))

    for container in containers(pod):
        [entry] = [item for item in container["env"] if item["name"] == "HTTPS_PROXY"]
        key = {"name": "flashrun-upstreams", "key": "HTTPS_PROXY"}
        assert entry == {"name": "HTTPS_PROXY", "valueFrom": {"secretKeyRef": key}}
        assert environment(container)["NO_PROXY"] == "s3.example"


def test_a_model_cache_replaces_the_fresh_folder() -> None:
    pod = pod_of(with_trainer(model_cache_claim="models"))
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == "model"]

    assert volume == {"name": "model", "persistentVolumeClaim": {"claimName": "models"}}


def test_only_the_download_of_the_model_writes_where_pods_share_it() -> None:
    """Code of environments and packages runs in the other containers."""
    pod = pod_of(with_trainer(model_cache_claim="models"))
    writable = [
        container["name"]
        for container in containers(pod)
        for mount in container["volumeMounts"]
        if mount["name"] == "model" and not mount.get("readOnly")
    ]

    assert writable == [MODEL_CONTAINER]


def test_kueue_finds_its_queue_on_the_job() -> None:
    platform = with_trainer(queue="team-queue")
    placement = objects.JobPlacement(0, platform.pools[0])
    made = objects.trainer_job(make_run(), placement, platform, RESOLVED)

    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-queue"
    assert made["spec"]["suspend"] is True  # also where Kueue's webhook does not see it


def test_the_job_ignores_disruptions_before_it_judges_exit_codes() -> None:
    placement = objects.JobPlacement(0, PLATFORM.pools[0])
    made = objects.trainer_job(make_run(), placement, PLATFORM, RESOLVED)
    rules = made["spec"]["podFailurePolicy"]["rules"]

    assert [rule["action"] for rule in rules] == ["Ignore"] * 4 + ["FailJob"] * 3
    named = [rule["onExitCodes"]["containerName"] for rule in rules[1:]]
    assert named == ["model", "packages", "trainer"] * 2
    assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert made["spec"]["podReplacementPolicy"] == "Failed"
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("quantity", "gpus", "product"), [("4", 2, "8"), ("500m", 4, "2000m"), ("1.5Gi", 2, "3Gi")]
)
def test_requests_grow_with_the_gpus(quantity, gpus, product) -> None:
    pool = PLATFORM.pools[0].model_copy(update={"memory": quantity})
    placement = objects.JobPlacement(0, pool, Scale(gpus=gpus))
    made = objects.trainer_job(make_run(), placement, PLATFORM, RESOLVED)
    [trainer] = made["spec"]["template"]["spec"]["containers"]

    assert trainer["resources"]["limits"] == {"memory": product, "nvidia.com/gpu": str(gpus)}


RESOURCES = [
    ("neither", {}, {}, {}),
    ("a limit of CPU", {"cpu_limit": "6"}, {}, {"cpu": "12"}),
    ("local disk", {"ephemeral_storage": "1.5Gi"}, {"ephemeral-storage": "3Gi"},
     {"ephemeral-storage": "3Gi"}),
    ("a limit below what an init container asks for", {"cpu": "20m", "cpu_limit": "40m"}, {},
     {"cpu": "80m"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "requests", "limits"), [r[1:] for r in RESOURCES], ids=[r[0] for r in RESOURCES]
)
def test_every_container_has_the_limits_that_a_quota_may_ask_for(settings, requests, limits):
    pool = PLATFORM.pools[1].model_copy(update=settings)
    placement = objects.JobPlacement(0, pool, Scale(gpus=2))
    pod = objects.trainer_job(make_run(), placement, PLATFORM, RESOLVED)["spec"]["template"]["spec"]

    for container in containers(pod):
        resources = container["resources"]
        assert requests.items() <= resources["requests"].items()
        assert limits.items() <= resources["limits"].items()
        optional = {"cpu", "ephemeral-storage"} & resources["limits"].keys()
        assert optional == limits.keys()
        for name in resources["requests"].keys() & resources["limits"].keys():
            amount = {kind: parse_quantity(resources[kind][name]) for kind in resources}
            assert amount["requests"] <= amount["limits"]


def test_a_node_is_avoided_by_its_name_and_not_by_a_label() -> None:
    """A node may have another label kubernetes.io/hostname, and a field takes one value."""
    placement = objects.JobPlacement(1, PLATFORM.pools[0], avoid_nodes=("a.example", "b.example"))
    pod = objects.trainer_job(make_run(), placement, PLATFORM, RESOLVED)["spec"]["template"]["spec"]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    [term] = pod["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]

    assert term == {
        "matchFields": [
            {"key": "metadata.name", "operator": "NotIn", "values": [node]}
            for node in ("a.example", "b.example")
        ]
    }


@pytest.mark.parametrize("user", [1000, 1000680000, "cluster"])
def test_openshift_chooses_the_user_of_a_pod_where_the_platform_names_none(user) -> None:
    context = pod_of(with_trainer(run_as_user=user))["securityContext"]
    fields = {"runAsUser", "runAsGroup", "fsGroup"}

    assert context["runAsNonRoot"] is True
    assert {context.get(name) for name in fields} == {None if user == "cluster" else user}


# --- several nodes --------------------------------------------------------------------------------


def job_on(nodes: int, number: int = 0) -> dict:
    placement = objects.JobPlacement(number, PLATFORM.pools[0], Scale(nodes=nodes, gpus=8))
    return objects.trainer_job(make_run(), placement, PLATFORM, RESOLVED)


def test_one_node_needs_neither_an_index_nor_a_name_for_its_pod() -> None:
    made = job_on(1)

    assert not made["spec"].keys() & {"completionMode", "completions", "parallelism"}
    assert "subdomain" not in made["spec"]["template"]["spec"]
    assert "FLASHRUN_LEADER" not in environment(made["spec"]["template"]["spec"]["containers"][0])


def test_several_nodes_have_one_pod_each_that_knows_where_the_leader_is() -> None:
    made = job_on(4, number=1)
    pod = made["spec"]["template"]["spec"]
    service = objects.peers_service(make_run(), 1)

    assert made["spec"]["completionMode"] == "Indexed"
    assert (made["spec"]["completions"], made["spec"]["parallelism"]) == (4, 4)
    leader = environment(pod["containers"][0])["FLASHRUN_LEADER"]
    assert leader == f"{STEM}-1-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "8"


def test_the_peers_service_finds_the_pods_of_its_own_job_before_they_are_ready() -> None:
    service = objects.peers_service(make_run(), 1)["spec"]
    labels = job_on(2, number=1)["spec"]["template"]["metadata"]["labels"]
    others = job_on(2, number=0)["spec"]["template"]["metadata"]["labels"]

    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= labels.items()
    assert not service["selector"].items() <= others.items()


def test_an_attempt_of_several_pods_counts_once() -> None:
    spec = job_on(2)["spec"]

    assert "backoffLimit" not in spec
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, 0)
    assert worlds.job_retries(job_on(2)) == worlds.job_retries(job_on(1)) == 3


@pytest.mark.parametrize(
    "scale", [Scale(), Scale(gpus=8), Scale(gpus=4, sharded=True), Scale(nodes=2, gpus=8)]
)
def test_a_job_says_at_which_scale_it_was_made(scale: Scale) -> None:
    made = objects.trainer_job(
        make_run(), objects.JobPlacement(2, PLATFORM.pools[0], scale), PLATFORM, RESOLVED
    )

    assert worlds.job_scale(made) == scale
    assert worlds.job_number(made) == 2


@given(
    some.none() | some.dictionaries(some.text(max_size=9), some.text(max_size=50), max_size=3),
    some.none() | some.booleans(),
    some.lists(some.fixed_dictionaries({"uid": some.text(max_size=9)}), max_size=2),
)
def test_no_config_map_that_somebody_wrote_is_taken_for_the_operators(
    data: dict[str, str] | None, immutable: bool | None, owners: list[dict[str, str]]
) -> None:
    run = make_run()
    there = {"metadata": {"ownerReferences": owners}, "data": data, "immutable": immutable}
    assert not objects.holds_spec(there, run, worlds.DIGEST)
