"""Ports are picked once, remembered, and never taken from somebody else."""

import socket

import pytest

from localcluster.ports import HIGHEST, LOWEST, Ports
from localcluster.steps import FatalError


def test_a_port_is_remembered(tmp_path):
    first = Ports(tmp_path / "ports.json").get("etcd")
    assert Ports(tmp_path / "ports.json").get("etcd") == first
    assert LOWEST <= first <= HIGHEST


def test_a_file_that_is_made_anew_has_the_same_ports_if_they_are_free(tmp_path):
    ports = Ports(tmp_path / "ports.json")
    first, second = ports.get("registry"), ports.get("storage")
    ports.file.unlink()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", first))
        stranger.listen()
        assert ports.get("registry") != first
    assert ports.get("storage") == second


def test_two_servers_get_two_ports(tmp_path):
    ports = Ports(tmp_path / "ports.json")
    assert len({ports.get(f"server-{n}") for n in range(50)}) == 50


def test_a_remembered_port_that_somebody_took_ends_in_a_sentence(tmp_path):
    ports = Ports(tmp_path / "ports.json")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", ports.get("etcd")))
        stranger.listen()
        with pytest.raises(FatalError, match=r"which etcd had before, is taken .* run `make down`"):
            ports.get("etcd")


def test_a_port_its_own_server_holds_is_fine(tmp_path):
    ports = Ports(tmp_path / "ports.json")
    with socket.socket() as own:
        own.bind(("127.0.0.1", ports.get("etcd")))
        own.listen()
        assert ports.get("etcd", running=True) == own.getsockname()[1]
