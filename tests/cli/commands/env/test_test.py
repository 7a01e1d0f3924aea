"""``flash env test``: an environment is checked before it costs GPU time."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from flashrun.api import names
from flashrun.api.catalog import Model, Source
from flashrun.api.config import Algorithm
from flashrun.api.pod import IMAGE_PYTHON
from flashrun.cli.commands.env.test import planned_run
from flashrun.cli.config.compose import ConfigFile, compose
from flashrun.cli.environments.env_check import (
    PlannedRun,
)
from flashrun.plan.storage_policies import namespace_policy
from tests.cli.models.models import write_model
from tests.cli.shell import ROOT, Served, Shell, about_rows
from tests.trainer.http_servers import serving
from tests.trainer.package_index import QuietHandler, project, wheel

pytest.importorskip("freesolo", reason="the environment SDK is an extra")


ROW = '{"input": "1 + 1", "output": "2"}\n'
GOOD = """
from freesolo.environments import EnvironmentSingleTurn, RewardResult

class Task(EnvironmentSingleTurn):
    def build_prompt_messages(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def score_response(self, example, response_text):
        return RewardResult(score=float(response_text == example.output))

def load_environment(**params):
    return Task()
"""


SCORE = "return RewardResult(score=float(response_text == example.output))"
PROMPT = 'return [{"role": "user", "content": example.input}]'


def write(shell: Shell, code: str = GOOD, rows: str | bytes = ROW * 3) -> None:
    shell.write("env/environment.py", code)
    shell.write("env/dataset/train.jsonl", rows)


def test_right_answers_and_junk_are_scored(shell: Shell) -> None:
    done = shell("env", "test", str(ROOT / "examples" / "sums"), "--rows", "2")

    [first, second] = (line.split("\t") for line in done.stdout.splitlines())
    assert first == ["1", "What is 19 plus 6? Answer with digits only.", "25", "1", "0 0.09375"]
    assert second[4] == "0 0.09375 0.5"  # the last one is the answer of the row before
    assert about_rows(done) == "128 rows checked, no problems\n"


def test_parameters_reach_the_environment(shell: Shell) -> None:
    folder = str(ROOT / "examples" / "sums")
    done = shell("env", "test", folder, "--param", "instruction=Only digits!", "--rows", "1")

    assert done.stdout.split("\t")[1].endswith("Only digits!")


@pytest.mark.parametrize(
    ("param", "near"), [("flor=3", "did you mean floor?"), ("spilt=eval", "did you mean split?")]
)
def test_a_parameter_that_nobody_reads_is_refused(shell: Shell, param: str, near: str) -> None:
    write(shell, GOOD.replace("**params", "floor=0"))
    done = shell("env", "test", "env", "--param", param)

    assert done.returncode == 2
    name = param.partition("=")[0]
    assert (
        f"load_environment has no argument {name}, which [environment.params] sets" in done.stderr
    )
    assert near in done.stderr
    assert shell("env", "test", "env", "--param", "floor=3").returncode == 0


def test_a_config_brings_its_parameters_secrets_and_variables(shell: Shell) -> None:
    asked = 'os.environ["KEY"], os.environ["FLAG"], params["word"]'
    write(shell, GOOD.replace("return Task()", f"import os; print({asked}); return Task()"))
    shell.write(
        "run.toml",
        'model = "Qwen/Qwen3.5-4B"\n[environment]\nid = "org/env"\nsecrets = ["KEY"]\n'
        'params = {word = "given"}\n[worker_env]\nFLAG = "on"\n',
    )
    shell.write(".env", "KEY=from-the-file\n")

    done = shell("env", "test", "env", "--config", "run.toml", "--verbose")

    assert done.returncode == 0, done.stderr
    assert "from-the-file on given" in done.stderr


def test_programs_get_everything_as_data(shell: Shell) -> None:
    write(shell, rows=ROW + "[]\n")
    done = shell("env", "test", "env", "-o", "json")

    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (2, False)
    assert found["findings"][0]["place"] == "dataset/train.jsonl:2"


def test_another_split_is_another_file(shell: Shell) -> None:
    write(shell)
    shell.write("env/dataset/exam.jsonl", "{}")

    assert "dataset/exam.jsonl:1" in shell("env", "test", "env", "--split", "exam").stderr
    missing = shell("env", "test", "env", "--split", "nowhere")
    assert (missing.returncode, "it has exam, train" in missing.stderr) == (2, True)


BAD_ROWS = {
    "no JSON": ("{", "the row is not JSON"),
    "the mark of an editor": (f"\ufeff{ROW.strip()}", "the row begins with a byte order mark"),
    "a number of a page": (
        f'{{"input": "x", "output": {"9" * 5000}}}',
        "a number in the row has too many digits",
    ),
    "half a character": (
        '{"input": "x \\ud800", "output": "2"}',
        "the row has half a character (a lone surrogate)",
    ),
    "a list": ("[1]", "the row is a list, and must be an object with input"),
    "a number": ("3", "the row is a number"),
    "null": ("null", "the row is null"),
    "no input": ('{"prompt": "x"}', "the row has no input; it has prompt"),
    "a null for an input": ('{"input": null}', "the row has no input"),
    "an output that is no conversation": (
        '{"input": "x", "output": {"messages": [{"content": "x"}]}}',
        "the output is not a conversation",
    ),
    "the words of another format": (
        '{"input": "x", "output": [{"from": "gpt", "value": "2"}]}',
        "a message has the keys 'from' and 'value'",
    ),
    "a key beside messages": (
        '{"input": "x", "output": {"messages": [{"role": "user", "content": "x"}], "mood": 1}}',
        "the output has the key 'mood' beside messages",
    ),
    "tools without a name": (
        '{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}',
        "a tool must be an object with name and parameters",
    ),
    "too deep": ("[" * 100_000, "the row is"),
}


ODD_ROWS = {
    "an empty input": ('{"input": " ", "output": "2"}', "the input is empty"),
    "an empty output": ('{"input": "x", "output": ""}', "SFT has nothing to learn from it"),
    "almost a conversation": (
        '{"input": "x", "output": [{"content": "1"}, {"content": "2"}]}',
        "the output looks like a conversation but is learned as JSON text",
    ),
    "a key of a message that nobody reads": (
        '{"input": "x", "output": [{"role": "assistant", "content": "2", "mood": "glad"}]}',
        "a message has mood, which nobody reads",
    ),
    "other metadata": ('{"input": "x", "output": "2", "metadata": [1]}', "must be an object"),
}


@pytest.mark.parametrize(("row", "sentence"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_named_by_its_line(shell: Shell, row: str, sentence: str) -> None:
    write(shell, rows=f"{ROW}\n{row}\n{ROW}")
    done = shell("env", "test", "env")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: dataset/train.jsonl:3: ")
    assert sentence in line


@pytest.mark.parametrize(("row", "sentence"), ODD_ROWS.values(), ids=ODD_ROWS)
def test_an_odd_row_is_worth_a_warning(shell: Shell, row: str, sentence: str) -> None:
    write(shell, rows=f"{ROW}{row}\n")
    done = shell("env", "test", "env")

    assert done.returncode == 0
    assert "warning: dataset/train.jsonl:2: " in done.stderr
    assert sentence in done.stderr


def test_a_key_of_rows_that_the_code_does_not_read_either_is_a_warning(shell: Shell) -> None:
    write(shell, rows='{"input": "x", "output": "2", "system": "Be brief."}\n')
    assert "nobody reads these keys of rows: 'system' (row 1)" in shell("env", "test", "env").stderr

    reads = GOOD.replace("return [", 'example.record["system"]\n        return [')
    write(shell, reads, rows='{"input": "x", "output": "2", "system": "Be brief."}\n')
    assert "nobody reads" not in shell("env", "test", "env").stderr


def test_rows_that_are_whole_conversations_are_checked_and_scored(shell: Shell) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1"}]
    row = {"messages": [*turns, {"role": "assistant", "content": "2"}]}
    write(shell, rows=json.dumps(row) + "\n")
    done = shell("env", "test", "env")

    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[1:4] == ["1 + 1", "2", "1"]


def test_every_bad_row_is_reported_at_once(shell: Shell) -> None:
    write(shell, rows="{\n" * 3 + ROW)
    done = shell("env", "test", "env")

    lines = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        f"dataset/train.jsonl:{n}" for n in (1, 2, 3)
    ]


def test_line_separators_inside_a_row_do_not_end_it(shell: Shell) -> None:
    write(shell, rows='{"input": "a\u2028b\x85c", "output": "2"}\n')

    assert shell("env", "test", "env").returncode == 0


BROKEN = {
    "no rows": (GOOD, b"\n\n", "the file has no rows"),
    "no text": (GOOD, b"\xff\xfe", "dataset/train.jsonl: the file cannot be read"),
    "a module that is not there": ("import nothing_like_this", ROW, "ModuleNotFoundError"),
    "a module that raises": (
        "x = 1 / 0",
        ROW,
        "environment.py:1: the environment failed while importing environment.py: "
        "ZeroDivisionError",
    ),
    "a parameter that is not set": (
        "def load_environment(word): ...",
        ROW,
        "while calling load_environment: TypeError: load_environment() missing 1 required "
        "positional argument: 'word'; set it in [environment.params]",
    ),
    "a parameter that is looked up": (
        'def load_environment(**params): return params["word"]',
        ROW,
        "KeyError: 'word'; if 'word' is a parameter, set it in [environment.params]",
    ),
    "a syntax error": ("def load_environment(:", ROW, "SyntaxError"),
    "no factory": (
        "x = 1",
        ROW,
        "error: the environment failed while importing environment.py: AttributeError: ",
    ),
    "a factory that raises": (
        "def load_environment(): return 1 / 0",
        ROW,
        "environment.py:1: the environment failed while calling load_environment: "
        "ZeroDivisionError",
    ),
    "a factory of something else": (
        "def load_environment(): return 3",
        ROW,
        "error: the environment failed while calling load_environment: TypeError: Environment "
        "loader",
    ),
    "a prompt that raises": (
        GOOD.replace(PROMPT, 'raise KeyError("name")'),
        ROW,
        "environment.py:6: the environment failed while building the prompt of row 1: KeyError",
    ),
    "a prompt of the wrong shape": (
        GOOD.replace(PROMPT, 'return ["Hello"]'),
        ROW,
        "a message must be an object with role",
    ),
    "a message without a role": (
        GOOD.replace(PROMPT, 'return [{"content": "Hello"}]'),
        ROW,
        "a message must be an object with role",
    ),
    "a reward that always raises": (
        GOOD.replace(SCORE, "return 1 / 0"),
        ROW,
        "environment.py:9: the reward failed for 3 of 3 answers, first in row 1: ZeroDivisionError",
    ),
    "a reward that is not a number": (
        GOOD.replace(SCORE, 'return RewardResult(score=float("nan"))'),
        ROW,
        "the score is nan, which is not finite",
    ),
    "a reward that would end the process": (
        GOOD.replace(SCORE, "raise SystemExit(3)"),
        ROW,
        "environment.py:9: the reward failed for 3 of 3 answers, first in row 1: SystemExit: 3",
    ),
    "a crash": (
        GOOD.replace(SCORE, "import os; os._exit(3)"),
        ROW,
        "its process ended with exit code 3 while scoring row 1",
    ),
    "a fault of native code": (
        GOOD.replace(SCORE, "import os; os.abort()"),
        ROW,
        "its process ended with signal SIGABRT while scoring row 1",
    ),
}


@pytest.mark.parametrize(("code", "rows", "sentence"), BROKEN.values(), ids=BROKEN)
def test_what_would_fail_in_training_is_an_error(
    shell: Shell, code: str, rows: str | bytes, sentence: str
) -> None:
    write(shell, code, rows)
    done = shell("env", "test", "env")

    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["datasets.py", "statistics.py", "wandb/__init__.py"])
def test_a_module_that_would_replace_one_of_the_trainer_is_an_error(
    shell: Shell, name: str
) -> None:
    write(shell)
    shell.write(f"env/{name}", "rows = []\n")
    done = shell("env", "test", "env")

    assert done.returncode == 2
    assert f"the environment's {name} has the name of a module that the trainer" in done.stderr
    assert "rename it" in done.stderr


def test_bytes_that_are_not_text_are_reported_once(shell: Shell) -> None:
    write(shell, rows=b"\xff\xfe")
    data = shell("env", "test", "env").stderr
    write(shell)
    shell.write("env/TRAINING_CONTRACT.md", b"\xff\xfe")
    contract = shell("env", "test", "env").stderr

    assert data.startswith("error: dataset/train.jsonl: the file cannot be read: ")
    assert contract.startswith("error: the environment failed while reading TRAINING_CONTRACT.md: ")
    assert data.count("\n") == contract.count("\n") == 1


def test_an_environment_that_hangs_is_killed_with_its_processes(shell: Shell) -> None:
    sleep = "import subprocess, time; subprocess.Popen(['sleep', '7654']); time.sleep(7654)"
    write(shell, GOOD.replace(PROMPT, sleep))
    done = shell("env", "test", "env", "--timeout", "3")

    assert done.returncode == 2
    assert "it took longer than 3 s while building the prompt of row 1" in done.stderr


def test_a_model_without_a_tokenizer_is_refused(shell: Shell) -> None:
    write(shell)
    shell.write("model/config.json", "{}")
    done = shell("env", "test", "env", "--model", "model")
    assert done.returncode == 2
    assert "model has no tokenizer_config.json" in done.stderr


TRANSFORMERS = """
import os

class AutoTokenizer:
    @staticmethod
    def from_pretrained(folder):
        raise ValueError(sorted(os.listdir(folder)))
"""
"""Stands in for transformers, which is not installed here: it shows what it was given."""


def check_with_transformers(shell: Shell, model: str) -> CompletedProcess[str]:
    """Check with a model where transformers is a module that shows the model's folder."""
    shell.write("modules/transformers/__init__.py", TRANSFORMERS)
    path = f"{ROOT}/operator/src:{shell.folder}/modules"
    shell = replace(shell, variables={**shell.variables, "PYTHONPATH": path})
    return shell.in_new_process("env", "test", "env", "--model", model)


MIRRORED = Model(id="org/small", parameters=1, source=Source.MIRROR, revision="7")
HUB = Model(id="org/hub", parameters=1)


def test_the_tokenizer_of_a_mirrored_model_is_downloaded_with_the_keys_of_people(
    served: Served,
) -> None:
    served.give_mirror()
    served.publish(models_namespace=served.namespace, models=(MIRRORED, HUB))
    write_model(served.flash.folder / "model", chat_template__jinja=b"{{ messages }}")
    pushed = served.flash("model", "push", "model", "--id", "org/small", "--revision", "7")
    assert pushed.returncode == 0, pushed.stderr
    policy = namespace_policy(served.store.access.bucket_arn, served.namespace, ["org"])
    access = served.store.assume(policy, 900).model_dump_json(exclude_none=True)
    patch = json.dumps({"stringData": {names.ACCESS_KEY: access}})
    served.kubectl("patch", "secret", names.STORAGE_USER_SECRET, "-p", patch)
    write(served.flash)
    done = check_with_transformers(served.flash, "org/small")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "the model's tokenizer cannot be loaded" in line
    files = "['chat_template.jinja', 'config.json', 'tokenizer.json', 'tokenizer_config.json']"
    assert files in line
    again = check_with_transformers(served.flash, "org/small@7")
    assert again.stderr == done.stderr


@pytest.mark.parametrize(
    ("model", "code", "sentence"),
    [
        ("org/hub", 3, "org/hub is in the platform's catalog, but runs get it from the hub, and"),
        ("org/none", 3, "the platform's catalog has no model org/none, and the mirror has none"),
        ("org/small", 3, "the mirror has no model org/small at revision 7"),
        ("org/none@8", 3, "the mirror has no model org/none at revision 8"),
    ],
)
def test_a_model_that_the_mirror_does_not_have_is_named_with_the_way_out(
    served: Served, model: str, code: int, sentence: str
) -> None:
    served.publish(models=(MIRRORED, HUB))
    write(served.flash)
    done = check_with_transformers(served.flash, model)

    assert done.returncode == code
    assert "the tokenizer of org/" in done.stderr
    assert sentence in done.stderr
    assert "or give the folder of a downloaded model to --model" in done.stderr


def test_a_namespace_without_storage_keys_is_named_with_the_way_out(served: Served) -> None:
    served.publish(models=(MIRRORED,))
    served.kubectl("delete", "secret", names.STORAGE_USER_SECRET)
    write(served.flash)
    done = check_with_transformers(served.flash, "org/small")

    assert done.returncode == 1
    assert "has no storage access for people" in done.stderr
    assert "or give the folder of a downloaded model to --model" in done.stderr


def test_a_model_by_its_id_needs_a_cluster_and_says_so(shell: Shell) -> None:
    write(shell)
    done = check_with_transformers(shell, "org/small")

    assert done.returncode == 2
    assert "the tokenizer of org/small is not available: " in done.stderr
    assert "give the folder of a downloaded model to --model" in done.stderr


def test_without_transformers_no_cluster_is_asked(shell: Shell) -> None:
    write(shell)
    done = shell("env", "test", "env", "--model", "org/small")

    assert done.returncode == 2
    assert "transformers is not installed here" in done.stderr


def test_a_folder_of_a_model_that_is_not_there_is_named(shell: Shell) -> None:
    write(shell)
    done = shell("env", "test", "env", "--model", "./models/small")

    assert done.returncode == 3
    assert "folder ./models/small does not exist" in done.stderr


def test_a_folder_without_an_environment_is_refused_with_the_way_out(shell: Shell) -> None:
    done = shell("env", "test", ".")

    assert done.returncode == 2
    assert "flash env setup writes one" in done.stderr


EPISODES = """
from freesolo.environments import EnvironmentMultiTurn, EnvironmentStepResult, RewardResult

class Talk(EnvironmentMultiTurn):
    def start_episode(self, example, prompt_text):
        return [{"role": "user", "content": example.input}]

    def max_episode_turns(self, example):
        return 1_000_000

    def step_episode(self, example, messages, assistant_response):
        reply = {"role": "user", "content": "Go on."}
        return EnvironmentStepResult(done=assistant_response == "bye", messages=(reply,))

    def score_episode(self, example, episode):
        return RewardResult(score=float(episode.response_text == "bye"))

def load_environment():
    return Talk()
"""


TALK = json.dumps(
    {
        "input": "Hello",
        "output": [
            {"role": "assistant", "content": "hi"},
            {"role": "user", "content": "Go on."},
            {"role": "assistant", "content": "bye"},
        ],
    }
)


def test_episodes_are_played_with_right_answers_and_with_junk(shell: Shell) -> None:
    write(shell, EPISODES, TALK)
    [row] = json.loads(shell("env", "test", "env", "-o", "json").stdout)["scored"]

    assert (row["gold"]["score"], row["gold"]["turns"]) == (1, 2)
    assert {play["turns"] for play in row["junk"]} == {50}  # it never ends by itself
    assert {play["score"] for play in row["junk"]} == {0}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("return 1_000_000", "return 0", "max_episode_turns returned 0, and must return 1 or more"),
        ('reply = {"role"', 'reply = {}["role"]; {"role"', "KeyError"),
        ("return RewardResult(", "return (1 / 0)(", "ZeroDivisionError"),
    ],
)
def test_a_broken_episode_is_an_error(shell: Shell, old: str, new: str, sentence: str) -> None:
    write(shell, EPISODES.replace(old, new), TALK)
    done = shell("env", "test", "env")

    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_run_of_sft_needs_every_opening(shell: Shell) -> None:
    broken = 'if example.input == "bad": raise ConnectionError("no board")\n        return [{'
    rows = "\n".join([TALK, TALK.replace("Hello", "bad"), TALK])
    write(shell, EPISODES.replace("return [{", broken, 1), rows)
    config = 'model = "Qwen/Qwen3.5-4B"\nalgorithm = "sft"\n[environment]\nid = "org/env"\n'
    shell.write("run.toml", config)

    done = shell("env", "test", "env", "--config", "run.toml")

    assert done.returncode == 2
    assert "building the prompt of row 2: ConnectionError: no board" in done.stderr
    assert "GRPO" not in done.stderr


