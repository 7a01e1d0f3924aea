"""What an address says: AWS's partition and STS, or a Service inside the cluster."""

import pytest

from flashrun.api.storage_endpoint import bucket_arn, in_cluster_service, sts_endpoint

AWS = {
    "China": ("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1", "aws-cn"),
    "GovCloud": ("https://s3.us-gov-west-1.amazonaws.com", "us-gov-west-1", "aws-us-gov"),
    "Europe, sovereign": ("https://s3.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1", "aws-eusc"),
    "commercial": ("https://s3.eu-central-1.amazonaws.com", "eu-central-1", "aws"),
    "without region": ("https://s3.amazonaws.com", "us-east-1", "aws"),
}
STS = {
    "China": "https://sts.cn-north-1.amazonaws.com.cn/",
    "GovCloud": "https://sts.us-gov-west-1.amazonaws.com/",
    "Europe, sovereign": "https://sts.eusc-de-east-1.amazonaws.eu/",
    "commercial": "https://sts.eu-central-1.amazonaws.com/",
    "without region": "https://sts.us-east-1.amazonaws.com/",
}


@pytest.mark.parametrize("name", AWS)
def test_each_partition_of_aws_has_its_own_arns_and_its_own_sts(name: str) -> None:
    endpoint, region, partition = AWS[name]
    assert bucket_arn(endpoint, region, "runs") == f"arn:{partition}:s3:::runs"
    assert sts_endpoint(endpoint, region) == STS[name]


@pytest.mark.parametrize("host", ["minio.storage", "s3.example", "amazonaws.com.example", "[::1]"])
def test_other_servers_know_one_partition_and_are_their_own_sts(host: str) -> None:
    endpoint = f"http://{host}:9000"
    assert bucket_arn(endpoint, "us-gov-west-1", "runs") == "arn:aws:s3:::runs"
    assert sts_endpoint(endpoint, "cn-north-1") == f"{endpoint}/"


SERVICES = {
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


@pytest.mark.parametrize(("host", "service"), SERVICES.items())
def test_a_service_of_the_cluster_is_known_by_its_name(
    host: str, service: tuple[str, str] | None
) -> None:
    assert in_cluster_service(host) == service
