"""Secret values in text become asterisks."""

import pytest

from flashrun_trainer.pod.redaction import Redactor
from tests.trainer.pods import resolved


def redactor(**environment: str) -> Redactor:
    run = resolved(
        environment={"secrets": ("LISTED",)},
        worker_env={"SHOWN_TOKEN": "shown-value"},
        pip_index_url="https://me:index-password@index.invalid/simple",
    )
    return Redactor.for_run(run, environment, lambda: ("storage-secret",))


@pytest.mark.parametrize(
    ("sentence", "environment", "text", "expected"),
    [
        ("a listed secret", {"LISTED": "abc-123"}, "got abc-123!", "got ***!"),
        ("one named like a secret", {"MY_API_KEY": "abc-123"}, "abc-123", "***"),
        ("the key of W&B", {"WANDB_API_KEY": "wandb-1"}, "wandb-1", "***"),
        ("storage keys", {}, "signed with storage-secret", "signed with ***"),
        ("a password in an address", {}, "https://me:index-password@x", "https://me:***@x"),
        (
            "the password of a proxy",
            {"HTTPS_PROXY": "http://me:pr%40xy-word@proxy.example:3128"},
            "407 for pr@xy-word and pr%40xy-word",
            "407 for *** and ***",
        ),
        ("as part of an address", {"LISTED": "a/b c+d"}, "?key=a%2Fb%20c%2Bd", "?key=***"),
        ("a line of a longer one", {"LISTED": "first line\nsecond one"}, "second one", "***"),
        (
            "a line of one whose lines JSON spells out",
            {"LISTED": r'{"key": "-----BEGIN\nMIIEvgIBADANBg\nEND-----"}'},
            "could not parse MIIEvgIBADANBg",
            "could not parse ***",
        ),
        (
            "one with a line end that does not belong to it",
            {"LISTED": "abc-123\n"},
            "got abc-123!",
            "got ***!",
        ),
        ("inside JSON", {"LISTED": 'pass"wo\\rd'}, r'{"key": "pass\"wo\\rd"}', '{"key": "***"}'),
        ("as Python writes it", {"LISTED": "schlüssel\t1"}, r"'schlüssel\t1'", "'***'"),
        (
            "percent-encoded in small letters",
            {"LISTED": "a/b c+d"},
            "GET /a%2fb%20c%2bd",
            "GET /***",
        ),
        ("as a form sends it", {"LISTED": "a/b c+d"}, "key: a%2Fb+c%2Bd", "key: ***"),
        ("in base64", {"LISTED": "canary-1234"}, "Y2FuYXJ5LTEyMzQ=", "***Q="),
        (
            "in base64, behind a user of one letter",
            {"LISTED": "canary-1234"},
            "sent dTpjYW5hcnktMTIzNA==",
            "sent dTp***A==",
        ),
        (
            "in base64, behind a user of two letters",
            {"LISTED": "canary-1234"},
            "sent bWU6Y2FuYXJ5LTEyMzQ=",
            "sent bWU6***Q=",
        ),
        ("in hexadecimal digits", {"LISTED": "k-1ü+Z"}, "got 6b2d31c3bc2b5a.", "got ***."),
        ("in capital ones", {"LISTED": "k-1ü+Z"}, "got 6B2D31C3BC2B5A.", "got ***."),
        ("inside longer ones", {"LISTED": "k-1ü+Z"}, "0a6b2d31c3bc2b5aff", "0a***ff"),
        ("in digits with spaces", {"LISTED": "k-1+Z!"}, "6b 2d 31 2b 5a 21", "***"),
        ("with colons", {"LISTED": "k-1+Z!"}, "6B:2D:31:2B:5A:21", "***"),
        ("with backslashes", {"LISTED": "k-1+Z!"}, r"b'\x6b\x2d\x31\x2b\x5a\x21'", r"b'\x***'"),
        ("with percent signs", {"LISTED": "k-1+Z!"}, "%6B%2D%31%2B%5A%21", "%***"),
        (
            "as a list of numbers",
            {"LISTED": "k-1+Z!"},
            "[0x6b, 0x2d, 0x31, 0x2b, 0x5a, 0x21]",
            "[0x***]",
        ),
        (
            "the beginning and the end of one in hexadecimal digits that somebody has cut",
            {"LISTED": "canary-1234-and-more"},
            "63616e6172792d3...D6D6F7265, and 63616e617…",
            "***...***, and ***…",
        ),
        (
            "the beginning and the end of one that somebody has cut",
            {"LISTED": "canary-1234-and-more"},
            "input_value='canary-12...and-more', and canary-1234-a…",
            "input_value='***...***', and ***…",
        ),
        (
            "dots behind something else",
            {"LISTED": "canary-1234"},
            "canaries... and so on…",
            "canaries... and so on…",
        ),
        ("half a character", {"LISTED": "abc-123"}, "abc-123 \ud83d", r"*** \ud83d"),
        ("the longer of two first", {"LISTED": "abcdef", "A_TOKEN": "abcdefgh"}, "abcdefgh", "***"),
        ("a value too short to look for", {"LISTED": "true"}, "it is true", "it is true"),
        (
            "a password that nobody listed, in an address",
            {},
            "GET https://user:pass-word@hub.example/x failed",
            "GET https://user:***@hub.example/x failed",
        ),
        (
            "a token in a query",
            {},
            "403 for https://s3.example/x?part=1&X-Amz-Signature=abc123&token=t0k3n done",
            "403 for https://s3.example/x?part=1&X-Amz-Signature=***&token=*** done",
        ),
        (
            "a token in the place of a user",
            {},
            "git+https://ghp_0123456789ab@git.example/x.git",
            "git+https://***@git.example/x.git",
        ),
        ("a user alone", {}, "git+ssh://git@git.example/x", "git+ssh://git@git.example/x"),
        (
            "a signature by its short name",
            {},
            "https://x.example/b?sig=a%2Bb",
            "https://x.example/b?sig=***",
        ),
        (
            "a token behind the address",
            {},
            "see https://x.example/#access_token=abc&state=1",
            "see https://x.example/#access_token=***&state=1",
        ),
        ("an address in JSON", {}, r'"<a href=\"/?key=abc\">"', r'"<a href=\"/?key=***\">"'),
        ("a header", {}, "Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        (
            "a header of bytes",
            {},
            "[(b'Authorization', b'Basic dTpw')]",
            "[(b'Authorization', b'Basic ***')]",
        ),
        (
            "a header of a dict",
            {},
            "{'Authorization': 'Basic dTpw'}",
            "{'Authorization': 'Basic ***'}",
        ),
        (
            "words that begin like one",
            {},
            "basic sums; the bearer of it",
            "basic sums; the bearer of it",
        ),
        (
            "an address without any",
            {},
            "see https://x.example/a?page=2",
            "see https://x.example/a?page=2",
        ),
        ("a question of a prompt", {}, "what? token=7", "what? token=7"),
        ("what nobody calls a secret", {"HOME": "/tmp/home"}, "/tmp/home", "/tmp/home"),
        ("what the spec shows", {"SHOWN_TOKEN": "shown-value"}, "shown-value", "shown-value"),
    ],
)
def test_secret_values_become_asterisks(
    sentence: str, environment: dict[str, str], text: str, expected: str
):
    assert redactor(**environment)(text) == expected


