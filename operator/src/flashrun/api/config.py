"""The TOML that people write, with one frozen model per table.

Validators only accept or refuse; ``flashrun.plan.resolve`` fills in the defaults, once.
``None`` means "not given" everywhere. The same models, spelled in camelCase, are the larger part of
``FlashRun.spec``: see ``flashrun.api.resource``.
"""

import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from flashrun.api import evaluation, names, secret_patterns
from flashrun.api.base import Section, when_submitted

ENVIRONMENT_ID: Final = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENTRIES: Final = 64
"""Most entries of a list or table."""
_PARAMS_LIMIT: Final = 65_536
"""Most characters of the strings in ``environment.params``."""
_PARAMS_VALUES: Final = 4_096
"""Most values in it."""
_SHOWN_KEY: Final = 64
"""Most characters of a key in the place that an error names."""
_Path = tuple[str | int, ...]
"""Keys and indices that lead to a value. Text of it, made for every value, would be as long as all
keys above, once for each value."""
LONGEST_SEQUENCE: Final = 10_000_000
"""Largest ``train.max_length`` that a config may have, in tokens."""
_PLAIN_REQUIREMENT: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?: ?(?:[=!<>]=|[<>]) ?[0-9]+(?:\.[0-9]+)*)?"
)
"""The simplest requirements: a name, and at most one bound on its version."""
CHECKSUM = re.compile(r"sha256=[0-9a-f]{64}")
SPLIT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

SECRETS_HINT: Final = "put its name in [environment].secrets and its value in your shell or .env"

# Sentences that the rules of the CRD say, too.
NO_VARIABLE: Final = (
    "must be the name of an environment variable: letters, digits and '_', and no value"
)
SECRET_AS_NAME: Final = "looks like {}: write the name of a variable, not its value"
SECRET_NAME: Final = f"is the name of a secret: {SECRETS_HINT}"
SECRET_IN_SPEC: Final = f"looks like {{}}, which must not be in a spec: {SECRETS_HINT}"
NO_METRIC: Final = (
    f"which says nothing about the model: use {evaluation.SCORE!r} or the name of one of the "
    "environment's metrics"
)
PIP_OPTION: Final = "is an option of pip; only requirements are allowed"
NO_REQUIREMENT: Final = "is not a requirement (PEP 508)"
PIP_LINES: Final = "must be one line: write one requirement per entry"
PIP_ADDRESS: Final = (
    "names an address that does not begin with https://; "
    "list packages of the index by name, as in openai>=1"
)
PIP_CREDENTIALS: Final = "names an address with credentials or a query, which must not be in a spec"
PIP_FRAGMENT: Final = "names an address that ends in #…; only #sha256=… is allowed there"


class Algorithm(StrEnum):
    """How a run learns."""

    SFT = "sft"
    GRPO = "grpo"


def _integral(value: Any) -> Any:
    """Accept 300.0 as 300, because TOML tools write it; refuse any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be an integer")
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("must be finite")
        if not value.is_integer():
            raise ValueError("must be an integer")
    if abs(value) >= 2**53:
        raise ValueError("is too large")
    return int(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    if value != value or abs(value) > sys.float_info.max:
        raise ValueError("must be finite")
    return value


def _strict_bool(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    if not value.strip():
        raise ValueError("must not be blank")
    if any(ord(character) < 32 for character in value):
        raise ValueError("must be one line without control characters")
    return value.strip()


# Behind the bounds in an annotation, so that the bounds apply to the number and reach the schema.
INTEGRAL: Final = BeforeValidator(_integral)
NUMBER: Final = BeforeValidator(_number)
Flag = Annotated[bool, BeforeValidator(_strict_bool)]
Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=512)]


def _no_secret(text: str) -> str:
    if (found := secret_patterns.describe_secret(text)) is not None:
        raise ValueError(SECRET_IN_SPEC.format(found))
    return text


_WANDB_LENGTH: Final = 128
"""Longest name of a project or run that Weights & Biases accepts."""
_WANDB_REFUSES: Final = r"/\#?%:"
"""Characters that Weights & Biases refuses in the name of a project."""


def _wandb_project(text: str) -> str:
    if refused := sorted(set(text) & set(_WANDB_REFUSES)):
        raise ValueError(
            f"must not contain {' or '.join(refused)}, which Weights & Biases refuses in the name "
            "of a project"
        )
    return text


def _wandb_length(text: str) -> str:
    if len(text) > _WANDB_LENGTH:
        raise ValueError(f"is too long; at most {_WANDB_LENGTH} characters are allowed")
    return text


WandbName = Annotated[
    Text,
    AfterValidator(when_submitted(_wandb_length)),
    AfterValidator(when_submitted(_no_secret)),
    Field(json_schema_extra={"maxLength": _WANDB_LENGTH}),
]
WandbProject = Annotated[
    WandbName,
    AfterValidator(when_submitted(_wandb_project)),
    Field(json_schema_extra={"pattern": r"^[^/\\#?%:]+$"}),
]
Identifier = Annotated[
    str,
    BeforeValidator(_text),
    Field(min_length=1, max_length=128),
    AfterValidator(when_submitted(_no_secret)),
]
"""Part of storage keys. Its length is limited because S3 policies have a limited length."""


def _algorithm(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in set(Algorithm):
        return value.lower()
    raise ValueError(f"must be one of {', '.join(Algorithm)}")


def is_environment_id(text: str) -> bool:
    """Say whether ``text`` is ``<org>/<name>``, neither of them a folder's ``.`` or ``..``."""
    parts = text.split("/")
    return bool(ENVIRONMENT_ID.fullmatch(text)) and not any(part in (".", "..") for part in parts)