def test_a_config_decides_what_is_checked() -> None:
    config = """\
model = "Qwen/Qwen3.5-4B"
algorithm = "grpo"
thinking = true
environment.id = "org/env"
train.max_tokens = 99
"""
    composed = compose([ConfigFile("config.toml", config.encode())])

    assert planned_run(composed, thinking=False) == PlannedRun(Algorithm.GRPO, True, 99, 2147)
    assert planned_run(None, thinking=True) == PlannedRun(None, True, 1536, 3584)


def test_the_held_out_split_is_read_like_that_of_training(shell: Shell) -> None:
    write(shell, GOOD.replace("example.input}", "example.input + str(1 // len(example.input))}"))
    shell.write("env/dataset/eval.jsonl", ROW + '{"input": "2 + 2"}\n{"input": ""}\n')
    done = shell("env", "test", "env")

    assert done.returncode == 0
    assert "1 of 3 examples of split eval are also trained on (row 1 is the first)" in done.stderr
    assert "dataset/eval.jsonl:3: the input is empty" in done.stderr
    assert "a row of split eval is left out of evaluations: the environment failed" in done.stderr


def test_a_held_out_split_that_a_config_names_must_be_there(shell: Shell) -> None:
    write(shell)
    config = 'model = "m/m"\nalgorithm = "sft"\n[environment]\nid = "a/b"\n[eval]\nsplit = "exam"\n'
    shell.write("config.toml", config)
    done = shell("env", "test", "env", "--config", "config.toml")
    assert (done.returncode, "no dataset/exam.jsonl" in done.stderr) == (2, True)

    shell.write("env/dataset/exam.jsonl", "{}\n")
    done = shell("env", "test", "env", "--config", "config.toml")
    assert done.returncode == 2
    assert "dataset/exam.jsonl:1" in done.stderr

    shell.write("config.toml", config.replace('split = "exam"', "enabled = false"))
    shell.write("env/dataset/eval.jsonl", "{}\n")
    assert shell("env", "test", "env", "--config", "config.toml").returncode == 0


