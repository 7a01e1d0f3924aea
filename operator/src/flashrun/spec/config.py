"""The TOML that people write, as one frozen model a table.

Validators here only say yes or no; defaults are filled in once, by ``flashrun.plan.resolve``.
``None`` means "not given" everywhere. The same models, spelled in camelCase, are the larger part of
``FlashRun.spec``: see ``flashrun.spec.run``.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from flashrun.spec import names, secrecy
from flashrun.spec.model import Section

_ENVIRONMENT_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARAMS_LIMIT: Final = 65_536
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

SECRETS_HINT: Final = "put its name in [environment].secrets and its value in your shell or .env"


class Algorithm(StrEnum):
    """How a run learns."""

    SFT = "sft"
    GRPO = "grpo"


def _integral(value: Any) -> Any:
    """Take 300.0 for 300, as TOML tools write it, and refuse what only looks like an integer."""
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
    if value != value or abs(value) > 1e308:
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
    if (found := secrecy.secret_value(text)) is not None:
        raise ValueError(f"looks like {found}, and a spec is no place for one: {SECRETS_HINT}")
    return text


PublicText = Annotated[Text, AfterValidator(_no_secret)]
Identifier = Annotated[
    str, BeforeValidator(_text), Field(min_length=1, max_length=128), AfterValidator(_no_secret)
]
"""Part of storage keys; the policy that limits a run's credentials has room for no longer ones."""


def _algorithm(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in set(Algorithm):
        return value.lower()
    raise ValueError(f"must be one of {', '.join(Algorithm)}")


def _environment_id(value: str) -> str:
    parts = value.split("/")
    if not _ENVIRONMENT_ID.fullmatch(value) or any(part in (".", "..") for part in parts):
        raise ValueError(
            "must be <org>/<name> of letters, digits, '.', '_' and '-', "
            "as printed by flash env push"
        )
    return value


def _variable(name: str) -> str:
    # The given text is not repeated: people paste values here.
    if not _ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError(
            "must be the name of an environment variable: letters, digits and '_', and no value"
        )
    if (found := secrecy.secret_value(name)) is not None:
        raise ValueError(f"looks like {found}: write the name of a variable, not its value")
    if (why := secrecy.forbidden_name(name)) is not None:
        raise ValueError(f"cannot be {name}, which {why}")
    return name


def _public_variable(name: str) -> str:
    if secrecy.secret_name(name):
        raise ValueError(f"is the name of a secret: {SECRETS_HINT}")
    return name


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value))


def _requirement(value: str) -> str:
    if value.startswith("-"):
        raise ValueError(f"{value!r} is an option of pip; only requirements are allowed")
    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{value!r} is not a requirement (PEP 508): {reason}") from None
    if requirement.url is not None:
        raise ValueError(
            f"{value!r} names an address; list packages of the index by name, as in openai>=1"
        )
    return value


def _public_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    texts = _strings(value, "")
    if sum(len(text) for _, text in texts) > _PARAMS_LIMIT:
        raise ValueError(f"has more than {_PARAMS_LIMIT:,} characters; data belongs in the package")
    for path, text in texts:
        if (found := secrecy.secret_value(text)) is not None:
            raise ValueError(f"{path} looks like {found}: {SECRETS_HINT}")
    return value


def _strings(value: JsonValue, path: str) -> list[tuple[str, str]]:
    match value:
        case str():
            return [(path, value)]
        case dict():
            pairs = [(f"{path}.{key}" if path else key, item) for key, item in value.items()]
        case list():
            pairs = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
        case _:
            return []
    return [found for inner, item in pairs for found in _strings(item, inner)]


def _split(params: dict[str, JsonValue]) -> dict[str, JsonValue]:
    split = params.get("split")
    if split is not None and not (isinstance(split, str) and _SPLIT.fullmatch(split)):
        raise ValueError(
            f"split is {split!r}; it names dataset/<split>.jsonl, so it must be letters, digits, "
            "'.', '_' and '-'"
        )
    return params


