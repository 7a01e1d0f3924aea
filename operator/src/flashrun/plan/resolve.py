"""A config and the catalog → every value that a trainer uses, or the problems of the config.

This is the only place where defaults are filled in. The command line calls ``check_config`` before
it submits a run, and the operator calls it again: a run that ``kubectl`` created gets the same
messages.
"""

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from flashrun.api import catalog as recipes
from flashrun.api import evaluation, names
from flashrun.api.catalog import Catalog, Model, Thinking
from flashrun.api.config import Algorithm, RunConfig, pip_url
from flashrun.api.records import (
    Manifest,
    ResolvedAdapter,
    ResolvedEnvironment,
    ResolvedEval,
    ResolvedModel,
    ResolvedRun,
    ResolvedTrain,
    ResolvedWandb,
    RunIdentity,
)


@dataclass(frozen=True)
class ConfigIssue:
    """A problem of a config, or a warning about it, at one key."""

    key: str
    message: str

    def __str__(self) -> str:
        """Return the issue as one sentence."""
        return f"{self.key}: {self.message}"


@dataclass(frozen=True)
class ConfigCheck:
    """The result of ``check_config``: what refuses a config, and what only warns."""

    problems: tuple[ConfigIssue, ...] = ()
    warnings: tuple[ConfigIssue, ...] = ()


def check_config(
    config: RunConfig,
    train: ResolvedTrain,
    catalog: Catalog,
    *,
    pip_url_hosts: Collection[str] = (),
) -> ConfigCheck:
    """Check what depends on the platform: the limits of its models, the hosts of pip addresses.

    ``train`` are the training values of ``config``, as ``resolve_train`` returns them.
    """
    model = catalog.get(config.model)
    addresses = _forbidden_addresses(config, pip_url_hosts)
    if model is None:
        return ConfigCheck(problems=(_unknown_model(config.model, catalog), *addresses))
    problems = (
        *addresses,
        _thinking_problem(config, model),
        _rank_problem(config, model),
        _length_problem(config, train, model),
        _completion_problem(config, train),
        _temperature_problem(config),
        *_eval_problems(config, train),
    )
    return ConfigCheck(
        problems=tuple(issue for issue in problems if issue is not None),
        warnings=(*_ignored_keys(config), *_short_lengths(config)),
    )


def resolve_train(config: RunConfig, adapter: Manifest | None = None) -> ResolvedTrain:
    """Return the training values with every default filled in.

    Rank and alpha of a warm start come from the manifest of its adapter.
    """
    train, grpo = config.train, config.algorithm is Algorithm.GRPO
    max_tokens = train.max_tokens or recipes.max_tokens_default(config.thinking)
    shared: dict[str, Any] = {
        "lora_rank": (adapter and adapter.lora_rank) or train.lora_rank or 32,
        "lora_alpha": (adapter and adapter.lora_alpha) or train.lora_alpha or 64,
        "max_length": train.max_length
        or recipes.max_length_default(config.algorithm, config.thinking, max_tokens),
        "max_examples": train.max_examples or 0,
    }
    if not grpo:
        return ResolvedTrain(
            **shared,
            learning_rate=train.learning_rate or 1e-4,
            batch_size=train.batch_size or 32,
            save_every=train.save_every or 50,
            epochs=train.epochs or 2,
            max_steps=train.max_steps or 0,
        )
    return ResolvedTrain(
        **shared,
        learning_rate=train.learning_rate or 1e-5,
        batch_size=train.batch_size or 64,
        save_every=train.save_every or 20,
        steps=train.steps or 150,
        group_size=train.group_size or 8,
        temperature=1.0 if train.temperature is None else train.temperature,
        max_tokens=max_tokens,
        kl_penalty_coef=train.kl_penalty_coef or 0.0,
        advantage_clip=train.advantage_clip,
        thinking_length_penalty_coef=train.thinking_length_penalty_coef or 0.0,
        stop_sequences=train.stop_sequences or (),
    )


