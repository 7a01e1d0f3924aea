"""Thousands of generated configs: our validation compared with that of the incumbent.

    python -m bench.differential [--cases 10000] [--seed 42] [--show NAME]

The incumbent runs in its own virtual environment, as one process that reads one config per line and
answers with values or with a refusal. Every difference must belong to a category of ``CATEGORIES``,
each with its reason; a difference without a category is printed, and the program ends with 1. The
same seed makes the same cases.
"""

import argparse
import json
import random
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench import sides
from flashrun.api.catalog import BUILT_IN, Catalog
from flashrun.api.config import RunConfig, TrainConfig
from flashrun.cli.config.compose import ConfigFile, compose
from flashrun.cli.config.problems import ConfigError
from flashrun.plan.resolve import check_config

INCUMBENT = "freesolo-flash==0.2.42"
PATIENCE = 10
"""Seconds without an answer after which the incumbent counts as hanging."""

THEIRS = """
import dataclasses, json, sys, tempfile
from flash.schema import spec_from_file
from flash.schema.fields import ConfigError

with tempfile.TemporaryDirectory() as folder:
    for line in sys.stdin:
        case = json.loads(line)
        paths = [f"{folder}/{number}.toml" for number in range(len(case["files"]))]
        for path, text in zip(paths, case["files"]):
            with open(path, "w") as file:
                file.write(text)
        base, *overlays = paths
        try:
            spec = spec_from_file(base, overrides=case["sets"], extra_configs=overlays)
            answer = {"values": dataclasses.asdict(spec)}
        except ConfigError as error:
            answer = {"refusal": str(error)}
        except Exception as error:
            answer = {"refusal": f"traceback: {type(error).__name__}: {error}"}
        print(json.dumps(answer, default=lambda value: f"unprintable {value!r}"), flush=True)
"""


class Case(NamedTuple):
    """One config: the base and its overlays as TOML text, and the assignments on top of them."""

    files: tuple[str, ...]
    sets: tuple[str, ...]


class Answer(NamedTuple):
    """The answer of one side: values, or the sentences of a refusal."""

    values: dict[str, Any] | None = None
    refusals: tuple[str, ...] = ()


# --- what is generated --------------------------------------------------------------------------

Tables = dict[str, dict[str, str]]
"""Keys of each table with their values as TOML text; the empty name is the top level."""

