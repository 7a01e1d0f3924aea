"""The servers of a namespace, as their ConfigMaps describe them."""

from types import SimpleNamespace
from typing import Any

from flashrun.api import names
from flashrun.api.names import Ref
from flashrun.api.served import ServedAdapter, ServedList
from flashrun.cli.cluster.served_adapters import explain_missing, find_services
from flashrun.plan import pins
from tests.plan.worlds import running

RUN = running().pinned


def test_an_adapter_that_is_not_whole_is_told_from_one_that_is_not_there() -> None:
    home = names.run_prefix("team-a", "run", "uid")
    keys = [names.adapter_prefix(home) + names.MANIFEST]

    whole = explain_missing(Ref("run", None), "team-a", keys)
    assert whole.sentence.startswith("what is saved as run in namespace team-a is not whole")
    for ref, listed in ((Ref("run", 5), keys), (Ref("run", None), [])):
        missing = explain_missing(ref, "team-a", listed)
        assert missing.sentence == f"no adapter is saved as {ref} in namespace team-a"


async def test_a_config_map_that_is_no_longer_a_servers_is_passed_over() -> None:
    served = ServedList(adapters=(ServedAdapter(id="run", prefix="p/", manifest="0" * 64, rank=8),))
    assert RUN is not None
    data = {names.SERVED_KEY: served.model_dump_json(), names.SPEC_KEY: pins.spec_text(RUN)}
    found = [
        {"metadata": {"name": "whole"}, "data": data},
        {"metadata": {"name": "emptied"}},
        {"metadata": {"name": "of-another-version"}, "data": {**data, names.SERVED_KEY: "{}"}},
    ]

    async def listing(kind: str, namespace: str, labels: Any) -> Any:
        assert (kind, namespace) == ("ConfigMap", "team-a")
        assert labels.items() <= names.serving_labels("whole").items()
        return found

    session: Any = SimpleNamespace(namespace="team-a", cluster=SimpleNamespace(list=listing))
    [service] = await find_services(session)

    assert (service.name, service.served, service.run) == ("whole", served, RUN)
