"""What the log lines of a run's pods look like, and which containers have a log."""

from typing import Any

import pytest

from flashrun.api import names
from flashrun.cli.cluster.run_logs import (
    LONGEST_LINE,
    format_log_line,
    node_prefix,
    started_containers,
)


def pod(**states: dict[str, Any]) -> dict[str, Any]:
    statuses = [{"name": name, "state": state} for name, state in states.items()]
    return {
        "metadata": {},
        "status": {
            "initContainerStatuses": [item for item in statuses if item["name"] != "trainer"],
            "containerStatuses": [item for item in statuses if item["name"] == "trainer"],
        },
    }


@pytest.mark.parametrize(
    ("container", "prefix", "line"),
    [
        ("trainer", "", "text"),
        ("model", "", "[model] text"),
        ("trainer", "node 1", "[node 1] text"),
        ("packages", "node 1", "[node 1 packages] text"),
    ],
)
def test_a_line_names_its_node_and_its_init_container(
    container: str, prefix: str, line: str
) -> None:
    assert format_log_line(container, "text", prefix) == line


def test_a_long_line_is_cut() -> None:
    assert format_log_line("trainer", "x" * (LONGEST_LINE + 1)) == "x" * LONGEST_LINE + "… (cut)"


def test_the_first_pod_has_no_prefix() -> None:
    labels = {names.POD_INDEX_LABEL: "2"}

    assert node_prefix({"metadata": {}}) == ""
    assert node_prefix({"metadata": {"labels": labels}}) == "node 2"


def test_containers_are_listed_in_the_order_in_which_they_run() -> None:
    ended = {"terminated": {"exitCode": 0, "containerID": "c"}}

    assert started_containers(pod(trainer={"running": {}}, packages=ended, model=ended)) == [
        "model",
        "packages",
        "trainer",
    ]


def test_a_container_that_was_never_created_has_no_log() -> None:
    refused = {"terminated": {"exitCode": 128}}

    assert started_containers(pod(model=refused, trainer={"waiting": {}})) == []
