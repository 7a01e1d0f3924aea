"""The DNS server answers for Services and their pods, and asks others for the rest."""

import json
import os
import secrets
import socket
import struct
import subprocess
import threading

import pytest

from localcluster import toolchain
from localcluster.controlplane import ControlPlane
from localcluster.dns import NameServer, names_a_server
from localcluster.process import wait_until
from localcluster.steps import StepRunner

pytestmark = pytest.mark.api

OUTSIDE = "192.0.2.7"


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    steps = StepRunner.silent(tmp_path_factory.mktemp("steps"))
    yield steps
    steps.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, steps):
    """The DNS server of an empty control plane."""
    folder = tmp_path_factory.mktemp("cluster")
    control = ControlPlane(folder / "control-plane", ephemeral=True)
    upstream = folder / "resolv.conf"
    upstream.write_text("search somewhere\nnameserver 127.0.0.99\n")
    control.start(steps)
    server = NameServer(folder / "dns", control, upstream=upstream, ephemeral=True)
    server.start(steps)
    yield server
    server.stop()
    control.remove()


@pytest.fixture
def outside():
    """This machine's own name server, for which every name is OUTSIDE."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.99", 53))
        threading.Thread(target=answer_everything, args=(listening,), daemon=True).start()
        yield


def answer_everything(outside):
    while True:
        try:
            question, who = outside.recvfrom(512)
        except OSError:
            return  # the test is over
        section = question[12 : question.index(b"\0", 12) + 5]
        head = question[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0)
        record = b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 60, 4) + socket.inet_aton(OUTSIDE)
        outside.sendto(head + section + record, who)


def addresses(server, name):
    """The IPv4 addresses a DNS server knows for a name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    number = secrets.token_bytes(2)
    question = number + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + labels + b"\0\0\x01\0\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(question, (server.address, server.port))
        answer = asking.recv(2048)
    assert answer[:2] == number
    count = struct.unpack(">H", answer[6:8])[0]
    at, found = len(question), []
    for _ in range(count):
        at += 2 if answer[at] >= 0xC0 else answer.index(b"\0", at) - at + 1
        kind, _, _, length = struct.unpack(">2HIH", answer[at : at + 10])
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at + 10 : at + 10 + length]))
        at += 10 + length
    return sorted(found)


def apply(server, steps, *objects):
    argv = [toolchain.server("kubectl", steps), f"--kubeconfig={server.control.kubeconfig}"]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    subprocess.run([*argv, "apply", "-f", "-"], input=listed, text=True, check=True)


def headless(name, pods):
    """A Service without an address of its own, and the pods behind it by their host names."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": "None"},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": [address], "hostname": host} for host, address in pods.items()
            ],
        },
    ]


def test_a_service_is_found_by_its_name(server, steps):
    service = {"clusterIP": "10.250.0.77", "ports": [{"port": 80}]}
    metadata = {"name": "web", "namespace": "default"}
    apply(
        server,
        steps,
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    )

    name = "web.default.svc.cluster.local"
    assert wait_until(lambda: addresses(server, name) == ["10.250.0.77"], 5)


def test_a_pod_is_found_by_its_host_name_as_soon_as_it_is_there(server, steps):
    name = "peers.default.svc.cluster.local"
    assert addresses(server, f"one.{name}") == []
    apply(server, steps, *headless("peers", {"one": "10.1.0.1", "two": "10.1.0.2"}))

    assert wait_until(lambda: addresses(server, f"one.{name}") == ["10.1.0.1"], 5)
    assert addresses(server, name) == ["10.1.0.1", "10.1.0.2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 needs root")
@pytest.mark.usefixtures("outside")
def test_other_names_are_asked_of_this_machines_servers(server):
    assert addresses(server, "example.com") == [OUTSIDE]


def test_starting_again_changes_nothing_and_other_servers_outside_restart_it(server, steps):
    before = server.daemons.pid("coredns")
    server.start(steps)
    assert server.daemons.pid("coredns") == before

    server.upstream.write_text("nameserver 127.0.0.98\n")
    server.start(steps)
    assert server.daemons.pid("coredns") not in (None, before)


def test_its_right_is_to_read_names_and_nothing_else(server, steps):
    own = server.control.authority.folder / "coredns.kubeconfig"
    argv = [toolchain.server("kubectl", steps), f"--kubeconfig={own}", "auth", "can-i"]
    asked = {
        ("list", "services"): "yes",
        ("watch", "endpointslices.discovery.k8s.io"): "yes",
        ("list", "secrets"): "no",
        ("list", "pods"): "no",
        ("create", "services"): "no",
    }
    answers = {
        words: subprocess.run([*argv, *words, "-A"], capture_output=True, text=True).stdout.strip()
        for words in asked
    }
    assert answers == asked


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("nameserver 127.0.0.53\noptions edns0\n", True),
        ("# nameserver 10.0.0.1\nsearch example.com\n", False),
        ("", False),
        (None, False),
    ],
)
def test_a_machine_without_a_name_server_forwards_nothing(tmp_path, text, answer):
    file = tmp_path / "resolv.conf"
    if text is not None:
        file.write_text(text)
    assert names_a_server(file) is answer
