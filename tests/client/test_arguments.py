"""Arguments of a wrong type, and text that cannot be what it is given for, are refused in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flashrun import Client
from flashrun.client import InvalidRequest

RUN = "flash-1-a"
CONFIG = {"model": "m/n", "algorithm": "sft", "environment": {"id": "org/env"}}
REFUSALS: list[tuple[Callable[[Any], object], str]] = [
    (lambda client: Client(5), "namespace has to be text, and is of type int"),
    (lambda client: Client("a/b?x"), "'a/b\\?x' is not the name of a namespace"),
    (lambda client: Client(""), "'' is not the name of a namespace"),
    (lambda client: Client(context=5), "context has to be text"),
    (lambda client: Client(kubeconfig=5), "kubeconfig has to be a path, and is of type int"),
    (lambda client: Client(kubeconfig="~nobody-here/x"), "'~nobody-here/x' is not a path"),
    (lambda client: client.run(None), "the name of a run has to be text"),
    (lambda client: client.run(client.run(RUN)), "has to be text, and is of type Run"),
    (lambda client: client.run(RUN).history(["loss"]), "each metric has to be text"),
    (lambda client: client.pull(Path(RUN)), "ref has to be text"),
    (lambda client: client.pull(RUN, 5), "folder has to be a path"),
    (lambda client: client.pull(RUN, "a\0b"), "folder 'a.x00b' is not a path"),
    (lambda client: client.run(RUN).pull(step=-1), "is not an adapter reference"),
    (lambda client: client.submit(None), "config has to be the path of a file or a dict"),
    (lambda client: client.submit([CONFIG]), "config has to be .* is of type list"),
    (lambda client: client.submit(b"a.toml"), "config has to be .* is of type bytes"),
    (lambda client: client.submit("a\0b"), "config 'a.x00b' is not a path"),
    (lambda client: client.submit(CONFIG, overlays="more.toml"), "overlays has to be a list"),
    (lambda client: client.submit(CONFIG, overlays={"train": {}}), "overlays has to be a list"),
    (lambda client: client.submit(CONFIG, overlays=None), "overlays has to be a list"),
    (lambda client: client.submit(CONFIG, overlays=[None]), "overlay 1 has to be the path"),
    (lambda client: client.submit(CONFIG, overrides=["a=1"]), "overrides has to be a dict"),
    (lambda client: client.submit(CONFIG, overrides={5: 1}), "a key of overrides has to be text"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "sentence"), REFUSALS, ids=[text for _, text in REFUSALS])
def test_what_an_argument_cannot_be_is_refused(act: Callable[[Any], object], sentence: str) -> None:
    with Client(kubeconfig="absent") as client, pytest.raises(InvalidRequest, match=sentence):
        act(client)


def test_a_tilde_is_the_folder_of_the_user_for_what_is_pulled_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "file").touch()

    refused = pytest.raises(InvalidRequest, match=f"{tmp_path}/adapter exists already")
    with Client(kubeconfig="absent") as client, refused:
        client.pull(RUN, "~/adapter")
