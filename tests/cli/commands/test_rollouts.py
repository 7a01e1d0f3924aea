"""``flash rollouts``: what the model answered, from storage."""

import json
import resource
from typing import Any

import pytest

from flashrun.api import names
from flashrun.cli.output.failure import ExitCode
from tests.cli.following import Terminal
from tests.cli.shell import Served
from tests.cli.storage import store_spec


def rows(step: int, count: int = 4) -> bytes:
    """Rollouts of which a later one has a lower score."""
    made = (
        {
            "step": step,
            "prompt": [{"role": "user", "content": f"{number} + 1"}],
            "completion": f"é \x1b[31m{number + 1}",
            "score": 1 - number / count,
            "metrics": {"exact": float(number % 2)},
        }
        for number in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in made).encode()


@pytest.fixture
def sampled(served: Served) -> str:
    """A GRPO run with rollouts of three steps and one evaluation."""
    served.push()
    name = served.submit("--set", "algorithm=grpo")
    prefix = store_spec(served, name)
    for step in (1, 2, 10):
        served.store.put_bytes(names.rollouts_key(prefix, step), rows(step))
    served.store.put_bytes(names.eval_rollouts_key(prefix, 0), rows(0, count=64))
    return name


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_pipe_gets_the_rows_of_the_newest_step_as_they_are_stored(
    served: Served, sampled: str
) -> None:
    assert lines(served.flash("rollouts", sampled).stdout) == lines(rows(10).decode())
    assert lines(served.flash("rollouts", sampled, "--step", "2").stdout) == lines(rows(2).decode())


def test_the_worst_answers_of_an_evaluation_come_first_also_of_a_deleted_run(
    served: Served, sampled: str
) -> None:
    served.kubectl("delete", "flashrun", sampled)

    done = served.flash("rollouts", sampled, "--eval", "--worst", "5")

    assert [row["score"] for row in lines(done.stdout)] == [n / 64 for n in range(1, 6)]
    best = served.flash("rollouts", sampled, "--best", "1", "--metric", "exact")
    assert [row["completion"] for row in lines(best.stdout)] == ["é \x1b[31m2"]


def test_a_terminal_gets_text_in_which_the_model_cannot_steer_it(
    served: Served, sampled: str
) -> None:
    short = Terminal(served, "rollouts", sampled, "--worst", "1", PAGER="false")
    assert short.finish() == ExitCode.OK
    assert "score 0.25" in short.text
    assert "3 + 1" in short.text
    assert "\x1b[31m4" not in short.text

    paged = Terminal(served, "rollouts", sampled, "--eval", PAGER="sed s/^/paged:/")
    assert paged.finish() == ExitCode.OK
    assert "paged:" in paged.text
    assert "64 of 64" in paged.text


REFUSED = [
    (("--step", "7"), ExitCode.NOT_FOUND, "there are 3, from step 1 to 10; the nearest is 10"),
    (("--eval", "--step", "3"), ExitCode.NOT_FOUND, "the nearest is 0"),
    (("--worst", "1", "--best", "1"), ExitCode.USAGE, "exclude each other"),
    (("--worst", "0"), ExitCode.USAGE, "--worst"),
    (("--worst", "1", "--metric", "fluency"), ExitCode.USAGE, "score, exact"),
]


def test_what_cannot_be_shown_is_refused_with_what_can(served: Served, sampled: str) -> None:
    for words, code, sentence in REFUSED:
        done = served.flash("rollouts", sampled, *words)

        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert sentence in done.stderr


def test_a_run_without_rollouts_says_why(served: Served, run: str) -> None:
    done = served.flash("rollouts", run)
    assert done.returncode == ExitCode.NOT_FOUND
    assert "trains by SFT, which samples no rollouts" in done.stderr
    assert "has no answers of an evaluation" in served.flash("rollouts", run, "--eval").stderr


def test_the_worst_five_of_a_step_take_a_second_at_most(served: Served, sampled: str) -> None:
    """Of the processor: what else the machine does in the meantime does not count."""
    prefix = store_spec(served, sampled)
    served.store.put_bytes(names.rollouts_key(prefix, 11), rows(11, count=4096))
    before = used_seconds()
    done = served.flash("rollouts", sampled, "--step", "11", "--worst", "5")

    assert used_seconds() - before < 1
    assert len(done.stdout.splitlines()) == 5


def used_seconds() -> float:
    """Return how long the processes that have ended used a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
