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


LISTED = {"environment": {"id": "examples/sums", "secrets": ["ONE"]}}


def without_values() -> World:
    """A world in which the pod trains, and somebody has deleted the copy and its source."""
    started = World(make_run(LISTED)).seeing(secrets=worlds.lookup(ONE="team-keys")).settled()
    training = started.seeing(pods=(worlds.make_pod(),)).stored(heartbeat=worlds.heartbeat(10))
    return training.settled().seeing(has_secrets=False, secrets=SecretLookup(absent=("team-keys",)))


def test_a_run_whose_secrets_are_deleted_while_it_trains_is_running_and_says_so() -> None:
    decision = without_values().decide()

    assert decision.status.phase is Phase.RUNNING
    assert decision.status.pending is None
    unmet = decision.status.condition("SecretsReady")
    assert unmet is not None
    assert (unmet.status, unmet.reason) == ("False", "SecretMissing")
    assert "No value for ONE" in unmet.message
    assert "Secret team-keys does not exist." in unmet.message


def test_credentials_are_renewed_while_secrets_are_missing() -> None:
    assert without_values().later(hours=7).decide().access is not None


def test_no_copy_is_made_that_lacks_a_value_and_a_whole_one_is_when_the_source_is_back() -> None:
    missing = without_values()
    assert missing.decide().secrets is None

    found = missing.seeing(secrets=worlds.lookup(ONE="team-keys")).decide()
    assert found.secrets is not None
    assert found.secrets.sources == {"ONE": "team-keys"}


def test_a_job_that_failed_ends_its_run_also_while_secrets_are_missing() -> None:
    world = without_values()
    job = worlds.failed_job(world.observed.jobs[0])
    ended = world.seeing(jobs=(job,), pods=(worlds.make_pod(exit_code=70),))
    assert ended.decide().status.phase is Phase.FAILED
