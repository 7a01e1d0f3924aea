"""A run whose FlashRun was deleted is found in storage."""

from flashrun.api import names
from flashrun.api.catalog import Catalog
from flashrun.api.records import RunIdentity
from flashrun.api.resource import FlashRun
from flashrun.plan.resolve import resolve_run, resolve_train
from tests.cli.shell import Served


def test_a_run_that_was_deleted_is_trained_again_from_storage(served: Served, run: str) -> None:
    old = served.get("flashrun", run)
    uid, spec = old["metadata"]["uid"], FlashRun.from_manifest(old).spec
    record = resolve_run(
        spec,
        identity=RunIdentity(namespace=served.namespace, name=run, uid=uid),
        model=next(model for model in Catalog() if model.id == spec.model),
        environment_digest="0" * 64,
        train=resolve_train(spec),
    )
    served.store.put_json(names.spec_key(names.run_prefix(served.namespace, run, uid)), record)
    served.kubectl("delete", "flashrun", run)

    new = served.flash("rerun", run, "--set", "train.epochs=9", "--background").stdout.strip()

    done = served.flash("diff", run, new)
    assert "train.epochs\t3\t9" in done.stdout.splitlines()
    assert not [line for line in done.stdout.splitlines() if line.startswith("train.lora")]
