"""Objects for Prometheus and Grafana: who selects them, and the alerts by promtool."""

import json
import re
from pathlib import Path

import pytest
import yaml

from flashrun.controller import operator_metrics
from flashrun.controller.run_metrics import RunMetrics
from tests.charts.conftest import CHART
from tests.prometheus import promtool

ROOT = CHART.parents[1]
ALL = {
    "podMonitor": True, "serviceMonitor": True, "prometheusRule": True, "dashboard": True,
    "labels": {"release": "prometheus"},
}  # fmt: skip
ALERTS = CHART / "files" / "alerts.yaml"


def _rules() -> list[dict]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def test_objects_for_prometheus_are_made_on_request_with_the_labels_that_select_them(
    render,
) -> None:
    kinds = {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
    assert not kinds & {item["kind"] for item in render()}

    objects = render({"monitoring": ALL})
    selected = {item["kind"]: item for item in objects if item["kind"] in kinds}
    assert selected.keys() == kinds
    for item in selected.values():
        assert item["metadata"]["labels"]["release"] == "prometheus"
    for item in (selected["PodMonitor"], selected["ServiceMonitor"]):
        endpoints = item["spec"].get("podMetricsEndpoints") or item["spec"]["endpoints"]
        assert endpoints == [{"port": "http", "honorLabels": True}]
    assert selected["PrometheusRule"]["spec"] == yaml.safe_load(ALERTS.read_text())


def test_monitors_select_the_operators_pods_and_the_service_of_their_metrics(render) -> None:
    objects = render({"monitoring": ALL})

    def one(kind: str, name: str) -> dict:
        [made] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
        return made

    template = one("Deployment", "flashrun")["spec"]["template"]
    service = one("Service", "flashrun-metrics")
    for selector, labels in (
        (one("PodMonitor", "flashrun")["spec"]["selector"]["matchLabels"],
         template["metadata"]["labels"]),
        (one("ServiceMonitor", "flashrun")["spec"]["selector"]["matchLabels"],
         service["metadata"]["labels"]),
        (service["spec"]["selector"], template["metadata"]["labels"]),
    ):  # fmt: skip
        assert selector.items() <= labels.items()
    [port] = service["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("http", "http")


def test_the_dashboard_is_a_config_map_that_grafanas_sidecar_selects(render) -> None:
    monitoring = {"dashboard": True, "dashboardLabels": {"grafana_dashboard": None, "team": "ml"}}
    [made] = [
        item
        for item in render({"monitoring": monitoring})
        if item["metadata"]["name"] == "flashrun-dashboard"
    ]
    assert made["metadata"]["labels"]["team"] == "ml"
    written = json.loads((CHART / "files" / "dashboard.json").read_text())
    assert json.loads(made["data"]["flashrun.json"]) == written


def test_the_operator_alone_gets_the_endpoint_of_traces_and_only_where_there_is_one(render) -> None:
    def given(**values: object) -> dict[str, object]:
        [made] = [item for item in render(values) if item["kind"] == "Deployment"]
        [container] = made["spec"]["template"]["spec"]["containers"]
        variables = {item["name"]: item for item in container["env"]}
        return {name: item for name, item in variables.items() if name.startswith("OTEL_")}

    traces = {"endpoint": "http://collector.observability.svc:4318"}
    assert given(monitoring={"traces": {"endpoint": "", "headersSecret": "keys"}}) == {}
    assert [item["value"] for item in given(monitoring={"traces": traces}).values()] == [
        traces["endpoint"]
    ]
    found = given(monitoring={"traces": {**traces, "headersSecret": "keys"}}, caBundle="PEM")
    assert found["OTEL_EXPORTER_OTLP_CERTIFICATE"]["value"] == "/etc/flashrun/ca/ca.crt"
    source = found["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"]["secretKeyRef"]
    assert source == {"name": "keys", "key": "headers"}


@pytest.mark.usefixtures("prometheus")
def test_promtool_accepts_the_rules_and_the_metrics() -> None:
    promtool("check", "rules", ALERTS)
    operator_metrics.prepare(["team-a"], ["small"])
    operator_metrics.observe_storage("get", 0.1, OSError())
    operator_metrics.REGISTRY.register(metrics := RunMetrics(lambda: {("team-a", ""): 1}))
    try:
        body, _ = operator_metrics.exposition()
    finally:
        operator_metrics.REGISTRY.unregister(metrics)
    ours = [line for line in body.decode().splitlines() if " flashrun_" in f" {line}"]
    assert any("flashrun_runs{" in line for line in ours)
    assert promtool("check", "metrics", stdin="\n".join(ours) + "\n") == ""


@pytest.mark.usefixtures("prometheus")
def test_every_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(ALERTS.read_text())
    cases = Path(__file__).with_name("alert_cases.yaml")
    (tmp_path / "cases.yaml").write_text(cases.read_text())
    promtool("test", "rules", tmp_path / "cases.yaml")
    tests = yaml.safe_load(cases.read_text())["tests"]
    looks = [look for test in tests for look in test["alert_rule_test"]]
    for fires in (True, False):
        seen = {look["alertname"] for look in looks if bool(look.get("exp_alerts")) == fires}
        assert seen == {rule["alert"] for rule in _rules()}, fires


def test_the_manual_lists_every_metric_and_every_alert() -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    families = [*operator_metrics.REGISTRY.collect(), *RunMetrics().collect()]
    metrics = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in families
        if family.name.startswith("flashrun_")
    }
    listed = set(re.findall(r"^\| `(flashrun_\w+)`", text, re.MULTILINE))
    assert listed == {f"{name}_info" if name.endswith("build") else name for name in metrics}
    alerts = set(re.findall(r"^\| `(FlashRun[A-Z]\w+)`", text, re.MULTILINE))
    assert alerts == {rule["alert"] for rule in _rules()}