def _environment_id(value: str) -> str:
    if not is_environment_id(value):
        raise ValueError(
            "must be <org>/<name> of letters, digits, '.', '_' and '-', "
            "as printed by flash env push"
        )
    return value


def _variable(name: str) -> str:
    # The given text is not repeated: people paste values here.
    if not VARIABLE.fullmatch(name):
        raise ValueError(NO_VARIABLE)
    return name


def _allowed_variable(name: str) -> str:
    if (found := secret_patterns.describe_secret(name)) is not None:
        raise ValueError(SECRET_AS_NAME.format(found))
    if (why := secret_patterns.why_forbidden(name)) is not None:
        raise ValueError(f"cannot be {name}, which {why}")
    return name


def _public_variable(name: str) -> str:
    if secret_patterns.is_secret_name(name):
        raise ValueError(SECRET_NAME)
    return name


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


def _requirement(value: str) -> str:
    if value.startswith("-"):
        raise ValueError(f"{value!r} {PIP_OPTION}")
    if any(ord(character) < 32 for character in value):
        raise ValueError(f"{value!r} {PIP_LINES}")
    try:
        url = pip_url(value)
    except ValueError as error:  # the address in it may be invalid, too
        reason = str(error).splitlines()[0]
        raise ValueError(f"{value!r} {NO_REQUIREMENT}: {reason}") from None
    if url is not None:
        _plain_https(url)
    return value


def pip_url(requirement: str) -> SplitResult | None:
    """Return the address that a requirement names, as in ``name @ https://host/x.whl``, or None."""
    if _PLAIN_REQUIREMENT.fullmatch(requirement):
        return None
    from packaging.requirements import Requirement  # slow to load, and few configs need it

    url = Requirement(requirement).url
    return None if url is None else urlsplit(url)


def _plain_https(url: SplitResult) -> None:
    """Refuse an address that is not a plain download; the platform checks its host."""
    if url.scheme != "https" or not url.hostname:
        raise ValueError(PIP_ADDRESS)
    if "@" in url.netloc or url.query:
        raise ValueError(PIP_CREDENTIALS)
    if url.fragment and not CHECKSUM.fullmatch(url.fragment):
        raise ValueError(PIP_FRAGMENT)


def _wrong(path: str, what: str) -> ValueError:
    """Return the error about the place ``path`` inside a value; empty for the value itself."""
    return ValueError(f"{path} {what}".lstrip())


def _public_json(value: JsonValue) -> JsonValue:
    for path, text in _strings(value):
        if (found := secret_patterns.describe_secret(text)) is not None:
            raise _wrong(_place(path), f"looks like {found}: {SECRETS_HINT}")
    return value


