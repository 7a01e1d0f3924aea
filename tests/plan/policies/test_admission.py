"""Admission: which specs are refused, and what in storage a run waits for."""

from dataclasses import replace
from typing import Any

import pytest

from flashrun.api.catalog import Model, Source
from flashrun.api.platform import EnvironmentSettings
from flashrun.api.reasons import Phase
from flashrun.api.records import Scale
from flashrun.api.resource import ConditionStatus, FlashRun
from flashrun.plan import job_start
from flashrun.plan.mirrored_models import MirrorAnswer
from flashrun.plan.policies.admission import refuse_invalid_spec
from flashrun.plan.types import StorageView
from tests.plan import worlds
from tests.plan.worlds import World, make_run, running

WAITING = [
    ("the environment is another team's",
     make_run({"environment": {"id": "team-b/sums"}}), {},
     "EnvironmentNotOwned", "use team-a/sums, or ask the platform's administrator", "Accepted"),
    ("the environment was not pushed", make_run(), {"storage": StorageView()},
     "EnvironmentNotFound", "flash env push --name examples/sums", "Accepted"),
    ("storage does not answer", make_run(), {"storage": StorageView(problem="S3 is away.")},
     "StorageUnavailable", "S3 is away.", "Accepted"),
    ("the adapter to start from is not finished",
     make_run({"train": {"init_from_adapter": "flash-1-aa/step-20"}}), {},
     "AdapterNotFound", "Adapter flash-1-aa/step-20 is not committed in namespace", "Accepted"),
    ("the run before it in a chain goes on",
     make_run({"train": {"init_from_adapter": "flash-1-aa"}}), {"source_phase": "Running"},
     "AdapterNotFound", "is not committed in namespace team-a yet: run flash-1-aa is Running.",
     "Accepted"),
    ("the run before it in a chain has failed",
     make_run({"train": {"init_from_adapter": "flash-1-aa"}}), {"source_phase": "Failed"},
     "AdapterNotFound", "Run flash-1-aa has ended (Failed) without adapter flash-1-aa: cancel this",
     "Accepted"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("run", "observed", "reason", "sentence", "condition"),
    [row[1:] for row in WAITING],
    ids=[row[0] for row in WAITING],
)
def test_a_run_waits_and_says_why(run, observed, reason, sentence, condition) -> None:
    worlds.assert_waits(World(run).seeing(**observed).decide(), reason, sentence, condition)


def test_whether_an_environment_of_another_team_exists_is_not_told() -> None:
    run = make_run({"environment": {"id": "team-b/sums"}})
    answers = {World(run).stored(environment=there).decide().status.pending
               for there in (None, worlds.PUSHED.environment)}  # fmt: skip
    assert len(answers) == 1


def test_a_run_that_has_begun_goes_on_when_its_org_is_bound_to_others() -> None:
    world = running()
    elsewhere = EnvironmentSettings(owners={"examples": ("team-b",)})
    bound = replace(world, platform=world.platform.replace(environments=elsewhere))
    assert bound.decide().status.phase is Phase.RUNNING


REFUSED = [
    ("an unknown model", {"model": "Qwen/Qwen3.5-5B"}, "did you mean 'Qwen/Qwen3.5-"),
    ("a rank above the cap", {"train": {"lora_rank": 65}}, "use at most 64"),
    ("a length above the context", {"train": {"max_length": 513}}, "use at most 512"),
    ("completions without room for a prompt",
     {"algorithm": "grpo", "train": {"max_tokens": 128}}, "use at most 127"),
    ("a model for which no GPU is large enough",
     {"model": "flashrun/huge"}, "needs 800 GiB of GPU memory, and a run can get at most 80 GiB"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_a_spec_that_can_never_work_fails_at_once(config, sentence) -> None:
    decision = World(make_run(config)).decide()

    assert decision.status.phase is Phase.FAILED
    assert decision.apply == ()
    assert decision.status.failure is not None
    assert decision.status.failure.reason == "SpecInvalid"
    assert sentence in decision.status.failure.message
    accepted = decision.status.condition("Accepted")
    assert accepted is not None
    assert accepted.status is ConditionStatus.FALSE


MIRRORED = Model(id="acme/small", parameters=1, vram_sft=12, source=Source.MIRROR, revision="7")
SERVING = worlds.PLATFORM.replace(models_from_mirror=True)


def mirrored_world(**stored: Any) -> World:
    run = make_run({"model": "acme/small", "train": {"max_length": 128}})
    return replace(World(run), platform=SERVING).stored(**stored)


def test_a_mirrored_model_is_admitted_with_the_revision_that_was_found() -> None:
    context = mirrored_world(mirrored_model=MirrorAnswer(MIRRORED)).context()

    assert refuse_invalid_spec(context) is None
    assert job_start.pin_run(context, Scale()).model.revision == "7"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "'acme/small' is not in the catalog"),
        (MirrorAnswer(refused="its manifest is broken"),
         "'acme/small' is in the mirror, but cannot be used: its manifest is broken"),
    ],
)  # fmt: skip
def test_a_model_that_the_mirror_cannot_give_is_refused_by_name(answer, sentence) -> None:
    decision = mirrored_world(mirrored_model=answer).decide()

    assert decision.status.phase is Phase.FAILED
    assert decision.status.failure is not None
    assert sentence in decision.status.failure.message


