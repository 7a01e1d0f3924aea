"""Requests to the Kubernetes API: their paths, and the error for each refusal, without a server."""

import json
from typing import Any

import pytest

from flashrun.cluster_errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unreachable,
)
from flashrun.cluster_requests import (
    RESOURCES,
    ListExpired,
    Request,
    ServerDocument,
    manifest_request,
    one_line,
    refusal,
    status_object,
)

POD = Request("get", "GET", RESOURCES["Pod"], "team", "x")

PATHS = {
    "an object of the core group": (POD, "/api/v1/namespaces/team/pods/x"),
    "a subresource": (
        POD._replace(subresource="log"),
        "/api/v1/namespaces/team/pods/x/log",
    ),
    "a collection of a named group": (
        Request("list", "GET", RESOURCES["Job"], "team"),
        "/apis/batch/v1/namespaces/team/jobs",
    ),
    "a collection in all namespaces": (
        Request("list", "GET", RESOURCES["Pod"], None),
        "/api/v1/pods",
    ),
    "an object without a namespace": (
        Request("get", "GET", RESOURCES["Node"], "team", "n"),
        "/api/v1/nodes/n",
    ),
    "a document about the server": (
        Request("get", "GET", ServerDocument("/version", "version"), None),
        "/version",
    ),
}


@pytest.mark.parametrize(("request_", "path"), PATHS.values(), ids=PATHS.keys())
def test_a_request_has_the_path_of_its_object(request_: Request, path: str) -> None:
    assert request_.path == path


def test_a_manifest_gives_its_request_kind_namespace_and_name() -> None:
    manifest = {"kind": "ConfigMap", "metadata": {"name": "x", "namespace": "n"}}
    patch = manifest_request(manifest, "patch", "PATCH", "me")
    assert patch.path == "/api/v1/namespaces/n/configmaps/x"
    assert patch.query == (("fieldManager", "me"),)
    assert patch.body == manifest
    create = manifest_request(manifest, "create", "POST", "me", named=False)
    assert create.path == "/api/v1/namespaces/n/configmaps"


def body(reason: str = "", message: str = "because", **details: Any) -> bytes:
    return json.dumps({"reason": reason, "message": message, "details": details}).encode()


CREATE = POD._replace(verb="create", name="")
CAUSES = [{"field": "<nil>", "message": "too\nbig"}, {"field": "spec.a", "message": "Required"}]

REFUSALS = {
    "a login that expired": (POD, 401, b"", Forbidden, "log in again"),
    "a quota": (
        CREATE,
        403,
        body("Forbidden", "exceeded quota: gpus"),
        Forbidden,
        "pods in namespace team cannot be created: exceeded quota: gpus",
    ),
    "a right that is missing": (
        POD._replace(subresource="log"),
        403,
        body("Forbidden", "user cannot get it"),
        Forbidden,
        "you may not get pods/log in namespace team; .*auth can-i get pods/log -n team checks",
    ),
    "a policy": (
        CREATE,
        403,
        body("Forbidden", "denied:\n no"),
        Forbidden,
        "the cluster's policy refuses pods in namespace team: denied: no",
    ),
    **{
        f"a webhook that denies with status {status}": (
            CREATE,
            status,
            body("", 'admission webhook "costs.example" denied the request: no cost centre'),
            Forbidden,
            "policy refuses pods in namespace team: .* denied the request: no cost centre",
        )
        for status in (400, 401, 403, 404, 409, 410, 418, 422, 500)
    },
    "an admission policy": (
        CREATE,
        422,
        body("Invalid", "ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no centre"),
        Forbidden,
        "policy refuses pods in namespace team: .* denied request: no centre",
    ),
    "a kind that is not installed": (CREATE, 404, b"", NotFound, "does not know pods"),
    "a namespace that is not there": (
        CREATE,
        404,
        body(kind="namespaces"),
        NotFound,
        "namespace team does not exist",
    ),
    "an object that is not there": (POD, 404, b"", NotFound, "pods x in namespace team does not"),
    "an object that is there": (
        CREATE,
        409,
        body("AlreadyExists", name="x"),
        AlreadyExists,
        "x exists already",
    ),
    "a change in between": (POD, 409, body("Conflict"), Conflict, "changed by someone else"),
    "a list that took too long": (POD, 410, body("Expired"), ListExpired, "because"),
    "fields that are wrong": (
        CREATE,
        422,
        body("Invalid", causes=CAUSES),
        Invalid,
        "is refused: too big; spec.a: Required",
    ),
    "a busy server": (POD, 503, b"busy", Unreachable, "not able to get pods x .* now: HTTP 503"),
}


@pytest.mark.parametrize(
    ("request_", "status", "text", "kind", "sentence"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_each_refusal_has_its_error_and_its_sentence(
    request_: Request, status: int, text: bytes, kind: type[ClusterError], sentence: str
) -> None:
    error = refusal(request_, status, text)
    assert type(error) is kind
    with pytest.raises(kind, match=sentence):
        raise error


@pytest.mark.parametrize("text", [b"", b"<html>", b"[1]", b"\xff"])
def test_an_answer_that_holds_no_object_is_empty(text: bytes) -> None:
    assert status_object(text) == {}


def test_a_message_of_several_lines_becomes_one() -> None:
    assert one_line(" a\n\tb ") == "a b"
