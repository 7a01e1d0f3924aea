"""An environment of the verifiers library, with its packages from the index, in a real pod."""

from pathlib import Path

import pytest

from tests.e2e import environments
from tests.e2e.conftest import JOB_SECONDS, Product
from tests.trainer import verifiers_sources as sources

pytestmark = pytest.mark.e2e


def test_an_environment_of_verifiers_is_trained_on(product: Product, tmp_path: Path) -> None:
    folder = tmp_path / "countdown"
    for name, text in sources.project("countdown", sources.COUNTDOWN).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environment = f"examples/{product.new_name('countdown')}"
    product.flash("env", "push", str(folder), "--name", environment)
    config = environments.config(tmp_path, environment, train={"steps": 2, "max_length": 256})
    run = product.submit(config)

    product.end(run, "Succeeded", JOB_SECONDS)
    steps = [row["values"] for row in product.metrics(run) if "reward" in row["values"]]
    assert [values["reward_errors"] for values in steps] == [0, 0]
    assert all({"env/sum_step_rewards", "env/num_turns"} <= values.keys() for values in steps)
