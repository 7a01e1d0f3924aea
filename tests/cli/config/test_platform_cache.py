"""The platform as it was last seen is cached for checks without a cluster."""

from flashrun.api.public import PublicPlatform
from tests.cli.shell import Shell


def test_a_model_of_the_platform_is_known_from_the_cache(shell: Shell) -> None:
    words = ("train", "config.toml", "--dry-run", "--set", "model=own/model")
    assert shell(*words).returncode == 2

    own = {"id": "own/model", "parameters": 1}
    told = PublicPlatform.validate_manifest({"models": [own]})
    shell.write(".cache/flashrun/platform.json", told.model_dump_json(by_alias=True))
    assert shell(*words).returncode == 0
