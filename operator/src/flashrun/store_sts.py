"""Requests to STS, which answers credentials that end, and its answers.

minio's own providers send the web identity token in the address, which proxies log and errors
repeat, and drop what STS answers to a refused request. So the two requests are made here.
"""

import hashlib
import urllib.parse
from typing import Any, Final
from xml.etree import ElementTree

import urllib3
from minio.credentials import Credentials
from minio.signer import sign_v4_sts
from minio.time import to_amz_date, utcnow
from pydantic_core import to_json

from flashrun.api.records import StorageAccess
from flashrun.api.storage_endpoint import sts_endpoint
from flashrun.api.times import parse_time
from flashrun.store_refusals import refusal

_SESSION: Final = {"Version": "2011-06-15", "RoleSessionName": "flashrun"}

Form = dict[str, str]


def assume_role_form(policy: dict[str, Any], seconds: int, role_arn: str) -> Form:
    """Return the request for credentials that ``policy`` limits."""
    form = {
        **_SESSION,
        "Action": "AssumeRole",
        "DurationSeconds": str(seconds),
        "Policy": to_json(policy).decode(),
    }
    return form | {"RoleArn": role_arn} if role_arn else form


def web_identity_form(token: str, role_arn: str) -> Form:
    """Return the request for credentials of the role that ``token`` may take.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """
    form = {**_SESSION, "Action": "AssumeRoleWithWebIdentity", "WebIdentityToken": token}
    return form | {"RoleArn": role_arn} if role_arn else form


def request_credentials(
    pool: urllib3.PoolManager, access: StorageAccess, form: Form
) -> StorageAccess:
    """Return ``access`` with the credentials that STS answers; signed if ``access`` has a key.

    Raises:
        StoreError: STS refuses.
        ElementTree.ParseError, LookupError, ValueError: the answer is not that of STS.
        HTTPError: the server did not answer.
    """
    body = urllib.parse.urlencode(form)
    url = urllib.parse.urlsplit(sts_endpoint(access.endpoint, access.region))
    headers: Any = {"Content-Type": "application/x-www-form-urlencoded", "Host": url.netloc}
    if access.access_key:
        headers = _signed(access, url, headers, body)
    response = pool.urlopen("POST", url.geturl(), body=body, headers=headers)
    if response.status != 200:
        code, message = _refusal_texts(response.data)
        name = f"credentials ({form['Action']})"
        raise refusal(access, name, response.status, code, message)
    values = _texts(ElementTree.fromstring(response.data))
    return access.replace(
        access_key=values["AccessKeyId"],
        secret_key=values["SecretAccessKey"],
        session_token=values["SessionToken"],
        expires=parse_time(values["Expiration"]),
    )


def _signed(
    access: StorageAccess, url: urllib.parse.SplitResult, headers: dict[str, str], body: str
) -> Any:
    now = utcnow()
    headers = {**headers, "X-Amz-Date": to_amz_date(now)}
    if access.session_token:
        headers["X-Amz-Security-Token"] = access.session_token
    return sign_v4_sts(
        method="POST",
        url=url,
        region=access.region,
        headers=headers,
        credentials=Credentials(access.access_key, access.secret_key),
        content_sha256=hashlib.sha256(body.encode()).hexdigest(),
        date=now,
    )


def _refusal_texts(body: bytes) -> tuple[str, str]:
    try:
        values = _texts(ElementTree.fromstring(body))
    except ElementTree.ParseError:
        return "", "the answer is not that of STS; does the store offer it?"
    return values.get("Code", ""), values.get("Message", "")


def _texts(answer: ElementTree.Element) -> dict[str, str]:
    return {item.tag.rpartition("}")[2]: item.text or "" for item in answer.iter()}
