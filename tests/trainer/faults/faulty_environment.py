"""An environment that pays for digits, and whose judge fails by a plan.

A completion is worth minus the share of its characters that are not digits, so 0 is the best score.
What fails depends on the seed of the plan, the step and the completion alone: not on threads, and
a step that is trained again after a resume fails in the same way.
"""

import ctypes
import hashlib
import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from freesolo.environments import EnvironmentSingleTurn, RewardMetric, RewardResult


class PanicError(BaseException):
    """An error that ``except Exception`` does not catch, as libraries written in Rust raise."""


def score(text):
    """Return minus the share of characters that are not digits; -1 for an empty answer."""
    answer = text.strip()
    return sum(map(str.isdigit, answer)) / max(1, len(answer)) - 1.0


def raise_error(_):
    raise ConnectionError("the judge is away")


def exit_program(_):
    raise SystemExit(3)


def panic(_):
    raise PanicError("called `Option::unwrap()` on a `None` value")


async def answer_later(text):
    return RewardResult(score=score(text))


FAILURES = (
    raise_error,
    exit_program,
    panic,
    answer_later,
    lambda _: None,
    lambda _: "0.9",
    lambda _: RewardResult(score=float("nan")),
    lambda _: RewardResult(score=1e39),
    lambda _: RewardResult(score=0.0, error="the judge did not understand"),
    lambda _: RewardResult(score=[1.0, 2.0]),
)


class Faulty(EnvironmentSingleTurn):
    """Digits pay, and the plan says which calls fail and how the process ends."""

    def __init__(self, plan):
        self.plan = plan
        self.max_score_concurrency = plan["threads"]
        self.reward_timeout_seconds = plan["limit_seconds"]
        self.lock = threading.Lock()
        self.step, self.calls = 0, 0
        self.victims = set()

    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": str(example.input)}]

    def score_response(self, example, response_text):
        step, call = self.place()
        self.end_process(step)
        chance = self.chance(step, example, response_text)
        if call < self.plan["completions"] * self.plan["away"].get(str(step), 0):
            raise_error(response_text)
        if step in self.plan["unreadable"] and set("XYZ") & set(response_text):
            raise UnicodeError("the judge cannot read these letters")
        if step in self.plan["hanging"] and chance.random() < self.plan["hanging_share"]:
            self.hang(chance)
        if step in self.plan["killed_workers"]:
            self.kill_this_worker_when_idle()
        if chance.random() < self.plan["failing_share"]:
            return chance.choice(FAILURES)(response_text)
        # Metrics that cannot be read cost no score.
        junk = [RewardMetric("digits", 1 + score(response_text)), object(), None]
        return RewardResult(score=score(response_text), metrics=junk)

    def place(self):
        """Return the step that is sampled, and how many calls it has had before."""
        rows = Path(os.environ["FLASHRUN_WORK"], "metrics.jsonl")
        step = 1 + (rows.read_text().count("\n") if rows.exists() else 0)
        with self.lock:
            if step != self.step:
                self.step, self.calls = step, 0
            self.calls += 1
            return step, self.calls - 1

    def chance(self, step, example, text):
        parts = (self.plan["seed"], step, example.input, text)
        return random.Random(hashlib.sha256(repr(parts).encode()).digest())

    def hang(self, chance):
        """Hang for ever, or return too late."""
        late = chance.random() < 0.5
        threading.Event().wait(2 * self.plan["limit_seconds"] if late else None)

    def end_process(self, step):
        """End the process in the way of the plan, once in a run."""
        way, done = self.plan["ends"].get(str(step)), Path(self.plan["folder"], f"ended-{step}")
        with self.lock:
            if way is None or done.exists():
                return
            done.touch()
            if way == "exit":
                os._exit(3)
            if way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGTERM)
            while way == "stop in a hang":
                with suppress(BaseException):
                    time.sleep(3600)

    def kill_this_worker_when_idle(self):
        """Raise an exception in this thread once it is in no call, as a late time limit does."""
        if threading.current_thread() is threading.main_thread():
            return
        victim = threading.get_ident()
        with self.lock:
            if victim in self.victims:
                return
            self.victims.add(victim)

        def kill():
            while (frame := sys._current_frames().get(victim)) is not None:
                if frame.f_code.co_name == "_work":  # of the trainer: it waits for the next call
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(victim), ctypes.py_object(SystemExit)
                    )
                    return
                time.sleep(0.001)

        threading.Thread(target=kill, daemon=True).start()


def load_environment(plan, **params):
    return Faulty(plan)
