"""The operator's copy of a run: it is read back as the run that was written."""

from flashrun.api.run_record import RunRecord
from tests.plan.worlds import running


def test_a_copy_is_read_back_as_the_run_without_its_creation() -> None:
    run = running().run
    text = RunRecord.of(run, run.status).model_dump_json()
    again = RunRecord.model_validate_json(text).to_run()

    assert (again.spec, again.status) == (run.spec, run.status)
    assert again.storage_prefix == run.storage_prefix
    assert again.created is None
