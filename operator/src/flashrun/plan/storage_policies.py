"""Who may touch which keys of the bucket, as S3 policies.

A policy travels inline with AssumeRole and limits the credentials that come back; what it does not
allow is refused. Stores accept at most 2,048 characters of it.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from flashrun.api import names

POLICY_LIMIT: Final = 2048
"""Longest policy, in characters of compact JSON."""

_READ: Final = ("s3:GetObject",)
_WRITE: Final = ("s3:PutObject", "s3:AbortMultipartUpload")

Policy = dict[str, Any]


def run_policy(bucket: str, run_prefix: str, heartbeat_key: str, readable: Iterable[str]) -> Policy:
    """Return what the trainer of one run may do.

    It reads and writes below its own prefix and deletes nothing there, so that no attempt can take
    away what another committed; ``readable`` are prefixes of its model, environment and adapter.
    """
    prefixes = sorted(set(readable))
    return _policy(
        _listing(bucket, [run_prefix]),
        _allow(_READ, bucket, [f"{prefix}*" for prefix in (run_prefix, *prefixes)]),
        _allow(_WRITE, bucket, [f"{run_prefix}*"]),
        _allow(("s3:PutObject", "s3:DeleteObject"), bucket, [heartbeat_key]),
    )


def namespace_policy(bucket: str, namespace: str) -> Policy:
    """Return what people of one namespace may do: read its runs, manage environments."""
    runs, environments = names.namespace_prefix(namespace), names.ENVIRONMENTS_PREFIX
    return _policy(
        _listing(bucket, [runs, environments]),
        _allow(_READ, bucket, [f"{runs}*"]),
        _allow((*_READ, *_WRITE, "s3:DeleteObject"), bucket, [f"{environments}*"]),
    )


def _policy(*statements: Policy) -> Policy:
    policy = {"Version": "2012-10-17", "Statement": [one for one in statements if one["Resource"]]}
    length = len(json.dumps(policy, separators=(",", ":")))
    if length > POLICY_LIMIT:
        raise ValueError(
            f"the storage policy has {length} characters and stores accept {POLICY_LIMIT}; "
            "shorten the names of run, model and environment"
        )
    return policy


def _allow(actions: Iterable[str], bucket: str, keys: Iterable[str]) -> Policy:
    resources = [f"arn:aws:s3:::{bucket}/{key}" for key in keys]
    return {"Effect": "Allow", "Action": list(actions), "Resource": resources}


def _listing(bucket: str, prefixes: Iterable[str]) -> Policy:
    return {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}"],
        "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
    }