MODELS = [f'"{model.id}"' for model in BUILT_IN]
IDS = ['"your-org/your-env"', '"a/b"', '"Org.1/my_env-2"']
GOOD: dict[str, dict[str, list[str]]] = {
    "": {"algorithm": ['"sft"', '"grpo"', '"GRPO"', '"Sft"', '""'], "thinking": ["true", "false"]},
    "environment": {
        "params": ["{}", '{split = "test"}', "{n = 3, deep = {a = [1, 2.5, true]}}"],
        "pip": ["[]", '["openai>=1.0.0"]', '["a[b]>=1; python_version < \'4\'", "numpy"]'],
        "secrets": ["[]", '["SERVICE_API_KEY"]', '["A", "B_2", "A"]'],
    },
    "train": {
        "lora_rank": ["1", "16", "32", "64", "32.0"],
        "lora_alpha": ["1", "64", "128"],
        "learning_rate": ["1e-4", "0.0002", "1"],
        "batch_size": ["1", "8", "64"],
        "max_length": ["1024", "4096", "3072.0"],
        "save_every": ["1", "50"],
        "init_from_adapter": ['""', '"flash-1795370000-3fa9c1d2"', '"flash-1-a/step-50"'],
        "epochs": ["1", "3"],
        "max_steps": ["0", "100"],
        "max_examples": ["1", "1000"],
        "steps": ["1", "300"],
        "group_size": ["2", "8"],
        "temperature": ["0.7", "1", "1.0"],
        "max_tokens": ["64", "320", "512.0"],
        "kl_penalty_coef": ["0", "0.01"],
        "advantage_clip": ["0", "5.0"],
        "thinking_length_penalty_coef": ["0", "0.001", "1"],
        "stop_sequences": ["[]", '"</s>"', '["a", "", "b"]'],
    },
    "worker_env": {"FEATURE_FLAG": ['"enabled"', '""'], "SORT_KEY": ['"name"']},
    "wandb": {"project": ['"sums"', '" p "'], "run_name": ['"rank-32"']},
}
ODD = [
    "0", "1", "2", "-1", "1.0", "1.5", "-0.5", "0.0", "1e400", "nan", "inf", "-inf", "true",
    "false", "1024", "8192", "8193", "4097", "65", "129", "1_000", "9007199254740993",
    "9223372036854775807",
    "99999999999999999999999", "1e-400", "5e-324", "1e308", "2000000000", '""', '" "', '"x"', '"3"',
    '"true"', '"sft"', '"a\\nb"', '"a\\u0000b"', "[]", "[1]", '["x"]', '["x", 1]', '[""]', "[[]]",
    "{}", "{a = 1}", '{a = "x"}', "2026-11-22", "12:30:00",
    '"ghp_abcdefghijklmnopqrstuvwxyz0123456789"',
]  # fmt: skip
ODD_FOR: dict[str, list[str]] = {
    "model": ['"Qwen/Qwen3.5-4b"', '" Qwen/Qwen3.5-4B "', '"gpt-9"', '"Qwen/Qwen3.5-4B\\n"'],
    "algorithm": ['"dpo"', '" sft"', "0", "false", "[]", "{}"],
    "id": ['" a/b "', '"a"', '"a/b/c"', '"a/.."', '"./b"', '"a b/c"', '"github:a/b"',
           '"github:a/b@v1:x"', '"https://github.com/a/b"', '"a:b/c"', '"/b"', '"a/"',
           f'"{"a" * 130}/b"'],
    "params": ['{split = "../x"}', "{split = 3}", "{x = nan}", "{day = 2026-11-22}",
               '{key = "sk-abcdefghijklmnopqrstuvwx"}', "{n = 99999999999999999999}"],
    "pip": ['["-e ."]', '["a b"]', '["a @ https://h.example/a.whl"]', '["git+https://h/x"]',
            '["a @ https://u:p@h/x.whl"]', '["./x"]', '"openai"', '["openai\\n"]', "[3]"],
    "secrets": ['["A B"]', '["A=1"]', '[""]', '["HF_TOKEN"]', '["hf_token"]', '["PATH"]',
                '["LD_PRELOAD"]', '["AWS_SECRET_ACCESS_KEY"]', '["my-key"]', '["1A"]', '["SEED"]',
                '["é"]', '["A\\tB"]', '["RUN_ID", "HF_REPO"]', '["RANK"]'],
    "init_from_adapter": ['"a/step-x"', '"a/b/step-1"', '"UPPER"', '"a.b_c"', '"run/step-007"',
                          '"s3://b/x"', f'"{"a" * 60}"', '" flash-1-a "', '"x/step-1234567890"'],
    "group_size": ["1", "4097"],
    "temperature": ["0", "0.0", "2.5"],
    "max_tokens": ["4096", "8000"],
    "stop_sequences": ['["ghp_abcdefghijklmnopqrstuvwxyz0123456789"]', f'"{"s" * 300}"',
                       json.dumps([str(n) for n in range(65)])],
    "lora_alpha": ["65536", "65537"],
    "batch_size": ["100000", "1000000", "1000001"],
    "lora_rank": ["64.0", "65", "128", "129"],
    "max_length": ["4096", "4097", "8192", "8193", "8000000"],
}  # fmt: skip
UNKNOWN = {
    "": ["thinkng", "steps", "secrets", "seed", "run_id", "model_policy", "dry_run"],
    "environment": ["secret", "split", "name", "resolved_sha"],
    "train": ["kl_penalty_coeff", "groupSize", "lora-rank", "seed", "hf_repo"],
    "worker_env": ["PATH", "LD_PRELOAD", "HF_TOKEN", "OPENAI_API_KEY", "apiKey", "MY-FLAG", "A B",
                   "RUN_ID", "PIP_INDEX_URL", "run_id", "LEVEL", "X=1", "DB_PASSWORD", "my-token"],
    "wandb": ["name", "entity"],
    "gpu": ["type", "count"],
    "grpo": ["group_size"],
    "sft": ["epochs"],
    "deployment": ["replicas"],
}  # fmt: skip
PLACES = [
    ("", "model"),
    ("environment", "id"),
    *((t, key) for t, keys in GOOD.items() for key in keys),
]
SET_VALUES = [
    "300", "1_000", "0x10", "007", "+5", "-3", "1e3", "1e-5", ".5", "5.", "true", "True", "FALSE",
    "words", '"quoted"', "'literal'", "", "a=b", "1,2", "2026-11-22", "null", "nan", "inf", "[]",
    "[a,b]", "[ a , b ]", "[1, 2]", '["a","b"]', '["a,b", "c"]', "[a,,b]", "[[1], [2]]", "{a = 1}",
    "{}", "sft", "grpo", "GRPO", "Qwen/Qwen3.5-2B", '"Qwen/Qwen3.5-2B"', "a/b", '"a/b"',
    "[unclosed",
    "1 # no comment", "\u0663", "infinity", "[OPENAI_KEY]", "[openai>=1,numpy]", "64", "1", "0",
]  # fmt: skip
SET_KEYS = [
    *(f"{table}.{key}" if table else key for table, keys in GOOD.items() for key in keys),
    "model", "environment.id", "environment", "train", "wandb", "worker_env", "worker_env.LEVEL",
    "environment.params.x", "environment.params.split", "environment.params.deep.a", "model.size",
    "train.steps.x", "trian.steps", "train.stps", "stps", "thinkng", "environment.secret", "train.",
    ".steps", "", "train..steps", " train.steps ", "train. steps", "gpu.type", "run_id", "gpu",
]  # fmt: skip


