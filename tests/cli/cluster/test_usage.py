"""Copies of runs in storage, as what they have used is read from them."""

import json

from flashrun.api import names
from tests.cli.gpu_usage import answer, keep_copy, used
from tests.cli.shell import REFERENCE, Served


def test_a_copy_that_is_broken_or_of_another_run_counts_for_nothing(served: Served) -> None:
    served.push()
    served.flash.write("config.toml", REFERENCE)
    name = served.submit()
    keep_copy(served, name, used(2, ago=10))
    [folder] = served.store.list(names.run_name_prefix(served.namespace, name), recursive=False)
    copy = served.store.get_bytes(names.run_record_key(folder.key))
    forged = names.run_prefix(served.namespace, "forged", "uid")
    served.store.put_bytes(names.run_record_key(forged), copy)
    broken = names.run_prefix(served.namespace, "broken", "uid")
    served.store.put_bytes(names.run_record_key(broken), json.dumps({"run": 1}).encode())
    assert [row["run"] for row in answer(served)] == [name]


def test_time_that_has_not_passed_yet_does_not_count(served: Served) -> None:
    """As it is in a record of a machine whose clock is ahead, or of somebody who invents it."""
    served.push()
    served.flash.write("config.toml", REFERENCE)
    name = served.submit()
    keep_copy(served, name, used(1000, ago=2, gpuSeconds=0))
    [row] = answer(served)
    assert (row["run"], round(row["gpu_hours"], 1)) == (name, 2)