def _short(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if sum(len(text) for _, text in _strings(value)) > _PARAMS_LIMIT:
        raise ValueError(f"has more than {_PARAMS_LIMIT:,} characters; data belongs in the package")
    return value


def _strings(value: JsonValue, path: _Path = ()) -> Iterator[tuple[_Path, str]]:
    """Yield every string inside ``value`` with its path; a key is a string, too."""
    match value:
        case str():
            yield path, value
        case dict():
            for key, item in value.items():
                yield (*path, key), key
                yield from _strings(item, (*path, key))
        case list():
            for index, item in enumerate(value):
                yield from _strings(item, (*path, index))
        case _:
            pass


def _place(path: _Path) -> str:
    """Return a path inside a value as text, its keys shortened."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:_SHOWN_KEY]}" for step in path)
    return "".join(steps)


def _split(params: dict[str, JsonValue]) -> dict[str, JsonValue]:
    split = params.get("split")
    if split is not None and not (isinstance(split, str) and SPLIT.fullmatch(split)):
        raise ValueError(
            f"split is {split!r}; it names dataset/<split>.jsonl, so it must be letters, digits, "
            "'.', '_' and '-'"
        )
    return params


def _split_name(split: str) -> str:
    if not SPLIT.fullmatch(split):
        raise ValueError(
            "names dataset/<split>.jsonl, so it must be letters, digits, '.', '_' and '-', and "
            "begin with a letter or a digit"
        )
    return split


def _metric(metric: str) -> str:
    if metric in evaluation.COUNTS:
        raise ValueError(f"cannot be {metric!r}, {NO_METRIC}")
    return metric


def _table(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    return _few(value)


def _few_values(value: Any) -> Any:
    """Refuse a flood of nested values before each of them is looked at."""
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        inner = item.values() if isinstance(item, dict) else item
        if isinstance(item, dict | list | tuple):
            count += len(inner)
            waiting.extend(inner)
        if count > _PARAMS_VALUES:
            raise ValueError(
                f"has more than {_PARAMS_VALUES:,} values; data belongs in the package"
            )
    return value


def _json(value: Any) -> Any:
    _check_json(value, ())
    return value


FiniteJson = Annotated[JsonValue, BeforeValidator(_json)]
"""A value that every reader of JSON can read: finite, and of at most 32 levels."""


def _check_json(value: Any, path: _Path) -> None:
    if len(path) > 32:
        raise _wrong(_place(path), "is nested deeper than 32 levels")
    match value:
        case int() if abs(value) >= 2**63:
            raise _wrong(_place(path), "is too large for JSON")
        case None | bool() | int() | str():
            return
        case float():
            if value != value or abs(value) == float("inf"):
                raise _wrong(_place(path), "must be finite")
        case list():
            for index, item in enumerate(value):
                _check_json(item, (*path, index))
        case dict():
            for key, item in value.items():
                _check_json(item, (*path, str(key)))
        case _:
            kind = type(value).__name__
            what = f"is a {kind}, which JSON cannot carry; write it as a string"
            raise _wrong(_place(path), what)


def _string_list(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return tuple(_few(value))


def _few(value: Any) -> Any:
    """Refuse a flood before each of its entries is looked at."""
    if isinstance(value, list | tuple | dict) and len(value) > _ENTRIES:
        raise ValueError(f"has {len(value):,} entries; at most {_ENTRIES} are allowed")
    return value


def _stops(value: Any) -> Any:
    """Accept a single string as a list of one, and drop empty strings."""
    listed = _string_list([value] if isinstance(value, str) else value)
    return tuple(stop for stop in listed if stop)


def _adapter_ref(value: Any) -> Any:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return str(names.parse_ref(value))


def _public_string(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a string: write it in quotes")
    if "\0" in value:
        raise ValueError("must not contain NUL")
    return _no_secret(value)


class EnvironmentConfig(Section):
    """What the run learns from: a published environment and how to load it."""

    id: Annotated[Identifier, AfterValidator(_environment_id)] = Field(
        examples=["your-org/your-env"]
    )
    """Published environment, ``<org>/<name>``."""
    params: Annotated[
        dict[
            Annotated[str, AfterValidator(when_submitted(_no_secret))],
            Annotated[FiniteJson, AfterValidator(when_submitted(_public_json))],
        ],
        BeforeValidator(when_submitted(_few_values)),
        BeforeValidator(_table),
        AfterValidator(when_submitted(_short)),
        AfterValidator(_split),
    ] = Field(default={}, max_length=_ENTRIES, examples=[{"split": "test"}])
    """Keyword arguments of the environment's ``load_environment``; ``split`` also picks
    ``dataset/<split>.jsonl``."""
    pip: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=256),
                AfterValidator(when_submitted(_no_secret)),
                AfterValidator(_requirement),
            ],
            ...,
        ],
        BeforeValidator(_string_list),
    ] = Field(default=(), max_length=_ENTRIES, examples=[["openai>=1.0.0"]])
    """Requirements (PEP 508) that are installed before the environment is imported."""
    secrets: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=253),
                AfterValidator(_variable),
                AfterValidator(when_submitted(_allowed_variable)),
            ],
            ...,
        ],
        BeforeValidator(_string_list),
        AfterValidator(_once),
    ] = Field(default=(), max_length=_ENTRIES, examples=[["SERVICE_API_KEY"]])
    """Names of environment variables that reach the environment as secrets."""


class TrainConfig(Section):
    """Training settings; a key that is left out gets its value from the algorithm's recipe."""

    lora_rank: Annotated[int, Field(ge=1, le=1024), INTEGRAL] | None = Field(
        default=None, examples=[32]
    )
    """Rank of the LoRA adapter; higher means more capacity and a larger adapter."""
    lora_alpha: Annotated[int, Field(ge=1, le=65536), INTEGRAL] | None = Field(
        default=None, examples=[64]
    )
    """LoRA scaling numerator."""
    learning_rate: Annotated[float, Field(gt=0), NUMBER] | None = Field(
        default=None, examples=[1e-4]
    )
    """Learning rate of the optimizer."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000), INTEGRAL] | None = Field(
        default=None, examples=[32]
    )
    """Per optimizer step over all GPUs: rows in SFT, prompts in GRPO."""
    max_length: Annotated[int, Field(ge=1, le=LONGEST_SEQUENCE), INTEGRAL] | None = Field(
        default=None, examples=[4096]
    )
    """Longest sequence in tokens, prompt and completion together."""
    save_every: Annotated[int, Field(ge=1, le=100_000_000), INTEGRAL] | None = Field(
        default=None, examples=[50]
    )
    """Steps between checkpoints; every one is uploaded."""
    init_from_adapter: Annotated[
        Annotated[str, Field(max_length=80)] | None, BeforeValidator(_adapter_ref)
    ] = Field(default=None, examples=["flash-1795370000-3fa9c1d2/step-50"])
    """Adapter to start from: ``<run>`` or ``<run>/step-N``."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000), INTEGRAL] | None = Field(
        default=None, examples=[3]
    )
    """SFT: passes over the dataset."""
    max_steps: Annotated[int, Field(ge=0, le=100_000_000), INTEGRAL] | None = Field(
        default=None, examples=[200]
    )
    """SFT: limit on optimizer steps; 0 means no limit."""
    max_examples: Annotated[int, Field(ge=0, le=1_000_000_000), INTEGRAL] | None = Field(
        default=None, examples=[1000]
    )
    """Use only the first N rows of the dataset; 0 means all."""
    steps: Annotated[int, Field(ge=1, le=100_000_000), INTEGRAL] | None = Field(
        default=None, examples=[300]
    )
    """GRPO: training steps."""
    group_size: Annotated[int, Field(ge=2, le=4096), INTEGRAL] | None = Field(
        default=None, examples=[8]
    )
    """GRPO: completions sampled per prompt."""
    temperature: Annotated[float, Field(ge=0), NUMBER] | None = Field(default=None, examples=[0.8])
    """GRPO: sampling temperature of rollouts."""
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000), INTEGRAL] | None = Field(
        default=None, examples=[1024]
    )
    """GRPO: longest completion of a rollout in tokens, reasoning included."""
    kl_penalty_coef: Annotated[float, Field(ge=0), NUMBER] | None = Field(
        default=None, examples=[0.01]
    )
    """GRPO: weight of the penalty for drifting away from the base model."""
    advantage_clip: Annotated[float, Field(ge=0), NUMBER] | None = Field(
        default=None, examples=[5.0]
    )
    """GRPO: accepted and recorded; it has no effect."""
    thinking_length_penalty_coef: Annotated[float, Field(ge=0, le=1), NUMBER] | None = Field(
        default=None, examples=[0.001]
    )
    """GRPO with thinking: reward subtracted per reasoning token."""
    stop_sequences: (
        Annotated[
            tuple[
                Annotated[str, Field(max_length=256), AfterValidator(when_submitted(_no_secret))],
                ...,
            ],
            Field(max_length=_ENTRIES),
            BeforeValidator(_stops),
        ]
        | None
    ) = Field(default=None, examples=[["</answer>"]])
    """GRPO: strings that end a completion, special tokens too. Scores get the text before the
    string: with ``</answer>``, they see ``<answer>42``."""


