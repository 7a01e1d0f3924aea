"""The chart: what it renders with real helm, what it refuses, and that its copies are fresh."""

import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml

from flashrun.api.generate import chart_values
from flashrun.api.platform import Platform
from flashrun.controller.settings import UPSTREAMS_FOLDER
from flashrun.controller.storage_keys import ROLE_VARIABLE, TOKEN_FILE_VARIABLE
from tests.charts.conftest import NEEDED
from tests.servers import kubectl

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "flashrun"


def _named(objects: list[dict], kind: str, name: str) -> dict:
    [found] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def test_the_copies_of_generated_files_are_fresh() -> None:
    assert (CHART / "values.schema.json").read_text() == chart_values.to_json(), "run make crd"
    assert (CHART / "files" / "flashruns.yaml").read_text() == (
        ROOT / "crds" / "flashruns.yaml"
    ).read_text(), "run make crd"


def test_the_documented_values_are_all_values_there_are() -> None:
    documented = yaml.safe_load((CHART / "values.yaml").read_text())
    known = {field.alias for field in chart_values.Values.model_fields.values()}
    assert set(documented) == known


def test_the_settings_file_is_what_the_operator_reads(render) -> None:
    owners = {"examples": ["team-a", "team-b"]}
    rendered = render(
        {
            "caBundle": "PEM",
            "environments": {"owners": owners},
            "modelsFromMirror": True,
            "mirrorReadable": True,
        }
    )
    made = _named(rendered, "ConfigMap", "flashrun-platform")
    platform = Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"]))

    assert platform.storage.endpoint == "http://s3.example:9000"
    assert platform.trainer.ca_bundle_config_map == "flashrun-ca"
    assert platform.namespaces == ("default",)
    assert platform.environments.owners == {"examples": ("team-a", "team-b")}
    assert platform.models_from_mirror
    assert platform.mirror_readable


def test_a_budget_reaches_the_operator_and_is_of_a_namespace_that_is_served(render) -> None:
    hours = {"gpuHoursPerMonth": 500}
    made = _named(render({"budgets": {"default": hours}}), "ConfigMap", "flashrun-platform")
    platform = Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"]))
    assert platform.budgets["default"].gpu_hours_per_month == 500
    for refused, words in (
        ({"elsewhere": hours}, "budgets: elsewhere is not one of the namespaces"),
        ({"default": {"gpuHoursPerMonth": 0}}, "gpuHoursPerMonth"),
        ({"default": {"gpuHours": 1}}, "gpuHours"),
    ):
        with pytest.raises(ValueError, match=words):
            render({"budgets": refused})


def test_storage_keys_are_in_the_secret_and_nowhere_else(render) -> None:
    objects = render()
    secret = _named(objects, "Secret", "flashrun-storage")
    others = [item for item in objects if item["kind"] != "Secret"]

    assert secret["stringData"] == {"accessKey": "key", "secretKey": "hush"}
    assert "hush" not in yaml.safe_dump_all(others)


def test_keys_that_trainers_and_users_share_are_in_the_secret_without_sts_alone(render) -> None:
    shared = {"sharedAccessKey": "ours", "sharedSecretKey": "open-to-all"}
    for sts, expected in ((True, {}), (False, shared)):
        objects = render({"storage": {"sts": sts, **shared}})
        secret = _named(objects, "Secret", "flashrun-storage")
        assert secret["stringData"] == {"accessKey": "key", "secretKey": "hush", **expected}
        others = [item for item in objects if item["kind"] != "Secret"]
        assert "open-to-all" not in yaml.safe_dump_all(others)


def test_an_existing_secret_replaces_the_charts_own(render) -> None:
    objects = render({"storage": {"existingSecret": "mine", "accessKey": "", "secretKey": ""}})

    assert not [item for item in objects if item["kind"] == "Secret"]
    pod = _named(objects, "Deployment", "flashrun")["spec"]["template"]["spec"]
    assert {"name": "storage", "secret": {"secretName": "mine"}} in pod["volumes"]