def cases(count: int, seed: int) -> Iterator[Case]:
    """Make the cases, each valid at first and then changed in up to three places."""
    chance = random.Random(seed)
    for _ in range(count):
        tables: Tables = valid(chance)
        files, sets = [tables], []
        for _ in range(chance.choices((0, 1, 2, 3), (20, 50, 20, 10))[0]):
            match chance.choices(("file", "overlay", "set"), (55, 15, 30))[0]:
                case "file":
                    mutate(chance, tables)
                case "overlay":
                    files.append({})
                    mutate(chance, files[-1])
                case "set":
                    sets.append(assignment(chance))
        yield Case(tuple(map(toml, files)), tuple(sets))


def valid(chance: random.Random) -> Tables:
    """Make a config that both sides should take."""
    tables: Tables = {
        "": {"model": chance.choice(MODELS)},
        "environment": {"id": chance.choice(IDS)},
    }
    for table, keys in GOOD.items():
        for key, values in keys.items():
            if chance.random() < 0.25:
                tables.setdefault(table, {})[key] = chance.choice(values)
    if chance.random() < 0.85:
        tables.setdefault("train", {}).setdefault("max_examples", "1000")
    return tables


def mutate(chance: random.Random, tables: Tables) -> None:
    """Change one place: a value, an unknown key, a missing key, a value that is not a table."""
    table, key = chance.choice(PLACES)
    match chance.choices(("good", "value", "unknown", "missing", "scalar"), (25, 40, 20, 10, 5))[0]:
        case "good" if key in GOOD.get(table, {}):
            tables.setdefault(table, {})[key] = chance.choice(GOOD[table][key])
        case "good" | "value":
            own = ODD_FOR.get(key, [])
            values = own if own and chance.random() < 0.6 else ODD
            tables.setdefault(table, {})[key] = chance.choice(values)
        case "unknown":
            table = chance.choice(list(UNKNOWN))
            key = chance.choice(UNKNOWN[table])
            tables.setdefault(table, {})[key] = chance.choice(['"x"', "true", "3", *ODD])
        case "missing":
            tables.get(table, {}).pop(key, None)
        case "scalar":
            name = chance.choice(["environment", "train", "worker_env", "wandb", "gpu"])
            tables.pop(name, None)
            tables.setdefault("", {})[name] = chance.choice(["3", '"x"', "false", "[]", "[{}]"])


