"""The schema of the chart's values: Helm refuses by it what the operator would refuse."""

from typing import Any

import pytest

from flashrun.api.generate import chart_values
from flashrun.api.platform import Platform
from tests.json_schemas import validator

LEAST: dict[str, Any] = {
    "operator": {"image": "registry.example/operator@sha256:1"},
    "storage": {"endpoint": "https://s3.example"},
    "trainer": {"image": "registry.example/trainer@sha256:1"},
    "pools": [{"name": "a100", "vram": 80}],
}
SCHEMA = chart_values.schema()


def merged(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        **LEAST,
        **{
            key: {**LEAST.get(key, {}), **value} if isinstance(value, dict) else value
            for key, value in changes.items()
        },
    }


def test_the_schema_is_one() -> None:
    assert validator(SCHEMA).schema == SCHEMA


def test_the_least_values_are_enough_and_global_is_allowed() -> None:
    validator(SCHEMA).validate(LEAST)
    validator(SCHEMA).validate({**LEAST, "global": {"anything": 1}})


def traces(endpoint: str, **further: str) -> dict[str, Any]:
    """Values that send traces to an address."""
    return {"monitoring": {"traces": {"endpoint": endpoint, **further}}}


REFUSED: dict[str, dict[str, Any]] = {
    "an unknown key": {"operatr": {}},
    "an unknown key of the operator": {"operator": {"replica": 2}},
    "a number of replicas in words": {"operator": {"replicas": "two"}},
    "no pool": {"pools": []},
    "a comparison without an operator": {"namespaceSelector": {"matchExpressions": [{"key": "a"}]}},
    "a namespace that cannot exist": {"namespaces": ["Team_A"]},
    "an empty image": {"operator": {"image": ""}},
    "an empty image of the trainer": {"trainer": {"image": ""}},
    "half of a bracket around storage": {"storage": {"endpoint": "http://[::1"}},
    "a query": {"storage": {"endpoint": "http://s3.example?bucket"}},
    "a bucket that no store takes": {"storage": {"bucket": "Runs_1"}},
    "a region in words": {"storage": {"region": "us east"}},
    "the name of a Secret in capitals": {"storage": {"existingSecret": "Keys"}},
    "a Secret of headers in two words": traces("http://otel:4318", headersSecret="A b"),
    "a port that is no number": traces("http://otel:abc"),
    "a port that is too large": traces("http://otel:65536"),
    "half of a bracket": traces("http://[::1"),
    "an address without a host": traces("http://:4318"),
    "an index without its port": {"trainer": {"pipIndexUrl": "https://index.example:/simple"}},
    "a misspelled proxy": {"trainer": {"proxy": {"https-proxy": "http://p:3128"}}},
    "a proxy of another protocol": {"trainer": {"proxy": {"https_proxy": "socks5://p:1080"}}},
    "a proxy of the operator": {"operator": {"proxy": {"http_proxy": "http://p:port"}}},
    **{
        f"the name of an object in {key}": {"trainer": {key: value}}
        for key, value in {
            "pullSecrets": ["Team A"],
            "priorityClass": "High!",
            "modelCacheClaim": "models/1",
            "queue": "team_a",
            "hubSecret": "-hub",
        }.items()
    },
    "a label in two words": {"trainer": {"labels": {"cost centre": "7"}}},
    "a label with a sentence": {"trainer": {"labels": {"team": "the first one"}}},
    "an annotation in two words": {"operator": {"podAnnotations": {"cost centre": "7"}}},
    "a label of nodes": {"operator": {"nodeSelector": {"gpu": "a 100"}}},
    "an unknown DNS policy": {"trainer": {"dnsPolicy": "clusterfirst"}},
    "an unknown pull policy": {"trainer": {"imagePullPolicy": "always"}},
    "a variable in two words": {"trainer": {"environment": {"OMP THREADS": "1"}}},
    "a resource without a domain": {"pools": [{"name": "a", "vram": 80, "resource": "gpu"}]},
    "a wait that no Job takes": {"retention": {"finishedJobSeconds": 2**31}},
    "a selector of a label in two words": {"namespaceSelector": {"matchLabels": {"a b": "c"}}},
    "a quota of what is no namespace": {"quotas": {"Team A": {"pods": 1}}},
}

ACCEPTED: dict[str, dict[str, Any]] = {
    "an address of IPv6": traces("http://[fd00::1]:4318/otlp/"),
    "a Service": {"storage": {"endpoint": "http://minio.storage.svc:9000"}},
    "a name of one network": {"storage": {"endpoint": "http://min_io:65535"}},
    "an index below a path": {"trainer": {"pipIndexUrl": "https://index.example:8443/a/b/"}},
    "a proxy without a protocol": {"trainer": {"proxy": {"https_proxy": "10.0.0.5:3128"}}},
    "where no proxy is": {"trainer": {"proxy": {"no_proxy": "*.example,10.0.0.0/8,h:1"}}},
    "a proxy with a user": {"operator": {"proxy": {"https_proxy": "http://u:p%40@p:3128"}}},
    "names with dots": {"trainer": {"priorityClass": "team.high", "pullSecrets": ["a.b-c"]}},
    "a label of a domain": {"trainer": {"labels": {"example.com/cost-centre": ""}}},
    "a variable with dots": {"trainer": {"environment": {"a.b": "x=1"}}},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_values_are_refused(changes: dict[str, Any]) -> None:
    assert not validator(SCHEMA).is_valid(merged(changes))


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_unusual_values_are_taken(changes: dict[str, Any]) -> None:
    validator(SCHEMA).validate(merged(changes))
    platform = {key: changes[key] for key in ("storage", "trainer") if key in changes}
    least = {key: value for key, value in LEAST.items() if key != "operator"}
    Platform.validate_manifest({**least, **{k: {**LEAST[k], **v} for k, v in platform.items()}})