def resolve_eval(config: RunConfig, train: ResolvedTrain) -> ResolvedEval | None:
    """Return the evaluation with every default filled in; None when the run is not evaluated.

    Whether the environment has the default split is known to the trainer only. A run that trains on
    that split is not evaluated on it.
    """
    given = config.eval
    if not given.enabled or (
        given.split is None and _train_split(config) == evaluation.DEFAULT_SPLIT
    ):
        return None
    longest = train.max_tokens or recipes.max_tokens_default(config.thinking)
    return ResolvedEval(
        split=given.split or evaluation.DEFAULT_SPLIT,
        required=given.split is not None,
        every=given.every,
        max_examples=given.max_examples or 64,
        may_shrink=given.max_examples is None,
        samples=given.samples or 1,
        temperature=1.0 if train.temperature is None else train.temperature,
        max_tokens=given.max_tokens or min(longest, max(1, train.max_length - 1)),
        metric=given.metric or evaluation.SCORE,
    )


def resolve_run(
    config: RunConfig,
    *,
    identity: RunIdentity,
    model: Model | ResolvedModel,
    environment_digest: str,
    train: ResolvedTrain,
    eval_settings: ResolvedEval | None = None,
    adapter: ResolvedAdapter | None = None,
    prompt_date: date | None = None,
) -> ResolvedRun:
    """Return the spec that the trainer reads, without the part that the platform sets."""
    params = config.environment.params
    return ResolvedRun(
        run=identity,
        model=ResolvedModel(id=model.id, source=model.source, revision=model.revision),
        algorithm=config.algorithm,
        thinking=config.thinking,
        environment=ResolvedEnvironment(
            id=config.environment.id,
            digest=environment_digest,
            params=params,
            pip=config.environment.pip,
            secrets=config.environment.secrets,
            split=_train_split(config),
        ),
        train=train,
        eval=eval_settings,
        init_from_adapter=adapter,
        worker_env=config.worker_env,
        wandb=ResolvedWandb(
            project=config.wandb.project or "flash",
            run_name=config.wandb.run_name or names.wandb_run_name(config.algorithm, identity.name),
        ),
        seed=recipes.SEED,
        prompt_date=prompt_date,
    )


def adapter_mismatch(config: RunConfig, adapter: Manifest) -> ConfigIssue | None:
    """Say why a run cannot start from ``adapter``, or return None."""
    if adapter.base_model != config.model:
        return ConfigIssue(
            "train.init_from_adapter",
            f"the adapter was trained on {adapter.base_model}, and this run trains {config.model}: "
            "use the same model",
        )
    for key, given, found in (
        ("lora_rank", config.train.lora_rank, adapter.lora_rank),
        ("lora_alpha", config.train.lora_alpha, adapter.lora_alpha),
    ):
        if given is not None and given != found:
            return ConfigIssue(
                f"train.{key}",
                f"is {given}, but it comes from the adapter, which has {found}: leave it out",
            )
    return None


