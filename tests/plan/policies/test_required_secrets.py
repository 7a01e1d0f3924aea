"""Required secrets: a run waits for the values of the secrets that it lists."""

import pytest

from flashrun.api.reasons import Phase
from flashrun.plan.types import SecretLookup
from tests.plan import worlds
from tests.plan.worlds import World, make_run

WAITING = [
    ("a listed secret has no value",
     make_run({"environment": {"id": "a/b", "secrets": ["ONE", "TWO"]}}),
     {"secrets": SecretLookup(sources={"ONE": "s"})},
     "SecretMissing", "No value for TWO in spec.secretRefs (empty): add a Secret that has it.",
     "SecretsReady"),
    ("the Secret is not marked for runs",
     make_run({"environment": {"id": "a/b", "secrets": ["ONE"]}, "secret_refs": [{"name": "s"}]}),
     {"secrets": SecretLookup(unlabelled=("s",))},
     "SecretMissing", 'label it flashrun.dev/secrets: "true"', "SecretsReady"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "observed", "reason", "sentence", "condition"),
    [row[1:] for row in WAITING],
    ids=[row[0] for row in WAITING],
)
def test_a_run_waits_and_says_why(run, observed, reason, sentence, condition) -> None:
    worlds.assert_waits(World(run).seeing(**observed).decide(), reason, sentence, condition)


def test_a_run_starts_when_the_secret_arrives() -> None:
    run = make_run({"environment": {"id": "examples/sums", "secrets": ["ONE"]}})
    waiting = World(run).settled()

    decision = waiting.seeing(secrets=worlds.lookup(ONE="team-keys")).decide()

    assert decision.secrets is not None
    assert decision.secrets.sources == {"ONE": "team-keys"}
    assert decision.status.phase is Phase.STARTING
    assert decision.status.pending is None
