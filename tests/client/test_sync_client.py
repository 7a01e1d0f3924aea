"""The client of notebooks and scripts, with a real API server and real storage."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flashrun import Client
from flashrun.api import names
from flashrun.client import (
    DoesNotExist,
    FlashRunError,
    InvalidConfig,
    InvalidRequest,
    Run,
    RunFailed,
)
from tests.cli.conftest import serving
from tests.cli.following import wait_until
from tests.cli.shell import WITH_SECRETS, Served
from tests.client.played_run import HISTORY, succeed, train
from tests.servers import Minio

CONFIG: dict[str, Any] = {
    "model": "Qwen/Qwen3.5-4B",
    "algorithm": "sft",
    "environment": {"id": "your-org/your-env"},
    "train": {"epochs": 3},
}


def submitted(served: Served, client: Client) -> Run:
    served.push()
    return client.submit("config.toml")


def ended(served: Served, client: Client) -> Run:
    run = submitted(served, client)
    succeed(served, run.name)
    return run


def test_a_run_is_followed_from_its_submission_to_its_adapter(
    served: Served, client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    run = submitted(served, client)
    acts = {"Pending": train, "Running": succeed}
    seen = []
    for state in run.follow():
        seen.append((str(state.phase), state.step, state.total_steps, state.metrics))
        if state.phase in acts:
            acts[state.phase](served, run.name)

    assert seen == [
        ("Pending", 0, None, {}),
        ("Running", 5, 10, {"loss": 2.0}),
        ("Succeeded", 10, 10, {"loss": 1.0}),
    ]
    assert (state.ended, state.succeeded) == (True, True)
    assert state.sentence.startswith(f"{run.name} succeeded. Get the adapter: flash pull")
    assert run.wait() == run.status() == state
    assert capfd.readouterr() == ("", "")  # nothing is printed


def test_a_config_is_a_file_or_a_dict_with_changes_on_top(served: Served, client: Client) -> None:
    served.push()
    overlay = served.flash.write("more.toml", "[train]\nepochs = 5\nlora_rank = 16\n")
    overrides = {"train.epochs": 7}
    by_file = client.submit(Path("config.toml"), overlays=[overlay], overrides=overrides)
    by_dict = client.submit(CONFIG, overlays=[{"train": {"lora_rank": 16}}], overrides=overrides)

    for run in (by_file, by_dict):
        spec = served.get("flashrun", run.name)["spec"]
        assert (spec["model"], spec["train"]["epochs"]) == ("Qwen/Qwen3.5-4B", 7)
        assert spec["train"]["loraRank"] == 16


def test_values_of_secrets_go_into_a_secret_and_nowhere_else(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.push()
    served.flash.write("elsewhere/config.toml", WITH_SECRETS)
    served.flash.write("elsewhere/.env", "OTHER=from the file\n")
    monkeypatch.setenv("SERVICE_API_KEY", "from the process")
    run = client.submit("elsewhere/config.toml")

    assert set(served.get("secret", f"{run.name}-env")["data"]) == {"SERVICE_API_KEY", "OTHER"}
    shown = f"{run!r} {run.status().resource} {served.get('flashrun', run.name)}"
    assert "from the" not in shown


def test_what_is_only_noticed_does_not_refuse_the_run(served: Served, client: Client) -> None:
    served.push()
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    run = client.submit("config.toml")

    assert any("storage was not checked from here" in note for note in run.notes)


def test_metrics_are_a_frame_with_a_row_for_each_step(served: Served, client: Client) -> None:
    pandas = pytest.importorskip("pandas")
    run = ended(served, client)
    frame = run.metrics()

    assert list(frame.index) == [0, 5, 10]
    assert frame.index.name == "step"
    assert frame["eval/score"].tolist() == [0.25, 0.75, 0.5]
    assert frame["loss"].isna().tolist() == [True, False, False]
    assert all(dtype == "float64" for dtype in frame.dtypes)
    assert run.metrics("loss").equals(pandas.DataFrame({"loss": [2.0, 1.0]}, index=[5, 10]))
    scores = {step: row["eval/score"] for step, row in run.history("eval/*").items()}
    assert scores == {0: 0.25, 5: 0.75, 10: 0.5}
    assert run.history()[5] == HISTORY[1][5] | HISTORY[2][5]


def test_checkpoints_have_their_scores_and_each_adapter_can_be_pulled(
    served: Served, client: Client, tmp_path: Path
) -> None:
    run = ended(served, client)

    assert [(item.ref, item.step, item.score) for item in run.checkpoints()] == [
        (f"{run.name}/step-5", 5, 0.75),
        (f"{run.name}/step-10", 10, 0.5),
    ]
    pulls: dict[str, Callable[[], Path]] = {
        "final": run.pull,
        "10": lambda: run.pull(step=10),
        "5": lambda: run.pull("a/best", best=True),
    }
    folders = {content: pull() for content, pull in pulls.items()}
    assert folders == {
        "final": Path(run.name),
        "10": Path(f"{run.name}-step-10"),
        "5": Path("a/best"),
    }
    for content, folder in folders.items():
        assert (tmp_path / folder / "adapter_config.json").read_text() == content
    assert client.pull(f"{run.name}/step-5", tmp_path / "by-reference") == tmp_path / "by-reference"


def test_a_cancelled_run_is_waited_for_and_keeps_what_it_saved(
    served: Served, client: Client
) -> None:
    run = submitted(served, client)

    def play() -> None:
        wait_until(lambda: served.get("flashrun", run.name)["spec"].get("control"))
        served.report(run.name, phase="Cancelled")

    player = threading.Thread(target=play)
    player.start()
    state = run.cancel()
    player.join()

    assert state.phase == "Cancelled"
    assert state.sentence == f"{run.name} was cancelled; it had not saved anything yet"
    assert run.cancel() == state
    with pytest.raises(RunFailed, match="was cancelled"):
        run.wait()


def test_a_cancelled_run_need_not_be_waited_for(served: Served, client: Client) -> None:
    run = submitted(served, client)
    state = run.cancel(wait=False)

    assert not state.ended
    assert served.get("flashrun", run.name)["spec"]["control"] == {"cancel": True}


def test_the_runs_of_a_namespace_come_newest_first(served: Served, client: Client) -> None:
    assert client.runs() == []
    old = submitted(served, client)
    wait_until(lambda: client.runs()[0].name == old.name)
    served.report(old.name, phase="Failed")

    assert [(state.name, str(state.phase)) for state in client.runs()] == [(old.name, "Failed")]


def test_a_run_that_was_deleted_is_read_from_storage(served: Served, client: Client) -> None:
    run = ended(served, client)
    served.kubectl("delete", "flashrun", run.name)

    assert run.status().name == run.name
    assert len([*run.follow()]) == 1
    assert [item.step for item in run.checkpoints()] == [5, 10]
    assert run.history("loss") == {5: {"loss": 2.0}, 10: {"loss": 1.0}}


def test_a_failed_run_says_why_and_what_to_do(served: Served, client: Client) -> None:
    run = submitted(served, client)
    failure = {"reason": "RewardFailed", "message": "The reward raised.", "hint": "Mend it."}
    served.report(run.name, phase="Failed", failure=failure)

    with pytest.raises(RunFailed) as caught:
        run.wait()
    assert str(caught.value) == f"{run.name} failed: The reward raised. Mend it."
    assert caught.value.state.resource.status.failure is not None
    assert [str(state.phase) for state in run.follow()] == ["Failed"]


ABSENT = "flash-1-a"
REFUSALS: dict[str, tuple[Callable[[Client], object], type[FlashRunError], str]] = {
    "a key that does not exist": (
        lambda client: client.submit(CONFIG, overrides={"train.epoch": 1}),
        InvalidConfig, "overrides: epoch is not a key of [train]; did you mean epochs?",
    ),
    "two problems at once": (
        lambda client: client.submit({**CONFIG, "algorithm": "sfd"}, overrides={"train.epochs": 0}),
        InvalidConfig, "algorithm",
    ),
    "a file that does not exist": (
        lambda client: client.submit("absent.toml"), InvalidRequest, "cannot read absent.toml",
    ),
    "a model that the platform does not have": (
        lambda client: client.submit({**CONFIG, "model": "Qwen/Qwen3.5-4C"}),
        InvalidConfig, "did you mean 'Qwen/Qwen3.5-4B'",
    ),
    "an environment that was not pushed": (
        lambda client: client.submit(CONFIG),
        InvalidRequest, "environment your-org/your-env has not been pushed",
    ),
    "a secret without a value": (
        lambda client: client.submit(CONFIG, overrides={"environment.secrets": ["A", "B"]}),
        InvalidRequest, "environment.secrets names A, B, but no value is set",
    ),
    "the status of a run that does not exist": (
        lambda client: client.run(ABSENT).status(), DoesNotExist, f"there is no run {ABSENT}",
    ),
    "following a run that does not exist": (
        lambda client: next(iter(client.run(ABSENT).follow())),
        DoesNotExist, f"there is no run {ABSENT}",
    ),
    "cancelling a run that does not exist": (
        lambda client: client.run(ABSENT).cancel(), DoesNotExist, f"there is no run {ABSENT}",
    ),
    "metrics of a run that does not exist": (
        lambda client: client.run(ABSENT).history(), DoesNotExist, f"there is no run {ABSENT}",
    ),
    "checkpoints of a run that does not exist": (
        lambda client: client.run(ABSENT).checkpoints(), DoesNotExist, f"there is no run {ABSENT}",
    ),
    "an adapter that was not saved": (
        lambda client: client.run(ABSENT).pull(), DoesNotExist, f"nothing is saved as {ABSENT}",
    ),
    "a folder that has something in it": (
        lambda client: client.run(ABSENT).pull("/"), InvalidRequest, "/ exists already",
    ),
    "a step and the best": (
        lambda client: client.run(ABSENT).pull(step=5, best=True),
        InvalidRequest, "best=True chooses the checkpoint",
    ),
    "a reference that is not one": (
        lambda client: client.pull("no reference"), InvalidRequest, "no reference",
    ),
    "a name that no run can have": (
        lambda client: client.run("No Run"), DoesNotExist, "'No Run' is not the name of a run",
    ),
    "a checkpoint in place of a run": (
        lambda client: client.run("flash-1-a/step-5"),
        InvalidRequest, "flash-1-a/step-5 is a checkpoint, not a run",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def empty(
    installed: Path, minio: Minio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A namespace without runs and environments, for all rows."""
    folder = tmp_path_factory.mktemp("empty")
    with serving(installed, minio.store("client-refusals"), folder) as found:
        yield found


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_done_is_one_error_with_the_sentence_of_the_command_line(
    empty: Served, what: str
) -> None:
    act, kind, sentence = REFUSALS[what]
    client = Client(kubeconfig=empty.flash.kubeconfig)
    with pytest.raises(FlashRunError) as caught:
        act(client)

    assert type(caught.value) is kind
    assert sentence in str(caught.value)
    assert client.runs() == []


