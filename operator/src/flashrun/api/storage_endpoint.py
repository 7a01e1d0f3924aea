"""What the address of storage says: AWS's partition, its STS, or a Service inside the cluster.

AWS names buckets in policies by partition, and has an STS of its own in each region:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
"""

import contextlib
import ipaddress
from typing import Final
from urllib.parse import urlsplit

_PARTITIONS: Final = {
    "amazonaws.com": "aws",
    "amazonaws.com.cn": "aws-cn",
    "amazonaws.eu": "aws-eusc",
    "c2s.ic.gov": "aws-iso",
    "sc2s.sgov.gov": "aws-iso-b",
}
"""Domain of AWS's endpoints → name of the partition in ARNs."""
_US_GOV: Final = "us-gov-"
"""Beginning of the regions of a partition that shares the domain of the first one."""


def bucket_arn(endpoint: str, region: str, bucket: str) -> str:
    """Return how a policy names ``bucket``; other servers than AWS expect the partition aws."""
    domain = _aws_domain(endpoint)
    partition = _PARTITIONS.get(domain, "aws")
    if domain and region.startswith(_US_GOV):
        partition = "aws-us-gov"
    return f"arn:{partition}:s3:::{bucket}"


def sts_endpoint(endpoint: str, region: str) -> str:
    """Return the URL of STS: the S3 endpoint itself, except on AWS."""
    if domain := _aws_domain(endpoint):
        return f"https://sts.{region}.{domain}/"
    return endpoint.rstrip("/") + "/"


def is_aws(endpoint: str) -> bool:
    """Return whether the server at ``endpoint`` is AWS's own."""
    return bool(_aws_domain(endpoint))


def in_cluster_service(host: str) -> tuple[str, str] | None:
    """Return name and namespace of the Service with the DNS name ``host``, or None."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return None
    parts = host.split(".")
    in_cluster = len(parts) == 2 or parts[2:3] == ["svc"]
    return (parts[0], parts[1]) if in_cluster else None


def _aws_domain(endpoint: str) -> str:
    """Return the domain of AWS that ``endpoint`` is in; empty for other servers."""
    host = urlsplit(endpoint).hostname or ""
    return next((domain for domain in _PARTITIONS if host.endswith(f".{domain}")), "")
