#!/usr/bin/env bash
# What it shows: MinIO's AssumeRole refuses a session policy that allows kms:GenerateDataKey or
#   kms:Decrypt (InvalidParameterValue, unsupported action), which AWS requires of whoever writes and
#   reads objects with SSE-KMS. MinIO itself encrypts with such a key for any session that may write:
#   it has no rights to single keys, and its policies know other actions of the service "kms".
# Why it matters: one session policy for SSE-KMS does not fit AWS and MinIO. With the rights to the key
#   no session begins on MinIO; without them each write fails on AWS.
# Versions: MinIO of 2026-02-12 (7aac2a2c5b7c), Go 1.26, boto3 1.44.8, Python 3.11.
# Seen: 2026-11-30.
set -euo pipefail

folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
GOBIN=$folder GOFLAGS=-buildvcs=false go install \
  github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" boto3==1.44.8

# Keys that are named need TLS.
mkdir "$folder/certificates"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 \
  -subj /CN=minio -addext subjectAltName=IP:127.0.0.1 2>"$folder/openssl.log" \
  -keyout "$folder/certificates/private.key" -out "$folder/certificates/public.crt"
port=$("$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
MINIO_ROOT_USER=administrator MINIO_ROOT_PASSWORD=administrator MINIO_UPDATE=off MINIO_BROWSER=off \
  MINIO_KMS_SECRET_KEY=one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE= \
  "$folder/minio" server --quiet --address "127.0.0.1:$port" --certs-dir "$folder/certificates" \
  "$folder/data" >"$folder/minio.log" 2>&1 &
server=$!

cat >"$folder/show.py" <<'PYTHON'
"""Begin sessions with and without rights to a key, and write with the key."""
import importlib.metadata
import json
import sys
import time

import boto3
from botocore.exceptions import ClientError, EndpointConnectionError

endpoint, authority = sys.argv[1:]


def client(service, key, secret, token=None):
    return boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1", verify=authority,
        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token,
    )


root = "administrator", "administrator"
for _ in range(60):
    try:
        client("s3", *root).create_bucket(Bucket="bucket")
        break
    except (EndpointConnectionError, ClientError):
        time.sleep(1)


def session(*actions):
    objects = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": ["arn:aws:s3:::bucket/*"]}
    key = {"Effect": "Allow", "Action": [*actions], "Resource": ["*"]}
    policy = {"Version": "2012-10-17", "Statement": [objects, key] if actions else [objects]}
    answer = client("sts", *root).assume_role(
        RoleArn="arn:minio:iam:::role/any", RoleSessionName="any", Policy=json.dumps(policy)
    )["Credentials"]
    return client("s3", answer["AccessKeyId"], answer["SecretAccessKey"], answer["SessionToken"])


print("boto3", importlib.metadata.version("boto3"))
refused = {}
for action in ("kms:GenerateDataKey", "kms:Decrypt"):
    try:
        session(action)
        refused[action] = None
    except ClientError as error:
        refused[action] = error.response["Error"]["Code"], error.response["Error"]["Message"]
    print(f"a session that may {action}: {refused[action] or 'begins'}")
s3 = session()
s3.put_object(Bucket="bucket", Key="a", Body=b"a", ServerSideEncryption="aws:kms", SSEKMSKeyId="one")
read = s3.get_object(Bucket="bucket", Key="a")
print("a session without such a right wrote with the key, and reads:", read["ServerSideEncryption"])
if read["ServerSideEncryption"] != "aws:kms":
    sys.exit("changed: the object is not encrypted with the key")
if any(found is None or "unsupported action" not in found[1] for found in refused.values()):
    sys.exit("changed: rights to keys are accepted in a session policy")
print("as described: MinIO refuses what AWS requires, and does not need it")
PYTHON
"$python" "$folder/show.py" "https://127.0.0.1:$port" "$folder/certificates/public.crt"