def test_without_a_spec_the_variables_named_like_secrets_are_known_and_nothing_else_changes():
    known = Redactor.for_run(
        None, {"MY_API_KEY": "abc-123", "HOME": "/tmp/home"}, lambda: ("", "storage-key")
    )
    assert known("abc-123 and storage-key, in /tmp/home") == "*** and ***, in /tmp/home"


def test_renewed_keys_are_hidden_and_earlier_ones_stay_hidden():
    keys = ["storage-key-1"]
    known = Redactor.for_run(None, {}, lambda: keys)
    keys[:] = ["storage-key-2"]
    assert known("storage-key-2 after storage-key-1") == "*** after ***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("it is canary-12", "it is ***"),
        ("ry-1234 it is", "*** it is"),
        ("63616e6172792d3", "***"),
        ("72792D31323334, and more", "***, and more"),
        ("a canary in a mine of 1234", "a canary in a mine of 1234"),
    ],
)
def test_parts_of_a_secret_at_the_ends_of_a_fragment_become_asterisks(text: str, expected: str):
    known = redactor(LISTED="canary-1234")
    assert known(text, is_fragment=True) == expected
    assert known(text) == text


def test_a_degenerate_text_is_looked_through_once():
    """Without a limit on the length of a name, matching would take quadratic time."""
    text = "?" + "token" * 100_000
    assert redactor()(text) == text
