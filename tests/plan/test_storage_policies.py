"""Who may touch which keys: the policies as values, and the same on a real S3 server."""

import json
import re
from pathlib import Path

import pytest

from flashrun.api import names
from flashrun.plan.storage_policies import (
    POLICY_LIMIT,
    mirror_policy,
    namespace_policy,
    run_policy,
    shared_policy,
    with_key,
)
from flashrun.store import Store
from flashrun.store_errors import StorageForbidden

PREFIX = names.run_prefix("team-a", "flash-1", "uid-1")
LIVE = names.heartbeat_key("uid-1")
TOKENIZER_NAMES = ("manifest.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja")
WEIGHT_NAMES = ("model.safetensors", "model-00001-of-00002.safetensors", "f")
LONGEST = f"arn:aws-us-gov:s3:::{'b' * 63}"
READABLE = ("models/org/m/rev/", "environments/org/env/", "runs/team-a/flash-0/uid-0/adapter/")


def test_a_policy_has_room_for_the_longest_names() -> None:
    """The bounds of the config and of Kubernetes names, all at once."""
    prefix = names.run_prefix("n" * 63, "r" * names.RUN_NAME_LIMIT, "u" * 36)
    readable = (
        names.model_prefix("m" * 128, "v" * 64),
        names.environment_prefix("e" * 128),
        names.step_prefix(prefix, 999, 999_999_999),
    )
    policy = run_policy(LONGEST, prefix, names.heartbeat_key("u" * 36), readable)

    assert len(json.dumps(policy, separators=(",", ":"))) <= POLICY_LIMIT


def test_the_policy_of_people_has_room_for_the_longest_names() -> None:
    policy = namespace_policy(LONGEST, "n" * 63, ["n" * 63, "o" * 63])

    assert len(json.dumps(policy, separators=(",", ":"))) <= POLICY_LIMIT


def test_the_policy_of_people_without_an_org_has_no_environments() -> None:
    policy = namespace_policy("arn:aws:s3:::bucket", "team-a", [])

    assert "environments" not in json.dumps(policy)


def test_a_namespace_with_too_many_orgs_has_no_policy() -> None:
    with pytest.raises(ValueError, match="bind fewer orgs to the namespace"):
        namespace_policy("arn:aws:s3:::bucket", "team-a", (f"org-{number}" for number in range(40)))


def test_a_namespace_with_many_orgs_keeps_its_policy_without_the_mirror() -> None:
    orgs = [f"org-{number}" for number in range(10)]
    with_room = namespace_policy("arn:aws:s3:::bucket", "team-a", orgs[:2])
    assert "models/" in json.dumps(with_room)
    while "models/" in json.dumps(
        policy := namespace_policy("arn:aws:s3:::bucket", "team-a", orgs)
    ):
        orgs.append(f"org-{len(orgs)}")

    assert f"environments/{orgs[-1]}/" in json.dumps(policy)


