"""The launchers of one attempt's pods find each other, in any order, or give up in time."""

import socket
import threading
from contextlib import ExitStack

import pytest

from flashrun.api.exits import Exit
from flashrun.api.records import Scale
from flashrun_trainer.launch import rendezvous
from flashrun_trainer.launch.rendezvous import (
    JoinMessage,
    PeerConnection,
    Rendezvous,
    StartMessage,
)
from flashrun_trainer.pod.mounts import PodMounts
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.pods import resolved


def pods(count: int) -> list[PodMounts]:
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    found = {"FLASHRUN_LEADER_PORT": str(port)}
    return [
        PodMounts.from_environment(found | {"JOB_COMPLETION_INDEX": str(index)})
        for index in range(count)
    ]


def test_pods_connect_in_any_order_and_get_the_same_start_message():
    leader, *others = pods(3)
    run = resolved("sft", scale=Scale(nodes=3))
    heard: dict[int, StartMessage] = {}

    def follow(pod: PodMounts) -> None:
        met = rendezvous.join_leader(pod, run, lambda: False)
        assert met is not None
        heard[pod.index] = met[1]
        met[0].close()

    threads = [threading.Thread(target=follow, args=(pod,)) for pod in others]
    threads[1].start()
    with Rendezvous(leader, run) as meeting:
        threads[0].start()
        peers = meeting.wait_for_peers()
    for peer in peers:
        peer.send(StartMessage(attempt=2, port=7))
        peer.close()
    for thread in threads:
        thread.join()
    assert heard == {1: StartMessage(attempt=2, port=7), 2: StartMessage(attempt=2, port=7)}


def test_a_pod_that_leaves_before_all_are_connected_is_awaited_again():
    leader, *_ = pods(1)
    run = resolved("sft", scale=Scale(nodes=3))
    with Rendezvous(leader, run) as meeting, ExitStack() as stack:

        def come(index: int, uid: str = run.run.uid) -> PeerConnection:
            place = ("127.0.0.1", leader.leader_port)
            peer = PeerConnection(stack.enter_context(socket.create_connection(place, timeout=10)))
            peer.send(JoinMessage(run=uid, index=index))
            return peer

        come(2, uid="of-another-run")
        come(1).close()
        with pytest.raises(TrainerError, match="2 of the other pods"):
            meeting.wait_for_peers(0.3)
        come(2)
        with pytest.raises(TrainerError, match="1 of the other pods"):
            meeting.wait_for_peers(0.3)
        again = come(1)
        for peer in meeting.wait_for_peers(10):
            peer.send(StartMessage(attempt=1, port=7))
            peer.close()
        assert again.receive(StartMessage).attempt == 1


def test_pods_that_do_not_connect_are_awaited_until_the_timeout():
    leader, other = pods(2)
    run = resolved("sft", scale=Scale(nodes=2))
    with (
        Rendezvous(leader, run) as meeting,
        pytest.raises(TrainerError, match="1 of the other pods"),
    ):
        meeting.wait_for_peers(0.1)
    with pytest.raises(TrainerError, match="the leading pod at 127") as raised:
        rendezvous.join_leader(other, run, lambda: False, 0.1)
    assert raised.value.code == Exit.TEMPORARY


def test_no_leader_is_awaited_when_the_run_is_over():
    _, other = pods(2)
    assert (
        rendezvous.join_leader(other, resolved("sft", scale=Scale(nodes=2)), lambda: True) is None
    )
