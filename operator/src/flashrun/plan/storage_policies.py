"""S3 policies: which keys of the bucket a trainer and a user may read and write.

A policy is sent with AssumeRole, and the credentials in the answer allow nothing else. S3 accepts
at most 2,048 characters.
"""

import contextlib
import json
from collections.abc import Iterable
from typing import Any, Final

from flashrun.api import names
from flashrun.api.trainable_models import TOKENIZER_FILES

POLICY_LIMIT: Final = 2048
"""Maximum length of a policy, in characters of compact JSON."""

_READ: Final = ("s3:GetObject",)
_WRITE: Final = ("s3:PutObject", "s3:AbortMultipartUpload")

Policy = dict[str, Any]


def run_policy(
    bucket_arn: str, run_prefix: str, heartbeat_key: str, readable: Iterable[str]
) -> Policy:
    """Return what the trainer of one run may do.

    It reads and writes below its own prefix, and cannot delete there: an attempt cannot remove what
    another one has committed. ``readable`` are the prefixes of its model, environment and adapter.
    """
    prefixes = sorted(set(readable))
    return _policy(
        _listing(bucket_arn, [run_prefix]),
        _allow(_READ, bucket_arn, [f"{prefix}*" for prefix in (run_prefix, *prefixes)]),
        _allow(_WRITE, bucket_arn, [f"{run_prefix}*"]),
        _allow(("s3:PutObject", "s3:DeleteObject"), bucket_arn, [heartbeat_key]),
    )


def namespace_policy(
    bucket_arn: str,
    namespace: str,
    orgs: Iterable[str],
    kms_key: str = "",
    *,
    weights: bool = False,
) -> Policy:
    """Return what the users of a namespace may do: read its runs, manage environments of ``orgs``.

    They may also write what ``flash doctor`` tries storage with, and read the tokenizers of
    mirrored models if the policy has room for it; with ``weights``, all files of these models. The
    policy has room for the right to use ``kms_key``.

    Raises:
        ValueError: the policy is too long, because the namespace has too many orgs.
    """
    runs, environments = names.namespace_prefix(namespace), [*map(names.org_prefix, orgs)]
    writable = [*environments, names.namespace_probe_prefix(namespace)]
    manage = _allow(
        (*_READ, *_WRITE, "s3:DeleteObject"), bucket_arn, [f"{prefix}*" for prefix in writable]
    )
    files = ("*",) if weights else TOKENIZER_FILES
    models = [f"{names.MODELS_PREFIX}{pattern}" for pattern in files]
    with contextlib.suppress(ValueError):
        policy = _policy(
            _listing(bucket_arn, [runs, *writable, names.MODELS_PREFIX]),
            _allow(_READ, bucket_arn, [f"{runs}*", *models]),
            manage,
        )
        with_key(policy, kms_key)
        return policy
    policy = _policy(
        _listing(bucket_arn, [runs, *writable]), _allow(_READ, bucket_arn, [f"{runs}*"]), manage
    )
    with_key(policy, kms_key)
    return policy


def mirror_policy(bucket_arn: str) -> Policy:
    """Return what those who manage the model mirror may do: everything below ``models/``."""
    return _policy(
        _listing(bucket_arn, [names.MODELS_PREFIX]),
        _allow((*_READ, *_WRITE, "s3:DeleteObject"), bucket_arn, [f"{names.MODELS_PREFIX}*"]),
    )


def shared_policy(bucket_arn: str) -> Policy:
    """Return what the keys need that all trainers and users of a store without STS share.

    They keep no teams apart, but reach no record that the operator believes: of an end, or of a run
    that it knows. An administrator gives them to a user of the store.
    """
    written = (names.RUNS_PREFIX, names.HEARTBEAT_PREFIX, names.ENVIRONMENTS_PREFIX)
    return _policy(
        _listing(bucket_arn, [*written, names.MODELS_PREFIX, names.PROBE_PREFIX]),
        _allow(_READ, bucket_arn, [f"{names.MODELS_PREFIX}*"]),
        _allow(
            (*_READ, *_WRITE, "s3:DeleteObject"),
            bucket_arn,
            [f"{prefix}*" for prefix in (*written, names.PROBE_PREFIX)],
        ),
    )


def with_key(policy: Policy, kms_key: str) -> Policy:
    """Return ``policy`` with the right to encrypt and decrypt with the key of the bucket.

    Raises:
        ValueError: the policy is too long.
    """
    if not kms_key:
        return policy
    key = kms_key if kms_key.startswith("arn:") else "*"  # of what the role itself may use
    actions = ["kms:GenerateDataKey", "kms:Decrypt"]
    return _policy(*policy["Statement"], {"Effect": "Allow", "Action": actions, "Resource": [key]})


def _policy(*statements: Policy) -> Policy:
    policy = {
        "Version": "2012-10-17",
        "Statement": [statement for statement in statements if statement["Resource"]],
    }
    length = len(json.dumps(policy, separators=(",", ":")))
    if length > POLICY_LIMIT:
        raise ValueError(
            f"the storage policy has {length} characters and stores accept {POLICY_LIMIT}: "
            "shorten the names of run, model and environment, or bind fewer orgs to the namespace "
            "(environments.owners)"
        )
    return policy


def _allow(actions: Iterable[str], bucket_arn: str, keys: Iterable[str]) -> Policy:
    resources = [f"{bucket_arn}/{key}" for key in keys]
    return {"Effect": "Allow", "Action": list(actions), "Resource": resources}


def _listing(bucket_arn: str, prefixes: Iterable[str]) -> Policy:
    return {
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [bucket_arn],
        "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
    }