def test_credentials_of_index_hub_and_proxy_are_mounted_into_the_operator_alone(render) -> None:
    trainer = {
        "pipIndexUrl": "https://index.example/simple", "pipIndexSecret": "of-the-index",
        "proxy": {"https_proxy": "http://proxy.example:3128"}, "proxySecret": "of-the-proxy",
    }  # fmt: skip
    objects = render({"trainer": trainer})
    pod = _named(objects, "Deployment", "flashrun")["spec"]["template"]["spec"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    assert secrets == {
        "storage": "flashrun-storage", "index": "of-the-index", "proxy": "of-the-proxy",
    }  # fmt: skip
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts["index"] == f"{UPSTREAMS_FOLDER}/index"
    made = _named(objects, "ConfigMap", "flashrun-platform")
    platform = Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"]))
    assert platform.trainer.pip_index_secret == "of-the-index"
    assert platform.trainer.needs_credentials


def test_rights_on_secrets_are_bound_in_served_namespaces_only(render) -> None:
    objects = render({"namespaces": ["team-a", "team-b"]})
    roles = {item["metadata"]["name"]: item for item in objects if item["kind"] == "ClusterRole"}
    with_secrets = {
        name
        for name, role in roles.items()
        if any("secrets" in rule["resources"] for rule in role["rules"])
    }
    cluster_wide = {
        item["roleRef"]["name"] for item in objects if item["kind"] == "ClusterRoleBinding"
    }
    bound = {
        item["metadata"]["namespace"]
        for item in objects
        if item["kind"] == "RoleBinding" and item["roleRef"]["name"] == "flashrun-served"
    }

    assert with_secrets == {"flashrun-served"}
    assert not with_secrets & cluster_wide
    assert bound == {"team-a", "team-b"}
    verbs = {verb for role in roles.values() for rule in role["rules"] for verb in rule["verbs"]}
    assert not verbs & {"*", "escalate", "bind", "impersonate"}


FOLLOWED = {
    "labels": {"namespaces": [], "namespaceSelector": {"matchLabels": {"team": "ml"}}},
    "all": {"namespaces": [], "allNamespaces": True},
}


@pytest.mark.parametrize("values", FOLLOWED.values(), ids=FOLLOWED)
def test_where_namespaces_are_followed_no_rights_on_secrets_are_bound_cluster_wide(
    render, values
) -> None:
    objects = render(values | {"caBundle": "PEM", "policies": [{"maxSteps": 1}]})
    bound = {
        item["roleRef"]["name"]: item["kind"]
        for item in objects
        if item["kind"].endswith("Binding") and "roleRef" in item
    }
    assert bound["flashrun-follows"] == "ClusterRoleBinding"
    assert "flashrun-served" not in bound
    assert "flashrun-public" not in bound
    follows = _named(objects, "ClusterRole", "flashrun-follows")["rules"]
    assert not [rule for rule in follows if "secrets" in rule["resources"]]
    [bind] = [rule for rule in follows if "bind" in rule["verbs"]]
    assert bind["resourceNames"] == ["flashrun-served", "flashrun-public"]

    settings = _named(objects, "ConfigMap", "flashrun-platform")["data"]
    assert Platform.validate_manifest(yaml.safe_load(settings["platform.yaml"])).follows_namespaces
    made = list(yaml.safe_load_all(settings["namespace-objects.yaml"]))
    assert [item["kind"] for item in made] == [
        "RoleBinding", "RoleBinding", "NetworkPolicy", "ConfigMap",
    ]  # fmt: skip
    listed = _named(render({"caBundle": "PEM"}), "NetworkPolicy", "flashrun-trainer")
    assert made[2]["spec"] == listed["spec"]
    assert made[0]["roleRef"]["name"] == "flashrun-served"
    policy = _named(objects, "ValidatingAdmissionPolicyBinding", "flashrun-0")["spec"]
    selected = {"namespaceSelector": {"matchLabels": {"team": "ml"}}}
    assert policy.get("matchResources") == (selected if "namespaceSelector" in values else None)


def test_a_changed_list_of_namespaces_starts_no_operator_and_a_changed_selector_does(
    render,
) -> None:
    def checksum(values: dict) -> str:
        pod = _operator_pod(render(values))
        return str(pod["metadata"]["annotations"]["checksum/platform"])

    assert checksum({"namespaces": ["a"]}) == checksum({"namespaces": ["a", "b"]})
    others = [checksum(values) for values in FOLLOWED.values()]
    other = {"namespaceSelector": {"matchLabels": {"team": "web"}}, "namespaces": []}
    assert len({checksum({}), checksum(other), *others}) == 4


def test_helm_test_asks_the_operators_pods_with_the_rights_of_the_operator_on_storage(
    render,
) -> None:
    objects = render({"caBundle": "PEM", "operator": {"pullSecrets": ["registry"]}})
    deployed = _named(objects, "Deployment", "flashrun")["spec"]["template"]
    service, pod = (_named(objects, kind, "flashrun-test") for kind in ("Service", "Pod"))
    assert service["spec"]["selector"].items() <= deployed["metadata"]["labels"].items()
    assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert "annotations" not in service["metadata"], "helm deletes a hook that has succeeded"
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    for key in ("volumes", "securityContext", "imagePullSecrets"):
        assert pod["spec"][key] == deployed["spec"][key], key
    check, operator = pod["spec"]["containers"][0], deployed["spec"]["containers"][0]
    for key in ("image", "volumeMounts", "securityContext"):
        assert check[key] == operator[key], key
    assert pod["spec"]["automountServiceAccountToken"] is False
    namespace = pod["metadata"]["namespace"]  # the name alone is that of the pod itself
    assert check["args"][-1] == f"http://flashrun-test.{namespace}:8080"


def test_a_secret_can_be_read_by_name_and_never_listed(render) -> None:
    served = _named(render(), "ClusterRole", "flashrun-served")
    [rule] = [rule for rule in served["rules"] if "secrets" in rule["resources"]]
    assert set(rule["verbs"]) == {"get", "create", "patch"}


def test_services_are_made_and_never_listed(render) -> None:
    served = _named(render(), "ClusterRole", "flashrun-served")
    [rule] = [rule for rule in served["rules"] if "services" in rule["resources"]]
    assert set(rule["verbs"]) == {"get", "create", "patch"}


@pytest.mark.parametrize(
    ("nodes", "senders"),
    [
        (1, []),
        (
            2,
            [
                {
                    "app.kubernetes.io/managed-by": "flashrun",
                    "app.kubernetes.io/component": "trainer",
                }
            ],
        ),
    ],
)
def test_trainers_accept_only_each_other_and_only_where_runs_have_several_nodes(
    render, nodes, senders
) -> None:
    pools = [{"name": "one", "vram": 80}, {"name": "two", "vram": 80, "maxNodes": nodes}]
    policy = _named(
        render({"pools": pools}),
        "NetworkPolicy",
        "flashrun-trainer",
    )

    allowed = [
        peer["podSelector"]["matchLabels"]
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
    ]
    assert allowed == senders
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", ())]
    connected = [peer["podSelector"]["matchLabels"] for peer in peers if "podSelector" in peer]
    assert connected == senders


def _allows(policy: dict, port: int, address: str = "", namespace: str = "") -> bool:
    """Say whether a pod may connect to a TCP port of an address, or of a pod in a namespace.

    This is what the API's documentation says about egress rules, written out.
    """
    for rule in policy["spec"]["egress"]:
        ports = [item["port"] for item in rule.get("ports", ()) if item["protocol"] == "TCP"]
        if "ports" in rule and port not in ports:
            continue
        for peer in rule.get("to", [{"everything": True}]):
            labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
            block = peer.get("ipBlock", {})
            if peer.get("everything") or (
                namespace and labels == {"kubernetes.io/metadata.name": namespace}
            ):
                return True
            if address and block and _in_block(address, block):
                return True
    return False


def _in_block(address: str, block: dict) -> bool:
    inside = [ip_address(address) in ip_network(cidr) for cidr in block.get("except", ())]
    return ip_address(address) in ip_network(block["cidr"]) and not any(inside)


PUBLIC, PRIVATE, METADATA = "203.0.113.9", "10.96.0.1", "169.254.169.254"
EGRESS = [
    ("names outside the cluster", {},
     [(443, PUBLIC, ""), (443, "2001:db8::9", ""), (53, "169.254.20.10", ""), (9000, PUBLIC, "")],
     [(80, PUBLIC, ""), (443, METADATA, ""), (80, METADATA, ""), (443, "fd00:ec2::254", ""),
      (6443, PRIVATE, ""), (22, PUBLIC, ""), (9000, "", "team-b")]),
    ("storage at an address", {"storage": {"endpoint": "http://10.0.0.7:9001"}},
     [(9001, "10.0.0.7", "")], [(9001, "10.0.0.8", ""), (9000, "10.0.0.7", "")]),
    ("storage at an IPv6 address", {"storage": {"endpoint": "http://[fd00::7]:9001"}},
     [(9001, "fd00::7", "")], [(9001, "fd00::8", "")]),
    ("storage in the cluster", {"storage": {"endpoint": "http://minio.storage.svc.cluster.local"}},
     [(9000, "", "storage")], [(80, PUBLIC, ""), (9000, "", "minio")]),
    ("own hub and index",
     {"trainer": {"hubEndpoint": "https://10.0.0.8", "pipIndexUrl": "http://10.0.0.9:3141/s"}},
     [(443, "10.0.0.8", ""), (3141, "10.0.0.9", "")], [(443, PUBLIC, ""), (443, "10.0.0.9", "")]),
    ("hosts of packages and a proxy",
     {"trainer": {"pipUrlHosts": ["git.example:8443"],
                  "proxy": {"https_proxy": "http://10.0.0.1:3128"}}},
     [(8443, PUBLIC, ""), (3128, "10.0.0.1", "")], [(3128, PUBLIC, "")]),
    ("proxies without a protocol",
     {"trainer": {"proxy": {"https_proxy": "10.0.0.1:3128", "http_proxy": "10.0.0.2:3129/"}}},
     [(3128, "10.0.0.1", ""), (3129, "10.0.0.2", "")], [(80, PUBLIC, ""), (3128, PUBLIC, "")]),
    ("rules of the platform",
     {"networkPolicy": {"egress": {
         "hub": [{"to": [{"ipBlock": {"cidr": "10.0.0.8/32"}}]}],
         "index": [{"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}]}],
         "extra": [{"to": [{"namespaceSelector": {
             "matchLabels": {"kubernetes.io/metadata.name": "judge"}}}]}]}}},
     [(8000, "", "judge"), (443, "10.0.0.8", ""), (80, "10.0.0.9", "")], [(443, PUBLIC, "")]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reached", "refused"), [row[1:] for row in EGRESS], ids=[row[0] for row in EGRESS]
)
def test_trainers_connect_to_what_is_named_and_to_nothing_else(
    render, changes, reached, refused
) -> None:
    policy = _named(render(changes), "NetworkPolicy", "flashrun-trainer")
    assert [place for place in reached if not _allows(policy, *place)] == []
    assert [place for place in refused if _allows(policy, *place)] == []


def test_a_cluster_takes_the_policies_of_every_kind_of_address(render, installed: Path) -> None:
    for _, changes, *_ in EGRESS:
        policies = [item for item in render(changes) if item["kind"] == "NetworkPolicy"]
        text = yaml.safe_dump_all(policies)
        kubectl(installed, "apply", "--dry-run=server", "-f", "-", stdin=text)


def test_network_policies_can_be_left_out(render) -> None:
    rendered = render({"networkPolicy": {"enabled": False}})
    assert [item for item in rendered if item["kind"] == "NetworkPolicy"] == []


def test_the_operator_runs_restricted(render) -> None:
    pod = _named(render(), "Deployment", "flashrun")["spec"]["template"]["spec"]
    [container] = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_the_crd_can_be_left_to_someone_else(render) -> None:
    kept = _named(render(), "CustomResourceDefinition", "flashruns.flashrun.dev")
    without = render({"crds": {"install": False}})

    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert not [item for item in without if item["kind"] == "CustomResourceDefinition"]


def selected_by(operator: str, *values: str) -> dict:
    """Values that follow namespaces by one condition."""
    condition = {"key": "a", "operator": operator, "values": list(values)}
    return {"namespaces": [], "namespaceSelector": {"matchExpressions": [condition]}}


REFUSED = [
    ("a misspelled key", {"trainer": {"retris": 1}}, "retris"),
    ("no storage endpoint", {"storage": {"endpoint": ""}}, "endpoint"),
    ("an endpoint with a path", {"storage": {"endpoint": "https://s3.example/bucket"}}, "endpoint"),
    ("a password of storage", {"storage": {"endpoint": "https://u:p@s3.example"}}, "endpoint"),
    *(
        (f"a password in {key}", {"trainer": {key: value}}, key)
        for key, value in {
            "pipIndexUrl": "https://u:p@index.example/simple",
            "hubEndpoint": "https://token@hub.example",
            "proxy": {"https_proxy": "http://u:p@proxy.example:3128"},
        }.items()
    ),
    ("no keys for storage", {"storage": {"accessKey": ""}}, "storage.accessKey"),
    ("no keys to share without STS", {"storage": {"sts": False}}, "storage.sharedAccessKey"),
    ("no operator image", {"operator": {"image": ""}}, "operator"),
    ("no pools", {"pools": []}, "pools"),
    ("a pool without memory", {"pools": [{"name": "x"}]}, "vram"),
    ("a run without GPUs", {"pools": [{"name": "x", "vram": 80, "gpusPerRun": 0}]}, "gpusPerRun"),
    ("a mirror that is served perhaps", {"modelsFromMirror": "perhaps"}, "modelsFromMirror"),
    ("an org that cannot exist", {"environments": {"owners": {"a/b": []}}}, "environments"),
    ("the operator's own namespace", {"namespaces": ["team-a", "flashrun-system"]},
     "namespaces: flashrun-system is the release's own namespace"),
    ("a namespace that cannot exist", {"namespaces": ["Team_A"]}, "namespaces"),
    ("no namespaces", {"namespaces": []}, "are alternatives"),
    ("a list and all namespaces", {"allNamespaces": True}, "are alternatives"),
    ("a misspelled selector", {"namespaceSelector": {"matchLabel": {}}}, "matchLabel"),
    ("an unknown comparison",
     {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}, "operator"),
    ("a list without values", selected_by("In"), "In of label a needs values"),
    ("a selector of nothing", {"namespaces": [], "namespaceSelector": {"matchLabels": {}}},
     "namespaceSelector is empty"),
    ("values that nothing compares", selected_by("Exists", "b"), "label a takes no values"),
    ("a namespace twice", {"namespaces": ["team-a", "team-a"]}, "/namespaces"),
    ("a KMS without its key", {"storage": {"sse": "kms"}}, "belong together"),
    ("a key of no KMS", {"storage": {"sse": "s3", "sseKmsKey": "k"}}, "belong together"),
    ("a KMS without https", {"storage": {"sse": "kms", "sseKmsKey": "k"}}, "endpoint with https"),
    ("a pool twice", {"pools": [{"name": "x", "vram": 80}] * 2}, "pools: x is there more than"),
    ("a model twice", {"models": [{"id": "a/b", "parameters": 1}] * 2},
     "models: a/b is there more than once"),
    ("the path of traces", {"monitoring": {"traces": {"endpoint": "http://otel:4318/v1/traces/"}}},
     "leave out /v1/traces"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "place"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_wrong_values_are_refused_before_they_reach_the_cluster(render, changes, place) -> None:
    with pytest.raises(ValueError, match=place):
        render(changes)


def test_a_table_that_is_left_empty_is_no_fault(render) -> None:
    """Such as one of which every line is a comment."""
    assert render({"monitoring": None, "trainer": {"proxy": None}, "models": None})
    assert render({"storage": {"webIdentity": None}, "monitoring": {"traces": None}})


def test_a_large_number_of_gpu_hours_is_written_without_an_exponent(render) -> None:
    for hours, written in ((1_000_000, "1000000"), (2.5, "2.5")):
        policy = _named(
            render({"policies": [{"maxGpuHours": hours}]}),
            "ValidatingAdmissionPolicy",
            "flashrun-0",
        )
        [said] = policy["spec"]["validations"]
        assert f" allows {written} GPU hours for a run: " in said["messageExpression"]


def _operator_pod(rendered: list[dict]) -> dict:
    return _named(rendered, "Deployment", "flashrun")["spec"]["template"]


def _variables(pod: dict) -> dict[str, str]:
    container = pod["spec"]["containers"][0]
    return {item["name"]: item.get("value", "") for item in container["env"]}


def test_a_web_identity_needs_no_secret_with_keys(render) -> None:
    identity = {"enabled": True, "roleArn": "arn:aws:iam::1:role/operator"}
    storage = {"webIdentity": identity, "accessKey": "", "secretKey": ""}
    rendered = render({"storage": storage})
    assert not [item for item in rendered if item["kind"] == "Secret"]
    pod = _operator_pod(rendered)
    variables = _variables(pod)
    assert variables[ROLE_VARIABLE] == "arn:aws:iam::1:role/operator"
    mounts = {
        item["name"]: item["mountPath"] for item in pod["spec"]["containers"][0]["volumeMounts"]
    }
    assert variables[TOKEN_FILE_VARIABLE] == f"{mounts['web-identity']}/token"
    volumes = {item["name"]: item for item in pod["spec"]["volumes"]}
    (source,) = volumes["web-identity"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "sts.amazonaws.com"
    assert "storage" not in mounts.keys() | volumes.keys()
    made = _named(rendered, "ConfigMap", "flashrun-platform")
    Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"]))


def test_the_operator_uses_a_proxy_and_never_for_the_api_server(render) -> None:
    assert "NO_PROXY" not in _variables(_operator_pod(render()))
    proxy = {"https_proxy": "http://proxy.example:3128", "no_proxy": "10.0.0.0/8,s3.example"}
    variables = _variables(_operator_pod(render({"operator": {"proxy": proxy}})))
    assert variables["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert variables["NO_PROXY"] == "$(KUBERNETES_SERVICE_HOST),10.0.0.0/8,s3.example"
    del proxy["no_proxy"]
    variables = _variables(_operator_pod(render({"operator": {"proxy": proxy}})))
    assert variables["NO_PROXY"] == "$(KUBERNETES_SERVICE_HOST)"
    with pytest.raises(ValueError, match="all_proxy"):
        render({"operator": {"proxy": {"all_proxy": "http://proxy.example"}}})


def test_another_ca_bundle_starts_the_operator_again(render) -> None:
    first, second = (_operator_pod(render({"caBundle": text})) for text in ("one", "two"))
    assert first["metadata"]["annotations"] != second["metadata"]["annotations"]


def test_the_place_of_the_bucket_is_one_of_two_words(render) -> None:
    made = _named(render({"storage": {"addressing": "virtual"}}), "ConfigMap", "flashrun-platform")
    settings = Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"]))
    assert settings.storage.addressing == "virtual"
    with pytest.raises(ValueError, match="addressing"):
        render({"storage": {"addressing": "dns"}})


USERS = [("cluster", None), (65532, 65532), (1000680000, 1000680000)]


@pytest.mark.parametrize(("value", "user"), USERS)
def test_the_cluster_chooses_the_users_of_pods_where_the_values_say_so(render, value, user) -> None:
    """OpenShift's restricted-v2 refuses a number that it has not chosen."""
    objects = render({"operator": {"runAsUser": value}, "trainer": {"runAsUser": value}})
    pod = _named(objects, "Deployment", "flashrun")["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert [context.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")] == [user] * 3
    assert context["runAsNonRoot"] is True
    made = _named(objects, "ConfigMap", "flashrun-platform")
    platform = Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"]))
    assert platform.trainer.run_as_user == value


def test_quantities_reach_the_operator_in_every_notation(render) -> None:
    pool = {"name": "p", "vram": 80, "cpu": "0.01k", "cpuLimit": "0.02k", "memory": "1Pi"}
    objects = render({"pools": [{**pool, "ephemeralStorage": "1.5E"}]})
    made = _named(objects, "ConfigMap", "flashrun-platform")
    [read] = Platform.validate_manifest(yaml.safe_load(made["data"]["platform.yaml"])).pools
    assert (read.cpu, read.cpu_limit, read.memory) == ("0.01k", "0.02k", "1Pi")
    assert read.ephemeral_storage == "1.5E"
    with pytest.raises(ValueError, match="cpuLimit"):
        render({"pools": [{**pool, "cpuLimit": "4K"}]})


def test_rights_on_workloads_come_with_a_queue(render) -> None:
    def groups(values: dict) -> set[str]:
        role = _named(render(values), "ClusterRole", "flashrun-served")
        return {group for rule in role["rules"] for group in rule["apiGroups"]}

    kueue = {"kueue.x-k8s.io", "visibility.kueue.x-k8s.io"}
    assert groups({"trainer": {"queue": "team"}}) & kueue == kueue
    assert groups({}) & kueue == set()


def test_a_definition_of_another_release_is_taken_over_when_asked(
    helm: Path, installed: Path, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(NEEDED))
    words = [helm, "install", "another", CHART, "--kubeconfig", installed, "--values", values]
    words += ["--namespace", "kube-public", "--dry-run=server"]

    def install(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], capture_output=True, text=True, check=False)

    assert "invalid ownership metadata" in install().stderr
    for way_on in ("--take-ownership", "--set=crds.install=false"):
        done = install(way_on)
        assert done.returncode == 0, done.stderr
