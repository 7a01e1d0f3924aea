"""The connection to a cluster: its errors are sentences."""

from pathlib import Path

import yaml

from tests.cli.shell import Served, Shell


def test_a_cluster_that_does_not_answer_is_one_sentence(served: Served, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(served.flash.environment["KUBECONFIG"]).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    broken = tmp_path / "broken"
    broken.write_text(yaml.safe_dump(config))

    done = Shell(tmp_path, broken)("runs")

    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