def test_a_policy_of_people_leaves_room_for_the_key_of_the_bucket() -> None:
    """Else storage issues nothing to a namespace whose policy almost fills the limit."""
    key = f"arn:aws:kms:eu-central-1:123456789012:key/{'0' * 36}"
    seen = set()
    for size in range(200, 500):
        orgs = [*("o" * 60 for _ in range(size // 60)), "o" * (size % 60)]
        try:
            policy = namespace_policy(LONGEST, "team-a", orgs, key, weights=True)
        except ValueError:
            seen.add("too many orgs")
            continue
        assert len(json.dumps(with_key(policy, key), separators=(",", ":"))) <= POLICY_LIMIT
        seen.add("mirror" if "models/" in json.dumps(policy) else "no mirror")
    assert seen == {"mirror", "no mirror", "too many orgs"}


@pytest.fixture
def limited(store: Store) -> Store:
    return Store(store.assume(run_policy(store.access.bucket_arn, PREFIX, LIVE, READABLE), 900))


ALLOWED = [
    ("put", f"{PREFIX}attempt-1/claim.json"),
    ("get", f"{PREFIX}metrics.jsonl"),
    ("list", PREFIX),
    ("put", LIVE),
    ("delete", LIVE),
    *[(verb, prefix + suffix) for prefix in READABLE for verb, suffix in (("get", "f"),)],
]
REFUSED = [
    ("delete", f"{PREFIX}attempt-1/claim.json"),
    ("put", "runs/team-a/flash-1/uid-2/result.json"),
    ("get", "runs/team-b/flash-9/uid-9/metrics.jsonl"),
    ("put", "live/uid-2.json"),
    ("delete", "live/uid-2.json"),
    ("put", "models/org/m/rev/f"),
    ("put", "environments/org/env/f"),
    ("get", "environments/org/other/f"),
    ("get", "models/org/m/rev2/f"),
    ("list", "models/org/m/rev/"),
    ("list", "runs/team-a/"),
    ("list", "live/"),
    *((verb, "endings/team-a/flash-1/uid-1.json") for verb in ("get", "put", "delete")),
    ("list", "endings/"),
    ("list", ""),
]


def use(store: Store, verb: str, key: str) -> None:
    match verb:
        case "put":
            store.put_bytes(key, b"1")
        case "get":
            store.get_bytes(key)
        case "delete":
            store.delete([key])
        case "list":
            list(store.list(key))


@pytest.mark.api
@pytest.mark.parametrize(("verb", "key"), ALLOWED)
def test_a_trainer_may(store: Store, limited: Store, verb: str, key: str):
    if verb != "list":
        store.put_bytes(key, b"1")
    use(limited, verb, key)


@pytest.mark.api
@pytest.mark.parametrize(("verb", "key"), REFUSED)
def test_a_trainer_may_not(store: Store, limited: Store, verb: str, key: str):
    if key and verb != "list":
        store.put_bytes(key, b"1")
    with pytest.raises(StorageForbidden):
        use(limited, verb, key)


@pytest.mark.api
@pytest.mark.parametrize(
    ("verb", "key", "allowed"),
    [
        ("get", "runs/team-a/r/u/metrics.jsonl", True),
        ("list", "runs/team-a/r/", True),
        ("put", "environments/org/env/x.tar.gz", True),
        ("get", "environments/org/env/latest.json", True),
        ("list", "environments/org/", True),
        ("put", "environments/team-a/env/latest.json", True),
        ("list", "environments/team-a/", True),
        ("list", "environments/", False),
        ("list", "environments/org2/", False),
        ("put", "environments/team-b/env/latest.json", False),
        ("get", "environments/team-b/env/latest.json", False),
        ("delete", "environments/team-b/env/latest.json", False),
        ("put", "environments/org2/env/latest.json", False),
        ("put", "runs/team-a/r/u/result.json", False),
        ("delete", "runs/team-a/r/u/result.json", False),
        ("delete", "environments/org/env/x.tar.gz", True),
        ("delete", "environments.json", False),
        ("delete", "models/org/m/rev/f", False),
        ("delete", "live/uid.json", False),
        ("get", "runs/team-b/r/u/metrics.jsonl", False),
        ("get", "runs/team-ab/r/u/metrics.jsonl", False),
        *(("get", f"models/org/m/rev/{name}", True) for name in TOKENIZER_NAMES),
        *(("get", f"models/org/m/rev/{name}", False) for name in WEIGHT_NAMES),
        ("list", "models/org/m/", True),
        ("put", "models/org/m/rev/tokenizer.json", False),
        ("delete", "models/org/m/rev/tokenizer.json", False),
        ("list", "runs/", False),
    ],
)
def test_people_of_a_namespace_may_or_may_not(store: Store, verb: str, key: str, allowed: bool):
    person = Store(
        store.assume(namespace_policy(store.access.bucket_arn, "team-a", ["team-a", "org"]), 900)
    )
    if verb != "list":
        store.put_bytes(key, b"1")
    if allowed:
        use(person, verb, key)
    else:
        with pytest.raises(StorageForbidden):
            use(person, verb, key)


@pytest.mark.parametrize("name", [*TOKENIZER_NAMES, *WEIGHT_NAMES])
def test_people_read_whole_models_where_the_mirror_is_readable(store: Store, name: str):
    policy = namespace_policy(store.access.bucket_arn, "team-a", ["team-a", "org"], weights=True)
    person, key = Store(store.assume(policy, 900)), f"models/org/m/rev/{name}"
    store.put_bytes(key, b"1")
    use(person, "get", key)
    with pytest.raises(StorageForbidden):
        use(person, "put", key)


def test_an_ordinary_policy_is_short_and_an_endless_one_is_refused():
    long = names.run_prefix("n" * 63, "r" * 52, "u" * 36)
    readable = [f"models/{'o' * 60}/{'m' * 36}/{'0' * 40}/", f"environments/{'o' * 40}/{'e' * 40}/"]
    policy = run_policy(
        "b" * 63, long, names.heartbeat_key("u" * 36), [*readable, f"{long}adapter/"]
    )
    assert len(json.dumps(policy, separators=(",", ":"))) <= POLICY_LIMIT
    with pytest.raises(ValueError, match="shorten the names"):
        run_policy("arn:aws:s3:::b", long, LIVE, ["x" * 2048])


@pytest.mark.api
def test_the_keys_of_the_mirror_open_models_and_nothing_else(store: Store) -> None:
    mirror = Store(store.assume(mirror_policy(store.access.bucket_arn), 900))
    for verb in ("put", "get", "list", "delete"):
        use(mirror, verb, "models/org/m/1/" if verb == "list" else "models/org/m/1/f")
    for folder in ("runs/team-a/r/u/", "environments/org/env/", "live/", "endings/", ""):
        store.put_bytes(f"{folder}f", b"1")
        for verb in ("put", "get", "list", "delete"):
            with pytest.raises(StorageForbidden):
                use(mirror, verb, folder if verb == "list" else f"{folder}f")


def test_the_policy_of_shared_keys_is_the_documented_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
    [shown] = re.findall(r"```json\n(\{\s+\"Version\".*?)```", page, re.DOTALL)

    assert json.loads(shown) == shared_policy("arn:aws:s3:::flashrun")


@pytest.mark.api
def test_keys_that_all_share_open_no_record_that_the_operator_believes(store: Store) -> None:
    shared = Store(store.assume(shared_policy(store.access.bucket_arn), 900))
    for folder in ("runs/team-a/r/u/", "environments/org/env/", "live/", "probe/namespaces/n/"):
        for verb in ("put", "get", "list", "delete"):
            use(shared, verb, folder if verb == "list" else f"{folder}f")
    for folder in ("endings/team-a/", "known/installation/", "models/org/m/1/"):
        store.put_bytes(f"{folder}f", b"1")
        for verb in ("put", "delete", *([] if folder.startswith("models/") else ["get", "list"])):
            with pytest.raises(StorageForbidden):
                use(shared, verb, folder if verb == "list" else f"{folder}f")
    use(shared, "get", "models/org/m/1/f")