SFT_ONLY: Final = frozenset({"epochs", "max_steps"})
GRPO_ONLY: Final = frozenset(
    {"steps", "group_size", "temperature", "max_tokens", "kl_penalty_coef", "advantage_clip",
     "thinking_length_penalty_coef", "stop_sequences"}
)  # fmt: skip
UNUSED_KEYS: Final = {Algorithm.SFT: GRPO_ONLY, Algorithm.GRPO: SFT_ONLY}
"""Keys of ``train`` that an algorithm does not use."""


class EvalConfig(Section):
    """Evaluation on held-out examples; an extension of the reference."""

    enabled: Flag = Field(default=True, examples=[False])
    """Whether the run is evaluated; ``false`` turns the default evaluation off."""
    split: Annotated[Text, Field(max_length=128), AfterValidator(_split_name)] | None = Field(
        default=None, examples=["test"], json_schema_extra={"pattern": f"^{SPLIT.pattern}$"}
    )
    """Split with the held-out examples, which must exist; when left out, ``eval`` if the
    environment has ``dataset/eval.jsonl``, else the run is not evaluated."""
    every: Annotated[int, Field(ge=1, le=100_000_000), INTEGRAL] | None = Field(
        default=None, examples=[25]
    )
    """Steps between evaluations, each of them with a checkpoint; when left out, an evaluation is
    part of every save. Every run is also evaluated before its first step and after its last."""
    max_examples: Annotated[int, Field(ge=1, le=1_000_000), INTEGRAL] | None = Field(
        default=None, examples=[128]
    )
    """Use only the first N examples of the split; when left out, 64, and fewer where evaluations
    would take more than 5 % of the run's time."""
    samples: Annotated[int, Field(ge=1, le=1024), INTEGRAL] | None = Field(
        default=None, examples=[4]
    )
    """Answers per example: 1 is the greedy one; more are sampled, and ``pass@k`` says how often one
    of k is right."""
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000), INTEGRAL] | None = Field(
        default=None, examples=[256]
    )
    """Longest answer in tokens, reasoning included; when left out, that of GRPO's rollouts."""
    metric: Annotated[Text, Field(max_length=64), AfterValidator(_metric)] | None = Field(
        default=None, examples=["accuracy"]
    )
    """What the best checkpoint is judged by: ``score``, one of the environment's metrics,
    ``pass@k``, or in SFT ``loss`` or ``token_accuracy``."""