def assignment(chance: random.Random) -> str:
    """Return a random value of ``--set``, sometimes without ``=``."""
    key = chance.choice(SET_KEYS)
    if chance.random() < 0.03:
        return key
    return f"{key}={chance.choice(SET_VALUES)}"


def toml(tables: Tables) -> str:
    """Return the tables as TOML text."""
    lines = []
    for table, keys in tables.items():
        lines += [f"[{table}]"] if table else []
        for key, value in keys.items():
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            lines.append(f"{key if bare else json.dumps(key)} = {value}")
    return "\n".join(lines) + "\n"


# --- the two sides ------------------------------------------------------------------------------


def ours(case: Case) -> Answer:
    """Return the answer of this project's command line."""
    try:
        files = [ConfigFile("run.toml", text.encode()) for text in case.files]
        composed = compose(files, case.sets)
    except ConfigError as error:
        return Answer(refusals=tuple(problem.sentence for problem in error.problems))
    if problems := check_config(composed.config, composed.train, Catalog()).problems:
        return Answer(refusals=tuple(map(str, problems)))
    return Answer(values=our_values(composed.config))


def our_values(config: RunConfig) -> dict[str, Any]:
    """Return every value by its dotted key, in the incumbent's representation."""
    train = config.train.model_dump()
    unset = {"lora_rank": 32, "lora_alpha": 64, "init_from_adapter": "", "stop_sequences": []}
    return {
        "model": config.model,
        "algorithm": str(config.algorithm),
        "thinking": config.thinking,
        **flat("environment", config.environment.model_dump()),
        **{
            f"train.{key}": unset.get(key) if value is None else listed(value)
            for key, value in train.items()
        },
        "worker_env": config.worker_env,
        **flat("wandb", config.wandb.model_dump()),
    }


