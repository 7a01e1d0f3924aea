"""An environment folder is packed into one file and unpacked again."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flashrun import archive
from flashrun.api import secret_patterns
from flashrun.cli.environments import package
from flashrun.cli.output.failure import UsageFailure
from tests.api.test_secret_patterns import HARMLESS, SECRETS
from tests.trainer import archives


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "env"
    (found / "dataset").mkdir(parents=True)
    (found / "environment.py").write_text("def load_environment(): ...\n")
    (found / "dataset" / "train.jsonl").write_text('{"input": "é"}\n')
    return found


def test_equal_content_has_an_equal_digest(folder: Path, tmp_path: Path) -> None:
    first = package.pack(folder)
    package.unpack(first.data, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "environment.py", (1, 1))
    (tmp_path / "copy" / "environment.py").chmod(0o600)

    assert package.pack(tmp_path / "copy") == first
    (folder / "environment.py").write_text("def load_environment(): return 1\n")
    assert package.pack(folder).digest != first.digest


def test_hidden_files_and_caches_are_not_packed_and_are_listed(folder: Path) -> None:
    for name in (".env", ".git/config", "__pycache__/x.pyc", "a.pyc", "mine/lib.py", ".hidden"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("SERVICE_API_KEY=secret")
    (folder / "mine" / "pyvenv.cfg").touch()

    packed = package.pack(folder)

    assert packed.files == ("environment.py", "dataset/train.jsonl")
    assert packed.left_out == (".env", ".git/", ".hidden", "__pycache__/", "a.pyc", "mine/")
    assert b"secret" not in gzip.decompress(packed.data)


def test_data_of_every_kind_is_packed(folder: Path) -> None:
    names = ("dataset/exam.csv", "data.bson", "venv/rows.jsonl", "images/a.png", "LICENSE")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\xff")

    assert {*names} < {*package.pack(folder).files}


def too_many(folder: Path) -> None:
    for number in range(archive.MEMBERS_LIMIT):
        (folder / f"{number}.txt").touch()


def too_large(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        file.truncate(archive.UNPACKED_LIMIT)


def too_dense(folder: Path) -> None:
    (folder / "noise").write_bytes(os.urandom(archive.PACKED_LIMIT))


NOT_PACKED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no environment.py": (
        lambda folder: (folder / "environment.py").unlink(),
        "has no environment.py",
    ),
    "no folder": (lambda folder: folder.rename(folder.with_name("elsewhere")), "is not a folder"),
    "a link to a file": (lambda folder: (folder / "x").symlink_to("/etc/passwd"), "is a link"),
    "a link to a folder": (lambda folder: (folder / "x").symlink_to("/etc"), "is a link"),
    "a link that leads nowhere": (lambda folder: (folder / "x").symlink_to("y"), "is a link"),
    "a pipe": (lambda folder: os.mkfifo(folder / "x"), "is neither a file nor a folder"),
    "a module with the name of a package of the trainer": (
        lambda folder: (folder / "datasets.py").touch(),
        r"env/datasets\.py has the name of a module that the trainer imports",
    ),
    "too many files": (too_many, "at most 5,000"),
    "too many bytes": (too_large, "at most 268,435,456"),
    "too many bytes when packed": (too_dense, "at most 67,108,864"),
}


@pytest.mark.parametrize(("spoil", "sentence"), NOT_PACKED.values(), ids=NOT_PACKED)
def test_it_is_not_packed(folder: Path, spoil: Callable[[Path], object], sentence: str) -> None:
    spoil(folder)

    with pytest.raises(UsageFailure, match=sentence):
        package.pack(folder)


PROJECT = '[project]\nname = "word-game"\ndependencies = ["verifiers%s", "nltk"]\n'


def test_a_project_for_verifiers_is_packed_as_it_is(folder: Path) -> None:
    (folder / "environment.py").unlink()
    (folder / "pyproject.toml").write_text(PROJECT % ">=0.1.9")
    (folder / "word_game.py").write_text("import verifiers\n")
    # It runs in a process of its own, where it may have such a module.
    (folder / "datasets.py").touch()
    packed = package.pack(folder)
    assert {"pyproject.toml", "word_game.py", "datasets.py"} <= set(packed.files)


def test_a_project_for_another_version_of_verifiers_is_refused(folder: Path) -> None:
    (folder / "environment.py").unlink()
    (folder / "pyproject.toml").write_text(PROJECT % ">=0.4")
    with pytest.raises(UsageFailure, match=r"needs 'verifiers>=0\.4', and runs use verifiers 0\.3"):
        package.pack(folder)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_code_that_holds_a_secret_is_refused_with_its_line(folder: Path, secret: str) -> None:
    line = secret.splitlines()[0]
    (folder / "client.py").write_text(f'import os\n\nKEY = "{line}"\n')

    with pytest.raises(UsageFailure, match=r"client\.py:3 seems to hold ") as refused:
        package.pack(folder)
    assert line not in refused.value.sentence + refused.value.hint


TOKENS = [
    text for text in SECRETS.values() if secret_patterns.describe_secret(text) != "a random key"
]


@pytest.mark.parametrize("token", TOKENS)
def test_data_that_holds_a_token_is_refused_too(folder: Path, token: str) -> None:
    line = token.splitlines()[0]
    (folder / "dataset" / "train.jsonl").write_text(f'{{"input": "x"}}\n{{"input": "{line}"}}\n')

    with pytest.raises(UsageFailure, match=r"train\.jsonl:2 seems to hold "):
        package.pack(folder)


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_harmless_text_is_packed(folder: Path, text: str) -> None:
    (folder / "notes.py").write_text(f'"""{text}"""\n')

    assert "notes.py" in package.pack(folder).files


def test_random_text_is_data_and_no_secret_there(folder: Path) -> None:
    random = "q7ZkP0vX2mB9sT4wR8yL1nC6dF3hJ5gA"
    (folder / "dataset" / "train.jsonl").write_text(f'{{"input": "http://x {random}"}}\n')
    package.pack(folder)

    (folder / "environment.py").write_text(f'KEY = "{random}"\n')
    with pytest.raises(UsageFailure, match=r"environment\.py:1 seems to hold a random key"):
        package.pack(folder)


def test_every_secret_is_named_at_once_and_can_be_allowed(folder: Path) -> None:
    for name in ("a.py", "b.py"):
        (folder / name).write_text(f'KEY = "{SECRETS["a GitHub token"]}"\n')

    with pytest.raises(UsageFailure, match=r"a\.py:1 .*b\.py:1 "):
        package.pack(folder)
    assert "b.py" in package.pack(folder, allowed=("a.py", "b.py")).files


@pytest.mark.parametrize(("data", "words"), archives.HOSTILE.values(), ids=archives.HOSTILE)
def test_a_hostile_package_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with pytest.raises(UsageFailure, match=words):
        package.unpack(data, tmp_path / "inside")

    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def packed(*files: tuple[str, bytes]) -> bytes:
    return archives.archive(*(archives.member(name, content=data) for name, data in files))


BOMBS = {
    "a large file": (packed(("x", bytes(10**7))), "unpacks to more than 1,000,000 bytes"),
    "many files": (
        packed(*((f"{n}", bytes(10**4)) for n in range(1000))),
        "unpacks to more than 1,000,000 bytes",
    ),
    "a large header": (packed(("x" * 10**7, b"")), "has a header of more than 65,536 bytes"),
}


@pytest.mark.parametrize(("data", "words"), BOMBS.values(), ids=BOMBS)
def test_an_archive_bomb_stops_at_the_limit(
    data: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_LIMIT", 1_000_000)

    with pytest.raises(UsageFailure, match=words):
        package.unpack(data, tmp_path / "inside")


def test_what_is_unpacked_cannot_be_run(tmp_path: Path) -> None:
    tools = archives.member("tools", tarfile.DIRTYPE)
    script = archives.member("tools/run.sh", content=b"text", mode=0o777)
    archive.unpack(io.BytesIO(archives.archive(tools, script)), tmp_path)

    assert (tmp_path / "tools" / "run.sh").read_bytes() == b"text"
    assert (tmp_path / "tools" / "run.sh").stat().st_mode & 0o111 == 0