def test_the_sentence_is_the_one_of_the_command(empty: Served) -> None:
    with pytest.raises(DoesNotExist) as caught:
        Client(kubeconfig=empty.flash.kubeconfig).run(ABSENT).cancel()

    assert empty.flash("cancel", ABSENT).stderr == f"error: {caught.value}\n"


def test_a_namespace_without_operator_is_refused(served: Served, client: Client) -> None:
    served.push()
    served.kubectl("delete", "configmap", names.PUBLIC_CONFIG_MAP)
    with pytest.raises(DoesNotExist, match="the operator does not serve namespace"):
        client.submit("config.toml")
    elsewhere = Client("absent", kubeconfig=served.flash.kubeconfig)
    with pytest.raises(DoesNotExist, match="the namespace absent does not exist"):
        elsewhere.runs()


def test_a_run_without_metrics_says_so(served: Served, client: Client) -> None:
    run = submitted(served, client)

    with pytest.raises(DoesNotExist, match=f"{run.name} has no metrics yet"):
        run.history()


def test_without_a_cluster_the_first_call_says_what_is_missing() -> None:
    with Client(kubeconfig="absent") as client:
        with pytest.raises(InvalidRequest, match="the kubeconfig absent does not exist"):
            client.runs()
        with pytest.raises(InvalidRequest):  # and the next one, too
            client.run(ABSENT).status()