def test_a_split_that_is_not_named_is_only_warned_about(shell: Shell) -> None:
    write(shell)
    shell.write("env/dataset/eval.jsonl", "not JSON: {\n{}\n")
    done = shell("env", "test", "env")
    assert done.returncode == 0
    assert "warning" in done.stderr
    assert "dataset/eval.jsonl:2" in done.stderr


# --- like in a pod ------------------------------------------------------------------------------


def with_code(line: str) -> str:
    """The good environment, with a line at its beginning."""
    return f"import os, pathlib, sys\n{line}\n{GOOD}"


UNLIKE_A_POD = {
    "a variable of the shell": (
        'os.environ["TOKEN_OF_MY_SHELL"]',
        "KeyError: 'TOKEN_OF_MY_SHELL'; if 'TOKEN_OF_MY_SHELL' is a secret, add it to "
        "[environment].secrets",
    ),
    "a file of the home": (
        '(pathlib.Path.home() / "config.toml").read_text()', "No such file or directory"
    ),
    "a file that is not published": (
        'pathlib.Path(__file__).with_name(".env").read_text()', "No such file or directory"
    ),
    "a package that neither the image nor the pip list has": (
        "import pytest", "No module named 'pytest'; add the package that provides pytest to "
        "[environment].pip",
    ),
    "such a package that another library looks for": (
        'import importlib.util; assert importlib.util.find_spec("hypothesis")', "AssertionError"
    ),
    "a file in the working folder": (
        'pathlib.Path("cache.json").write_text("{}")', "read-only"
    ),
    "a package of the image that is not here": (
        "import torchgen", "the trainer image has torchgen: install it here"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("line", "sentence"), UNLIKE_A_POD.values(), ids=UNLIKE_A_POD)
def test_what_works_here_and_not_in_a_pod_is_an_error(
    shell: Shell, line: str, sentence: str
) -> None:
    shell.variables["TOKEN_OF_MY_SHELL"] = "x"
    write(shell, with_code(line))
    shell.write("env/.env", "KEY=1\n")
    done = shell("env", "test", "env")

    assert done.returncode == 2
    assert sentence in done.stderr.replace("Permission denied", "read-only")


@pytest.mark.parametrize(
    "line",
    [
        '(pathlib.Path.home() / "cache.json").write_text("{}")',
        "import tempfile; tempfile.NamedTemporaryFile()",
        'pathlib.Path(__file__).with_name("cache.json").write_text("{}")',
        'assert os.environ["USER"] == "flashrun" and os.environ["PYTHONHASHSEED"] == "0"',
        "import httpx, yaml",
        "exit",
    ],
)
def test_what_works_in_a_pod_works_here(shell: Shell, line: str) -> None:
    write(shell, with_code(line))
    done = shell("env", "test", "env")

    assert done.returncode == 0, done.stderr
    assert not (shell.folder / "env" / "cache.json").exists()


def test_places_are_those_of_the_authors_folder(shell: Shell) -> None:
    write(shell, with_code("raise RuntimeError(__file__)"))
    done = shell("env", "test", "env")

    assert f"RuntimeError: {shell.folder}/env/environment.py" in done.stderr
    assert "error: environment.py:2: " in done.stderr


def test_another_python_than_that_of_the_image_is_named(shell: Shell) -> None:
    write(shell)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    expected = f"note: this is Python {here}; the trainer image has {IMAGE_PYTHON}"
    done = shell("env", "test", "env")
    write(shell, with_code("1 / 0"))
    broken = shell("env", "test", "env")

    assert (expected in done.stderr) is (here != IMAGE_PYTHON)
    assert (expected in broken.stderr) is (here != IMAGE_PYTHON)
    write(shell, rows="{\n")
    assert "note: " not in shell("env", "test", "env").stderr  # only a row is wrong


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index with one package, which needs another one."""
    for name, needs in (("aaa_test", ["bbb_test"]), ("bbb_test", [])):
        wheel(project(tmp_path / "index", name), name, needs)
    with serving(partial(QuietHandler, directory=str(tmp_path / "index"))) as address:
        yield f"{address}/"


def config_with(shell: Shell, *pip: str) -> None:
    table = f'model = "Qwen/Qwen3.5-4B"\n[environment]\nid = "org/env"\npip = {list(pip)}\n'
    shell.write("run.toml", table)


def test_the_pip_list_is_installed_once_and_left_out_on_request(shell: Shell, index: str) -> None:
    write(shell, with_code("import aaa_test, bbb_test"))
    config_with(shell, "aaa_test")
    shell.variables["PIP_INDEX_URL"] = index
    words = ("env", "test", "env", "--config", "run.toml")

    assert "No module named 'aaa_test'" in shell(*words, "--no-pip").stderr
    assert shell(*words).returncode == 0
    shell.variables["PIP_INDEX_URL"] = "http://127.0.0.1:1/"
    assert shell(*words).returncode == 0
    assert "No module named 'aaa_test'" in shell("env", "test", "env").stderr


def test_a_pip_list_that_a_pod_could_not_install_is_an_error(shell: Shell, index: str) -> None:
    write(shell)
    shell.variables["PIP_INDEX_URL"] = index
    config_with(shell, "ccc_test")
    done = shell("env", "test", "env", "--config", "run.toml")

    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "ccc_test" in done.stderr.splitlines()[-1]
