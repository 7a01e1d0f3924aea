"""Which engine samples completions, and what vLLM is given. Runs on both engines: test_grpo."""

from typing import Any

import pytest

from flashrun_trainer.data import generation
from flashrun_trainer.data.generation import Engine
from flashrun_trainer.trl_arguments import Machine
from tests.trainer.pods import resolved

GIB = 1 << 30
GPU = Machine(gpu=True)


class NoSpecialTokens:
    added_tokens_decoder: dict[int, Any] = {}


TOKENIZER = NoSpecialTokens()


@pytest.mark.parametrize(
    ("there", "share", "why"),
    [
        ({}, 0.6, "it may use 60% of the GPU's memory"),
        ({"machine": Machine()}, None, "there is no GPU"),
        ({"installed": False}, None, "this image has no vLLM"),
        ({"sharded": True}, None, "no GPU holds the whole model"),
        ({"weights": 54 * GIB, "memory": 140 * GIB}, 0.51, "it may use 51% of the GPU's memory"),
        (
            {"weights": 54 * GIB, "memory": 80 * GIB},
            None,
            "a second copy of the weights, 54.0 GiB, would leave too little of the GPU's 80 GiB",
        ),
    ],
)
def test_vllm_samples_where_it_is_installed_and_fits(
    there: dict[str, Any], share: float | None, why: str
):
    usual = {"machine": GPU, "installed": True, "sharded": False}
    sizes = {"weights": 8 * GIB, "memory": 80 * GIB}
    chosen = generation.choose_engine(**(usual | sizes | there))
    assert (chosen.memory_share, chosen.why) == (share, why)


def test_the_settings_of_vllm_hold_a_whole_episode_and_the_stop_sequences():
    run = resolved("grpo", max_length=256, stop_sequences=("a", "b"))
    assert generation.engine_arguments(run, Engine("no GPU"), TOKENIZER) == {}
    found = generation.engine_arguments(run, Engine("fits", memory_share=0.4), TOKENIZER)
    assert found["vllm_max_model_length"] == 256
    assert found["vllm_gpu_memory_utilization"] == 0.4
    assert found["generation_kwargs"] == {"stop": ["a", "b"], "skip_special_tokens": True}


def test_the_correction_for_vllm_is_by_token_and_at_most_two():
    fits = Engine("fits", memory_share=0.4)
    found = generation.engine_arguments(resolved("grpo"), fits, TOKENIZER)
    assert found["vllm_importance_sampling_mode"] == "token_truncate"
    assert found["vllm_importance_sampling_clip_max"] == 2


def test_only_sampled_tokens_have_a_probability():
    assert generation.align_logprobs([-0.1, -0.2, -0.3], [1, 1, 0, 0, 1]) == [
        -0.1,
        -0.2,
        0.0,
        0.0,
        -0.3,
    ]


class FakeGeneration:
    """A fake of TRL's side of vLLM that records its calls."""

    def __init__(self, sleeps: bool) -> None:
        self.enable_sleep_mode = self._llm_weights_sleeping = sleeps
        self.asked: list[str] = []
        self.llm = self

    def sync_weights(self) -> None:
        self.asked.append("weights")
        self._llm_weights_sleeping = False

    def wake_up(self, tags: list[str]) -> None:
        self.asked += tags

    def sleep(self, level: int) -> None:
        self.asked.append(f"sleep {level}")


def test_vllm_stays_awake_for_the_whole_episode():
    fake = FakeGeneration(sleeps=True)
    with generation.vllm_awake(fake):
        assert not fake.enable_sleep_mode
    assert fake.asked == ["weights", "kv_cache", "sleep 2"]
    assert fake.enable_sleep_mode
    assert fake._llm_weights_sleeping


def test_an_engine_that_never_sleeps_is_not_woken():
    fake = FakeGeneration(sleeps=False)
    with generation.vllm_awake(fake):
        pass
    assert fake.asked == []