class WandbConfig(Section):
    """Labels for Weights & Biases; logging is on when WANDB_API_KEY is there at submit."""

    project: WandbProject | None = Field(default=None, examples=["sums"])
    """Project; ``flash`` when left out. It must not contain any of ``/\\#?%:``."""
    run_name: WandbName | None = Field(default=None, examples=["rank-32"])
    """Name of the run; ``flash-<algorithm>-<run>`` when left out."""


class BudgetConfig(Section):
    """Bound on what the run may use; an extension of the reference."""

    gpu_hours: Annotated[float, Field(gt=0, le=1_000_000), NUMBER] | None = Field(
        default=None, examples=[8]
    )
    """GPU hours that the run may use, counted over all attempts as ``flash cost`` does. Then it
    saves and pauses; it goes on when this is raised."""


class RunConfig(Section):
    """One run as its author describes it."""

    model: Identifier = Field(examples=["Qwen/Qwen3.5-4B"])
    """Base model to train an adapter on, as listed by ``flash models``."""
    algorithm: Annotated[Algorithm, BeforeValidator(_algorithm)] = Field(
        default=Algorithm.SFT, examples=["grpo"]
    )
    """``sft`` imitates given completions; ``grpo`` learns from a reward that you define."""
    thinking: Flag = Field(default=False, examples=[True])
    """Reasoning mode, for models that have one; reasoning and answer share ``max_tokens``."""
    environment: EnvironmentConfig
    """Where data and rewards come from."""
    train: TrainConfig = TrainConfig()
    """Training settings."""
    eval: EvalConfig = EvalConfig()
    """Evaluation on held-out examples; an extension of the reference."""
    worker_env: Annotated[
        dict[
            Annotated[
                str,
                AfterValidator(_variable),
                AfterValidator(when_submitted(_allowed_variable)),
                AfterValidator(when_submitted(_public_variable)),
            ],
            Annotated[str, BeforeValidator(_public_string), Field(max_length=4096)],
        ],
        BeforeValidator(_few),
    ] = Field(default={}, max_length=_ENTRIES, examples=[{"FEATURE_FLAG": "enabled"}])
    """Environment variables of the trainer that are not secret; the spec contains them."""
    wandb: WandbConfig = WandbConfig()
    """Weights & Biases labels."""
    budget: BudgetConfig = BudgetConfig()
    """Bound on what the run may use; an extension of the reference."""

    def keys_of_the_other_algorithm(self) -> tuple[str, ...]:
        """Return the ``train`` keys that were given but mean nothing to this algorithm."""
        return tuple(sorted(self.train.model_fields_set & UNUSED_KEYS[self.algorithm]))