def test_a_client_that_was_closed_says_so() -> None:
    client = Client(kubeconfig="absent")
    client.close()
    client.close()
    with pytest.raises(InvalidRequest, match="this client was closed"):
        client.runs()


def threads() -> list[str]:
    gc.collect()
    return [thread.name for thread in threading.enumerate() if thread.name == "flashrun-client"]


def test_a_client_that_nobody_holds_any_more_leaves_no_thread() -> None:
    before = len(threads())
    client = Client(kubeconfig="absent")
    assert len(threads()) == before + 1
    del client

    wait_until(lambda: len(threads()) == before)


def test_a_client_that_cannot_be_made_leaves_no_thread() -> None:
    before = len(threads())
    with pytest.raises(InvalidRequest, match="kubeconfig has to be a path"):
        Client(kubeconfig=5)  # type: ignore[arg-type]

    assert len(threads()) == before


def test_a_call_that_waits_while_the_client_is_closed_says_so() -> None:
    client, waits = Client(kubeconfig="absent"), threading.Event()
    raised: list[FlashRunError] = []

    async def wait() -> None:
        waits.set()
        await asyncio.sleep(60)

    def call() -> None:
        try:
            client._call(wait())
        except FlashRunError as error:
            raised.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert waits.wait(10)
    client.close()
    caller.join(10)

    assert [type(error) for error in raised] == [InvalidRequest]


def run_script(served: Served, script: str) -> tuple[str, str]:
    """Return what a script of a user prints, on both streams."""
    served.push()
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", script],
        env=served.flash.environment,
        cwd=served.flash.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout, done.stderr


ENDS = """
from flashrun import Client
client = Client()
print(client.runs())
print(next(client.submit("config.toml").follow()).phase)
"""
FORKS = """
import os
from flashrun import Client, FlashRunError
client = Client()
print(client.runs(), flush=True)
if os.fork() == 0:
    try:
        client.runs()
    except FlashRunError as error:
        print(error.hint)
else:
    os.wait()
    print(client.runs())
"""


@pytest.mark.parametrize(
    ("script", "printed"),
    [(ENDS, "[]\nPending\n"), (FORKS, "[]\nmake a new one: Client()\n[]\n")],
    ids=["closes nothing", "forks"],
)
def test_a_script_ends_at_once_and_silently(served: Served, script: str, printed: str) -> None:
    assert run_script(served, script) == (printed, "")