def test_a_mirror_that_cannot_be_read_is_waited_for() -> None:
    """The model may be there: the run must not fail for ever."""
    world = mirrored_world(problem="S3 is away.")
    worlds.assert_waits(world.decide(), "StorageUnavailable", "S3 is away.", "Accepted")
    off = replace(world, platform=worlds.PLATFORM).decide()
    assert off.status.phase is Phase.FAILED


ADAPTERS = [
    ("another model", {"base_model": "Qwen/Qwen3.5-2B"}, {}, "was trained on Qwen/Qwen3.5-2B"),
    ("another rank", {}, {"lora_rank": 8}, "comes from the adapter, which has 16"),
]


@pytest.mark.parametrize(
    ("manifest", "train", "sentence"),
    [row[1:] for row in ADAPTERS],
    ids=[row[0] for row in ADAPTERS],
)
def test_an_adapter_that_does_not_fit_is_refused(manifest, train, sentence) -> None:
    run = make_run({"train": {"init_from_adapter": "flash-1-aa/step-20", **train}})
    decision = World(run).stored(adapter_source=worlds.source_adapter(**manifest)).decide()

    assert decision.status.failure is not None
    assert sentence in decision.status.failure.message


def test_a_batch_that_the_gpus_cannot_share_is_refused_with_the_number_that_works() -> None:
    run = make_run({"model": worlds.WIDE, "train": {"batch_size": 6}})
    status = World(run, platform=worlds.NODES).decide().status

    assert status.failure is not None
    assert "train.batch_size: 6 cannot be divided" in status.failure.message
    assert "use a multiple of 4" in status.failure.message


def test_what_only_an_earlier_version_accepted_is_refused_unless_the_run_has_begun() -> None:
    earlier = {"wandb": {"project": "a/b"}}
    stored = {"metadata": {"name": worlds.NAME, "namespace": worlds.NAMESPACE, "uid": worlds.UID}}
    spec = FlashRun.from_manifest({**stored, "spec": make_run().spec.to_manifest() | earlier}).spec
    refused = World(make_run().replace(spec=spec)).decide().status
    assert refused.phase is Phase.FAILED
    assert refused.failure is not None
    assert refused.failure.reason == "SpecInvalid"
    assert "wandb.project" in refused.failure.message
    begun = running()
    assert World(begun.run.replace(spec=spec), begun.observed).decide().status.phase is (
        begun.decide().status.phase
    )