def _unknown_model(model_id: str, catalog: Catalog) -> ConfigIssue:
    if reason := catalog.refusal(model_id):
        return ConfigIssue("model", f"{model_id!r} is in the mirror, but cannot be used: {reason}")
    near = difflib.get_close_matches(model_id, catalog.ids(), n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigIssue("model", f"{model_id!r} is not in the catalog; {hint}see flash models")


def _forbidden_addresses(config: RunConfig, hosts: Collection[str]) -> tuple[ConfigIssue, ...]:
    """Return a problem for each pip entry whose address is not on one of the allowed hosts."""
    instead = (
        f"use an address on {', '.join(sorted(hosts))}"
        if hosts
        else "list packages of the index by name, as in openai>=1"
    )
    return tuple(
        ConfigIssue(
            "environment.pip",
            f"{url.netloc} is not an allowed package host on this platform: {instead}",
        )
        for requirement in config.environment.pip
        if (url := pip_url(requirement)) is not None and url.netloc.lower() not in hosts
    )


def _thinking_problem(config: RunConfig, model: Model) -> ConfigIssue | None:
    if config.thinking and model.thinking is Thinking.NONE:
        return ConfigIssue("thinking", f"{model.id} cannot reason: set thinking = false")
    if not config.thinking and model.thinking is Thinking.ALWAYS:
        return ConfigIssue("thinking", f"{model.id} always reasons: set thinking = true")
    return None


def _rank_problem(config: RunConfig, model: Model) -> ConfigIssue | None:
    rank = config.train.lora_rank
    if rank is not None and rank > model.lora_rank_cap:
        return ConfigIssue(
            "train.lora_rank",
            f"{rank} is above {model.id}'s cap: use at most {model.lora_rank_cap}",
        )
    return None


def _length_problem(config: RunConfig, train: ResolvedTrain, model: Model) -> ConfigIssue | None:
    length = train.max_length
    if length > model.context:
        given = "" if config.train.max_length else " (the recipe's default)"
        return ConfigIssue(
            "train.max_length",
            f"{length}{given} is above {model.id}'s context: use at most {model.context}",
        )
    return None


def _completion_problem(config: RunConfig, train: ResolvedTrain) -> ConfigIssue | None:
    if train.max_tokens is None or train.max_tokens < train.max_length:
        return None
    raised = f"raise max_length above {train.max_tokens}"
    lowered = f"use at most {train.max_length - 1}, or {raised}"
    given = "" if config.train.max_tokens else " (the recipe's default)"
    return ConfigIssue(
        "train.max_tokens" if config.train.max_tokens else "train.max_length",
        f"max_tokens = {train.max_tokens}{given} leaves no room for a prompt in "
        f"max_length = {train.max_length}: {lowered if train.max_length > 1 else raised}",
    )


def _temperature_problem(config: RunConfig) -> ConfigIssue | None:
    if config.algorithm is Algorithm.GRPO and config.train.temperature == 0:
        return ConfigIssue(
            "train.temperature",
            "0 makes all completions of a group equal, so that there is nothing to "
            "learn from them: set it above 0",
        )
    return None


def _eval_problems(config: RunConfig, train: ResolvedTrain) -> Iterator[ConfigIssue]:
    given = config.eval
    if not given.enabled:
        return
    if given.split == _train_split(config):
        yield ConfigIssue(
            "eval.split",
            f"{given.split!r} is the split that the run trains on: name another one",
        )
    if given.max_tokens is not None and given.max_tokens >= train.max_length:
        yield ConfigIssue(
            "eval.max_tokens",
            f"{given.max_tokens} leaves no room for a prompt in max_length = {train.max_length}: "
            f"use at most {train.max_length - 1}, or raise train.max_length",
        )
    if given.metric in evaluation.SFT_METRICS and config.algorithm is not Algorithm.SFT:
        yield ConfigIssue(
            "eval.metric",
            f"{given.metric!r} is measured in SFT only: use {evaluation.SCORE!r} or the name of "
            "one of the environment's metrics",
        )
    attempts, samples = evaluation.attempts_of(given.metric or ""), given.samples or 1
    if attempts is not None and (samples == 1 or attempts > samples):
        yield ConfigIssue(
            "eval.metric",
            f"{given.metric} needs several answers to each example, and eval.samples is "
            f"{samples}: raise it to at least {max(2, attempts)}",
        )


def _train_split(config: RunConfig) -> str:
    return str(config.environment.params.get("split", recipes.DEFAULT_SPLIT))


def _ignored_keys(config: RunConfig) -> tuple[ConfigIssue, ...]:
    keys = config.keys_of_the_other_algorithm()
    if not keys:
        return ()
    listed = ", ".join(keys)
    return (ConfigIssue("train", f"{listed}: not used by {config.algorithm}, and ignored"),)


def _short_lengths(config: RunConfig) -> tuple[ConfigIssue, ...]:
    if not config.thinking:
        return ()
    tokens = recipes.max_tokens_default(thinking=True)
    defaults = {"max_length": recipes.max_length_default(config.algorithm, True, tokens)}
    if config.algorithm is Algorithm.GRPO:
        defaults["max_tokens"] = tokens
    return tuple(
        ConfigIssue(f"train.{key}", f"{given} is short for reasoning; the default is {default}")
        for key, default in defaults.items()
        if (given := getattr(config.train, key)) is not None and given < default
    )
