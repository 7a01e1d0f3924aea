#!/usr/bin/env bash
# What it shows: a copy onto an existing key with If-None-Match: *, which S3 and boto3 document as
#   refused with 412. moto's server obeys the condition in a PUT and when it completes a multipart
#   upload, and ignores it in CopyObject: the object is replaced.
# Why it matters: tests of the usual pattern, which uploads to a temporary key and copies to the final
#   one unless it exists, see two winners with moto where S3 has one.
# Versions: moto 5.2.1, boto3 1.44.8, Python 3.11.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" 'moto[server]==5.2.1' boto3==1.44.8

cat >"$folder/show.py" <<'PYTHON'
"""Write an existing key in three ways, each time only if it does not exist."""
import importlib.metadata
import sys

import boto3
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

KEY = {"Bucket": "bucket", "Key": "manifest.json"}


def put(body: bytes) -> dict:
    return s3.put_object(**KEY, Body=body, IfNoneMatch="*")


def upload(body: bytes) -> dict:
    upload = {**KEY, "UploadId": s3.create_multipart_upload(**KEY)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    return s3.complete_multipart_upload(**upload, MultipartUpload=parts, IfNoneMatch="*")


def copy(body: bytes) -> dict:
    source = {"Bucket": "bucket", "Key": "temporary"}
    s3.put_object(**source, Body=body)
    return s3.copy_object(**KEY, CopySource=source, IfNoneMatch="*")


def status(write, body: bytes) -> int:
    try:
        return write(body)["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
host, port = server.get_host_and_port()
s3 = boto3.client(
    "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
    aws_access_key_id="any", aws_secret_access_key="any",
)
s3.create_bucket(Bucket="bucket")

print("moto", importlib.metadata.version("moto"))
first = status(put, b"first")
results = {}
for write in (put, upload, copy):
    results[write.__name__] = status(write, b"second"), s3.get_object(**KEY)["Body"].read()
server.stop()
print("put of a new key:", first)
for name, (code, content) in results.items():
    print(f"{name} onto the same key: {code}, the object is {content}")
if first != 200 or results["put"] != (412, b"first") or results["upload"] != (412, b"first"):
    sys.exit("changed: a PUT or a multipart upload does not obey If-None-Match any more")
if results["copy"] != (200, b"second"):
    sys.exit("changed: the copy does not replace the object any more")
print("as described: If-None-Match is ignored by CopyObject")
PYTHON
"$python" "$folder/show.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