def their_values(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the same keys from the incumbent's spec."""
    environment, train = spec["environment"], spec["train"]
    return {
        **{key: spec[key] for key in ("model", "algorithm", "thinking", "worker_env")},
        **flat("environment", {k: environment[k] for k in ("id", "params", "pip", "secrets")}),
        **flat("train", {key: train[key] for key in TrainConfig.model_fields}),
        **flat("wandb", spec["wandb"]),
    }


def flat(table: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values by their dotted keys."""
    return {f"{table}.{key}": listed(value) for key, value in values.items()}


def listed(value: Any) -> Any:
    """Return a tuple as a list, as JSON does; other values as they are."""
    return list(value) if isinstance(value, tuple) else value


class Incumbent:
    """The incumbent's validator, in a process with one line per answer; restarted when it hangs."""

    def __init__(self, python: Path) -> None:
        self.python = python
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([self.python, "-c", THEIRS], stdin=pipe, stdout=pipe, text=True)

    def ask(self, case: Case) -> Answer:
        """Return its answer; no answer in time counts as a refusal."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(case._asdict()) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.end()
            self.process = self._begin()
            return Answer(refusals=(f"no answer in {PATIENCE} s",))
        answer = json.loads(self.process.stdout.readline())
        if "refusal" in answer:
            return Answer(refusals=(answer["refusal"],))
        return Answer(values=their_values(answer["values"]))

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.communicate()


# --- what may differ, and why -------------------------------------------------------------------

STRICTER, LOOSER, OTHER = "only we refuse", "only they refuse", "both accept, values differ"


@dataclass(frozen=True)
class Category:
    """One kind of difference: a pattern that recognizes it, and its reason."""

    name: str
    kind: str
    pattern: str
    """Matches our sentence, their sentence, or ``key: ours | theirs``, depending on the kind."""
    reason: str


CATEGORIES = (
    Category("unknown keys at the top", STRICTER, r"not a key of the top level|is not a section",
             "A typo there would train with a default; the incumbent drops such keys."),
    Category("unknown keys of [environment]", STRICTER, r"not a key of \[environment\]",
             "As at the top."),
    Category("empty keys of --set", STRICTER, r"^the key is empty",
             "They would set nothing; the incumbent drops them."),
    Category("environments elsewhere", STRICTER, r"^environment\.id must be <org>",
             "The reference knows your-org/your-env alone; environments live in your storage."),
    Category("very long values", STRICTER, r"is too long; at most|has [0-9,]+ entries",
             "A run is one object of the Kubernetes API, and storage keys are made of ids."),
    Category("params that JSON cannot carry", STRICTER,
             r"^environment\.params\.\S+ (is a \w+, which JSON|is too large for|must be finite)",
             "They would reach the environment as something else, or crash the incumbent."),
    Category("odd names of splits", STRICTER, r"^environment\.params\.split is ",
             "The incumbent refuses them on the GPU."),
    Category("secrets in values", STRICTER, r" looks like an? ",
             "A spec is copied to status, storage and git; the reference asks for it."),
    Category("pip entries that are not requirements", STRICTER,
             r"^environment\.pip\[\d+\]: .*(an option of pip|not a requirement|must be one line)",
             "The incumbent finds out on the GPU."),
    Category("pip entries with an address", STRICTER,
             r"^environment\.pip(\[\d+\] names an address|: \S+ is not an allowed package host)",
             "Addresses only where the platform allows their host."),
    Category("names that no variable has", STRICTER, r"must be the name of an environment variable",
             "They become variables of a process and keys of a Secret."),
    Category("names of the platform, and names that change how programs run", STRICTER,
             r"cannot be \S+, which (is reserved|would change)",
             "In any case of letters; PATH and LD_PRELOAD would take over the trainer."),
    Category("worker_env values that are not text", STRICTER, r"^worker_env\..* must be a string",
             "The reference says string values; the incumbent makes true to True."),
    Category("control characters", STRICTER, r"must not contain NUL|without control characters",
             "A variable cannot carry NUL, and a label is one line."),
    Category("absurd sizes", STRICTER, r" must be at most \d{4,}, not| is too large$",
             "Bounds far above any use, so that the API server can check them."),
    Category("groups of one", STRICTER, r"^train\.group_size must be at least 2",
             "One completion has nothing to be compared with; TRL refuses it on the GPU."),
    Category("references to other runs", STRICTER, r"is not an adapter reference",
             "Names of runs are Kubernetes names: lower-case, no dots."),
    Category("sequences above the context", STRICTER, r"^train\.max_length: .* is above",
             "The incumbent says so when the run is submitted."),
    Category("no room for a prompt", STRICTER, r"leaves no room for a prompt",
             "The incumbent says so on the GPU."),
    Category("a temperature of 0", STRICTER, r"^train\.temperature: 0 makes",
             "Nothing can be learned from equal completions."),
    Category("nested values of --set that are not strings", STRICTER,
             r"must be a (list of strings|string), not (\[\[|\{|16$)",
             "--set reads TOML; the incumbent takes the brackets for text."),
    Category("SFT without max_examples", LOOSER, r"^train\.max_examples must be set",
             "The reference: 0 and nothing mean no cap. The incumbent needs it for its price."),
    Category("[gpu] that is not a table", LOOSER, r"^\[gpu\] must be a table",
             "Ignored with a note, whatever it is."),
    Category("blanks around a model", LOOSER, r"^unsupported model '(\s.*|[^']*\s)'",
             "Stripped, as around an environment."),
    Category("blanks in a key of --set", LOOSER, r"^\[train\] unknown key\(s\):  \w",
             "Dropped, as TOML does."),
    Category("their hardware", LOOSER, r"GPU class", "A platform here has its own."),
    Category("TOML in --set that they read as text", LOOSER,
             r"""--set [\w. ]+=(0x|["'{])""", "Quotes, tables and other bases have their meaning."),
    Category("blanks around an environment", OTHER, r"^environment\.id: '(\S+)' \| '\s*\1\s*'",
             "The incumbent keeps them in the spec; they name the same."),
    Category("variables and labels of --set stay text", OTHER,
             r"^(worker_env: .*--set worker_env\.|wandb\.\w+: .*--set wandb\.)",
             "The incumbent makes +5 to 5 and true to True, and keeps quotes."),
    Category("TOML in --set, with another value", OTHER,
             r"""--set [\w. ]+=(0x|["'{]|\[.*["'\[{])""",
             "Quotes do not stick, commas inside them do not split, tables are tables."),
)  # fmt: skip
"""All differences that are intended."""


@dataclass
class Count:
    """Numbers of cases by result."""

    same: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[Case, str]] = field(default_factory=dict)
    unexplained: list[tuple[Case, str, str]] = field(default_factory=list)

    def add(self, case: Case, own: Answer, other: Answer) -> None:
        """Count one case; it is explained when all its differences have a category."""
        differences = list(compare(case, own, other))
        if not differences:
            self.same["both accept" if own.values else "both refuse"] += 1
            return
        categories = {category_of(kind, text): (kind, text) for kind, text in differences}
        if None in categories:
            self.unexplained.append((case, *categories[None]))
            return
        for category, (_, text) in categories.items():
            assert category is not None
            self.explained[category.name] += 1
            self.examples.setdefault(category.name, (case, text))


def compare(case: Case, own: Answer, other: Answer) -> Iterator[tuple[str, str]]:
    """Yield each difference: its kind, and the text for the patterns of categories."""
    sets = "".join(f" --set {text}" for text in case.sets)
    if own.values is None and other.values is not None:
        yield from ((STRICTER, sentence) for sentence in own.refusals)
    elif own.values is not None and other.values is None:
        yield from ((LOOSER, sentence + sets) for sentence in other.refusals)
    elif own.values is not None and other.values is not None:
        for key, value in own.values.items():
            if value != other.values[key] or kinds(value) != kinds(other.values[key]):
                yield OTHER, f"{key}: {value!r} | {other.values[key]!r}{sets}"


def kinds(value: Any) -> Any:
    """Return the types inside a value; int and float are one type, bool is another."""
    if isinstance(value, list):
        return [kinds(item) for item in value]
    return "number" if type(value) in (int, float) else type(value).__name__


def category_of(kind: str, text: str) -> Category | None:
    """Return the first category that explains a difference."""
    fitting = (entry for entry in CATEGORIES if entry.kind == kind)
    return next((entry for entry in fitting if re.search(entry.pattern, text, re.S)), None)


def report(count: Count, show: str | None) -> Iterable[str]:
    """Return the lines of the report."""
    for name, number in sorted(count.same.items()):
        yield f"{number:6}  {name}"
    for entry in CATEGORIES:
        yield f"{count.explained[entry.name]:6}  {entry.kind}: {entry.name}. {entry.reason}"
        if show is not None and show in (entry.name, "all") and entry.name in count.examples:
            case, text = count.examples[entry.name]
            yield f"        {text}\n{indented(case)}"
    for case, kind, text in count.unexplained[:10]:
        yield f"UNEXPLAINED, {kind}: {text}\n{indented(case)}"


def indented(case: Case) -> str:
    """Return the text of a case, indented."""
    lines = "---\n".join(case.files).splitlines() + [f"--set {text}" for text in case.sets]
    return "\n".join(f"          {line}" for line in lines)


def main() -> int:
    """Compare, print, and return 1 when a difference has no category."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--show", help="print an example of this category, or of all", default=None)
    options = parser.parse_args()
    python = sides.environment("incumbent", [INCUMBENT])
    count = Count()
    incumbent = Incumbent(python)
    for case in cases(options.cases, options.seed):
        count.add(case, ours(case), incumbent.ask(case))
    incumbent.end()
    print(f"{options.cases} cases, seed {options.seed}; {sides.versions(python, 'freesolo-flash')}")
    print("\n".join(report(count, options.show)))
    agreed = sum(count.same.values())
    return sides.verdict(
        (f"the sides agree on {agreed} of {options.cases} cases", agreed > options.cases / 2),
        (f"{len(count.unexplained)} differences without a category", not count.unexplained),
    )


if __name__ == "__main__":
    sys.exit(main())
