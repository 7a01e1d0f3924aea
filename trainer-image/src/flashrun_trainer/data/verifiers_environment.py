"""An environment of ``verifiers`` behind the interface of our own environments of several turns.

Its code runs in another process (``verifiers_process``). An episode there waits wherever it asks
the model; ``start_episode`` and ``step_episode`` lead from one such place to the next.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from freesolo.environments import (
    EnvironmentEpisode,
    EnvironmentMultiTurn,
    EnvironmentStepResult,
    RewardMetric,
    RewardResult,
)

from flashrun.api.exits import Exit
from flashrun.api.reasons import Reason
from flashrun.api.records import ResolvedEnvironment
from flashrun.api.verifiers_packages import VerifiersEntry
from flashrun_trainer.data.messages import Message, SampledAnswer
from flashrun_trainer.data.verifiers_process import (
    VerifiersEpisode,
    VerifiersFailure,
    VerifiersProcess,
)
from flashrun_trainer.pod.trainer_errors import TrainerError

_UNLIMITED: Final = 1_000_000
"""Turns of an episode that only the environment, or its length, ends."""
_CONCURRENCY: Final = 32
_PATIENCE: Final = 10
"""So many limits may pass while other calls block the process's event loop."""
_EPISODE: Final = "episode"
_KEY_NAME: Final = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:KEY|TOKEN|SECRET)\b")
_MODULE: Final = re.compile(r"No module named '(?P<name>[\w.]+)'")
_DOCUMENT: Final = "docs/environments.md lists what an environment of verifiers may need"


@dataclass
class StartedEpisode:
    """An episode of one example; it has a counterpart in the process as soon as it has started."""

    counterpart: VerifiersEpisode | None = None

    def call(self, do: str, **arguments: Any) -> Any:
        """Make a call for the episode, which must have started."""
        assert self.counterpart is not None
        return self.counterpart.call(do, **arguments)


class VerifiersEnvironment(EnvironmentMultiTurn):
    """The environment in a process."""

    def __init__(self, process: VerifiersProcess) -> None:
        description = process.description
        settings = description["settings"]
        self._process = process
        self._max_turns = int(description["max_turns"])
        self._threshold = description["threshold"]
        self.dataset = list(map(_record, range(len(description["rows"])), description["rows"]))
        self.own_splits = tuple(description["splits"])
        """The splits that the environment has, which no file shows."""
        self.max_score_concurrency = settings.get("max_score_concurrency", _CONCURRENCY)
        self.reward_timeout_seconds = process.seconds
        self.longest_call_seconds = _PATIENCE * process.seconds
        """The process keeps the limit of each call; this is for a process that does not."""

    @property
    def has_tools(self) -> bool:
        """Whether the model is offered tools, whose calls must be read in its answers."""
        return any(record["tools"] for record in self.dataset)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def begin_episode(self, example: Any) -> Any:
        """Return the example for one episode: episodes of an example run at the same time."""
        return replace(example, metadata={**example.metadata, _EPISODE: StartedEpisode()})

    def start_episode(self, example: Any, prompt_text: str) -> list[Any]:
        """Return the opening of an episode; of an example without one, the prompt of its row."""
        episode = example.metadata.get(_EPISODE)
        if episode is None:
            return [dict(message) for message in example.metadata["prompt"]]
        episode.counterpart, opening = self._process.start_episode(example.metadata["row"])
        if opening["tools"] != example.record["tools"]:
            raise VerifiersFailure("the environment offers other tools than its row has")
        messages: list[Message] = opening["messages"]
        return messages

    def max_episode_turns(self, example: Any) -> int:
        """Return the most answers of an episode."""
        return self._max_turns if self._max_turns > 0 else _UNLIMITED

    def step_episode(
        self, example: Any, messages: Sequence[Any], assistant_response: str
    ) -> EnvironmentStepResult:
        """Give the model's answer to the episode, and return the environment's reply."""
        episode = example.metadata[_EPISODE]
        sampled = getattr(assistant_response, "sampled", None) or SampledAnswer(assistant_response)
        thinking = getattr(assistant_response, "thinking", "")
        number = sum(message["role"] == "assistant" for message in messages)
        reply = episode.call("answer", answer=sampled.to_request(number, thinking))
        return EnvironmentStepResult(
            done=reply["done"], messages=tuple(reply["messages"]), metadata={_EPISODE: episode}
        )

    def score_episode(self, example: Any, episode: EnvironmentEpisode) -> RewardResult:
        """Return the reward of the rubric, with the values of its functions as metrics."""
        started: Any = episode.metadata[_EPISODE]
        scored = started.call("score")
        metrics = (RewardMetric(name, value=value) for name, value in scored["metrics"].items())
        return RewardResult(
            score=scored["reward"], threshold=self._threshold, metrics=tuple(metrics)
        )


def _record(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the process as a row of a dataset."""
    last = row["messages"][-1]["content"] if row["messages"] else ""
    return {
        "input": last if isinstance(last, str) else "",
        "tools": row["tools"],
        "metadata": {"row": number, "columns": row["row"], "prompt": row["messages"]},
    }


def load(
    folder: Path, entry: VerifiersEntry, spec: ResolvedEnvironment, python: Path
) -> VerifiersEnvironment:
    """Load the environment in ``folder`` with the interpreter ``python``, and a split's rows.

    Raises:
        TrainerError: it cannot be loaded or used, or does not have the split.
    """
    try:
        process = VerifiersProcess(python, folder, entry, spec.params, spec.split)
    except VerifiersFailure as failure:
        refused = failure.refused
        raise TrainerError(
            Exit.ENVIRONMENT,
            Reason.ENVIRONMENT_INVALID if refused else Reason.ENVIRONMENT_FAILED,
            f"the environment of verifiers cannot be {'used' if refused else 'loaded'}: {failure}",
            _DOCUMENT if refused else hint_for(str(failure)),
        ) from failure
    environment = VerifiersEnvironment(process)
    if spec.split not in environment.own_splits:
        process.close()
        raise TrainerError(
            Exit.DATA,
            Reason.SPLIT_MISSING,
            f"{spec.id} has no split {spec.split!r}; its splits are "
            f"{', '.join(environment.own_splits)}",
            "set [environment.params] split to one of these",
        )
    return environment


def hint_for(text: str) -> str:
    """Return what to do about an error of an environment while it is loaded."""
    if (module := _MODULE.search(text)) is not None:
        return f"add the package that provides {module['name']} to [environment].pip"
    if (key := _KEY_NAME.search(text)) is not None:
        return f"if {key[0]} is a secret, add it to [environment].secrets"
    return "correct the environment and publish it again with flash env push"
