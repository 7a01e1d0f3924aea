"""``flash log``: the log of one attempt, from its pod or from storage."""

import json

from flashrun.api import names
from tests.cli.following import Stage
from tests.cli.kubelet import NODE
from tests.cli.shell import Served


def test_the_log_of_a_gone_pod_comes_from_storage(served: Served) -> None:
    served.push()
    name = served.submit()
    uid = served.get("flashrun", name)["metadata"]["uid"]
    prefix = names.run_prefix(served.namespace, name, uid)
    served.store.put_bytes(names.log_key(prefix, 1), b"first\n")
    served.store.put_bytes(names.log_key(prefix, 2), b"second\nlast")
    attempts = [{"number": 1, "pod": "gone-1"}, {"number": 2, "pod": "gone-2"}]
    served.report(name, phase="Failed", attempts=attempts)

    assert served.flash("log", name).stdout == "second\nlast\n"
    assert served.flash("log", name, "--attempt", "1").stdout == "first\n"
    assert served.flash("log", name, "-f").stdout == "first\nsecond\nlast\n"
    assert served.flash("log", name, "--attempt", "7").returncode == 3


def test_every_attempt_is_followed_or_the_one_that_was_asked_for(stage: Stage) -> None:
    for attempt in (1, 2):
        stage.pod(attempt).write(f"of {attempt}")
        stage.ended(attempt)
    stage.report(phase="Failed", **stage.attempts(1, 2, end="2026-11-22T12:00:00Z"))

    assert sorted(stage.served.flash("log", stage.run, "-f").stdout.split("\n")) == [
        "", "of 1", "of 2",
    ]  # fmt: skip
    for attempt in (1, 2):
        words = ("log", stage.run, "--attempt", str(attempt))
        assert stage.served.flash(*words).stdout == f"of {attempt}\n"
        assert stage.served.flash(*words, "-f").stdout == f"of {attempt}\n"


def test_the_log_of_a_node_that_does_not_answer_comes_from_storage(stage: Stage) -> None:
    stage.pod()
    stage.stored("kept\n")
    stage.report(phase="Running", **stage.attempts(1))
    unreachable = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}}
    patch = ("--subresource=status", "--type=merge", "-p")
    stage.served.kubectl("patch", "node", NODE, *patch, json.dumps(unreachable))
    try:
        assert stage.served.flash("log", stage.run).stdout == "kept\n"
    finally:
        stage.served.kubectl("patch", "node", NODE, *patch, stage.kubelet.node_status())