def _json_table(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("must be a table")
    for key, item in value.items():
        _check_json(item, str(key), depth=0)
    return value


def _check_json(value: Any, path: str, depth: int) -> None:
    if depth > 32:
        raise ValueError(f"{path} is nested deeper than 32 levels")
    match value:
        case int() if abs(value) >= 2**63:
            raise ValueError(f"{path} is too large for JSON")
        case None | bool() | int() | str():
            return
        case float():
            if value != value or abs(value) == float("inf"):
                raise ValueError(f"{path} must be finite")
        case list():
            for index, item in enumerate(value):
                _check_json(item, f"{path}[{index}]", depth + 1)
        case dict():
            for key, item in value.items():
                _check_json(item, f"{path}.{key}", depth + 1)
        case _:
            kind = type(value).__name__
            raise ValueError(f"{path} is a {kind}, which JSON cannot carry; write it as a string")


def _string_list(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return tuple(value)


def _stops(value: Any) -> Any:
    """Take one string for one stop sequence, and drop empty ones."""
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


class Environment(Section):
    """What the run learns from: a published environment and how to load it."""

    id: Annotated[Identifier, AfterValidator(_environment_id)]
    """Published environment, ``<org>/<name>``."""
    params: Annotated[
        dict[str, JsonValue],
        BeforeValidator(_json_table),
        AfterValidator(_public_json),
        AfterValidator(_split),
    ] = Field(default={}, max_length=64)
    """Keyword arguments of the environment's ``load_environment``; ``split`` also picks
    ``dataset/<split>.jsonl``."""
    pip: Annotated[
        tuple[
            Annotated[
                str,
                Field(max_length=256),
                AfterValidator(_no_secret),
                AfterValidator(_requirement),
            ],
            ...,
        ],
        BeforeValidator(_string_list),
    ] = Field(default=(), max_length=64)
    """Requirements (PEP 508) that are installed before the environment is imported."""
    secrets: Annotated[
        tuple[Annotated[str, Field(max_length=253), AfterValidator(_variable)], ...],
        BeforeValidator(_string_list),
        AfterValidator(_once),
    ] = Field(default=(), max_length=64)
    """Names of environment variables that reach the environment as secrets."""


class Train(Section):
    """The knobs of training; what is left out comes from the recipe of the algorithm."""

    lora_rank: Annotated[int, Field(ge=1, le=1024), INTEGRAL] | None = None
    """Rank of the LoRA adapter; higher means more capacity and a larger adapter."""
    lora_alpha: Annotated[int, Field(ge=1, le=65536), INTEGRAL] | None = None
    """LoRA scaling numerator."""
    learning_rate: Annotated[float, Field(gt=0), NUMBER] | None = None
    """Learning rate of the optimizer."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000), INTEGRAL] | None = None
    """Per optimizer step over all GPUs: sequences in SFT, prompts in GRPO."""
    max_length: Annotated[int, Field(ge=1, le=10_000_000), INTEGRAL] | None = None
    """Longest sequence in tokens, prompt and completion together."""
    save_every: Annotated[int, Field(ge=1, le=100_000_000), INTEGRAL] | None = None
    """Steps between checkpoints; every one is uploaded."""
    init_from_adapter: Annotated[
        Annotated[str, Field(max_length=80)] | None, BeforeValidator(_adapter_ref)
    ] = None
    """Adapter to start from: ``<run>`` or ``<run>/step-N``."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000), INTEGRAL] | None = None
    """SFT: passes over the dataset."""
    max_steps: Annotated[int, Field(ge=0, le=100_000_000), INTEGRAL] | None = None
    """SFT: cap on optimizer steps; 0 is no cap."""
    max_examples: Annotated[int, Field(ge=0, le=1_000_000_000), INTEGRAL] | None = None
    """Use only the first N rows of the dataset; 0 is no cap."""
    steps: Annotated[int, Field(ge=1, le=100_000_000), INTEGRAL] | None = None
    """GRPO: training steps."""
    group_size: Annotated[int, Field(ge=2, le=4096), INTEGRAL] | None = None
    """GRPO: completions sampled per prompt."""
    temperature: Annotated[float, Field(ge=0), NUMBER] | None = None
    """GRPO: sampling temperature of rollouts."""
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000), INTEGRAL] | None = None
    """GRPO: longest completion of a rollout in tokens, reasoning included."""
    kl_penalty_coef: Annotated[float, Field(ge=0), NUMBER] | None = None
    """GRPO: weight of the penalty for drifting away from the base model."""
    advantage_clip: Annotated[float, Field(ge=0), NUMBER] | None = None
    """GRPO: recorded for recipe parity; changes nothing."""
    thinking_length_penalty_coef: Annotated[float, Field(ge=0, le=1), NUMBER] | None = None
    """GRPO: reward subtracted per reasoning token."""
    stop_sequences: (
        Annotated[
            tuple[Annotated[str, Field(max_length=256), AfterValidator(_no_secret)], ...],
            Field(max_length=64),
            BeforeValidator(_stops),
        ]
        | None
    ) = None
    """GRPO: strings that end a completion."""


SFT_ONLY: Final = frozenset({"epochs", "max_steps"})
GRPO_ONLY: Final = frozenset(
    {"steps", "group_size", "temperature", "max_tokens", "kl_penalty_coef", "advantage_clip",
     "thinking_length_penalty_coef", "stop_sequences"}
)  # fmt: skip


class Wandb(Section):
    """Labels for Weights & Biases; logging is on when WANDB_API_KEY is there at submit."""

    project: PublicText | None = None
    """Project; ``flash`` when left out."""
    run_name: PublicText | None = None
    """Name of the run; ``flash-<algorithm>-<run>`` when left out."""


class RunConfig(Section):
    """One run as its author describes it."""

    model: Identifier
    """Base model to train an adapter on, as listed by ``flash models``."""
    algorithm: Annotated[Algorithm, BeforeValidator(_algorithm)] = Algorithm.SFT
    """``sft`` imitates completions that you provide; ``grpo`` learns from a reward you define."""
    thinking: Flag = False
    """Reasoning mode, for models that can; shares ``max_tokens`` with the answer."""
    environment: Environment
    """Where data and rewards come from."""
    train: Train = Train()
    """Training knobs."""
    worker_env: dict[
        Annotated[str, AfterValidator(_variable), AfterValidator(_public_variable)],
        Annotated[str, BeforeValidator(_public_string), Field(max_length=4096)],
    ] = Field(default={}, max_length=64)
    """Harmless variables for the trainer's process; they are part of the spec."""
    wandb: Wandb = Wandb()
    """Weights & Biases labels."""

    def keys_of_the_other_algorithm(self) -> tuple[str, ...]:
        """Return the ``train`` keys that were given but mean nothing to this algorithm."""
        other = GRPO_ONLY if self.algorithm is Algorithm.SFT else SFT_ONLY
        return tuple(sorted(key for key in self.train.model_fields_set & other))
