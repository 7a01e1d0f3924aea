"""Which endpoints need a port-forward; forwarding itself is tried with real pods."""

import pytest

from flashrun.port_forward import in_cluster_service

ENDPOINTS = {
    "minio.storage.svc.cluster.local": ("minio", "storage"),
    "minio.storage.svc": ("minio", "storage"),
    "minio.storage": ("minio", "storage"),
    "minio": None,
    "s3.example.com": None,
    "s3.eu-central-1.amazonaws.com": None,
    "10.0.0.1": None,
    "::1": None,
    "localhost": None,
    "": None,
}


@pytest.mark.parametrize(("host", "service"), ENDPOINTS.items())
def test_a_service_of_the_cluster_is_known_by_its_name(
    host: str, service: tuple[str, str] | None
) -> None:
    assert in_cluster_service(host) == service
