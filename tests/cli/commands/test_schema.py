"""``flash schema``: the JSON Schema of run configs."""

import json

from tests.cli.shell import Shell


def test_the_schema_knows_every_key_in_its_toml_spelling(shell: Shell) -> None:
    document = json.loads(shell("schema").stdout)

    assert document["properties"].keys() == {
        "model", "algorithm", "thinking", "environment", "train", "eval", "worker_env", "wandb",
        "budget",
    }  # fmt: skip
    assert "thinking_length_penalty_coef" in json.dumps(document)
    assert document["additionalProperties"] is False
