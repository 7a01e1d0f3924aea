"""Prompts that are computed once for their group: which models, and that values stay the same."""

from typing import Any

import pytest

from tests.trainer.random_models import FAMILIES, random_model

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

PROMPTS = (6, 3, 6)
"""Tokens of the prompt of each group."""
COMPLETIONS = ((9, 1, 7), (2, 8, 3), (5, 9, 4))
"""Tokens of the completions of each group."""
PROMPT_WIDTH, COMPLETION_WIDTH = max(PROMPTS), 9
SHARED = (
    "Qwen3", "Llama", "Gemma 3", "Phi-3", "Phi-2", "GLM-4", "Mixtral", "GPT-OSS", "Afmoe",
    "Qwen3 with experts", "GLM-4 with experts",
)  # fmt: skip
"""Families whose prompts are shared; the others are computed as whole rows."""


def micro_batch() -> tuple[Any, Any]:
    """Return token ids and mask: prompts padded at their beginning, completions at their end."""
    import torch

    dice = torch.Generator().manual_seed(3)
    rows = sum(map(len, COMPLETIONS))
    ids = torch.randint(3, 128, (rows, PROMPT_WIDTH + COMPLETION_WIDTH), generator=dice)
    mask = torch.zeros_like(ids)
    row = 0
    for prompt, lengths in zip(PROMPTS, COMPLETIONS, strict=True):
        for length in lengths:
            ids[row, :PROMPT_WIDTH] = ids[row - row % 3, :PROMPT_WIDTH]
            mask[row, PROMPT_WIDTH - prompt : PROMPT_WIDTH + length] = 1
            row += 1
    return ids * mask, mask


def adapted(model: Any, **more: Any) -> Any:
    """Return the model as TRL trains it: with its head, and an adapter that is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **more)
    policy = get_peft_model(model, lora).train()
    torch.manual_seed(5)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return policy


def whole_rows(policy: Any, ids: Any, mask: Any) -> tuple[Any, Any]:
    """Compute what TRL computes."""
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-COMPLETION_WIDTH] = -100
    outputs = policy(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    return outputs.log_probs[:, -COMPLETION_WIDTH:], outputs.entropy[:, -COMPLETION_WIDTH:]


def one_step(policy: Any, compute: Any) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """Return values, gradients, and the weights of the adapter after a step of AdamW."""
    import torch

    ids, mask = micro_batch()
    weights = {name: part for name, part in policy.named_parameters() if part.requires_grad}
    before = {name: part.detach().clone() for name, part in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2)
    logps, entropies = compute(policy, ids, mask)
    own = mask[:, PROMPT_WIDTH:]
    advantages = torch.linspace(-1, 1, len(ids), dtype=logps.dtype)[:, None]
    (logps * own * advantages).sum().backward()
    gradients = {name: part.grad.clone() for name, part in weights.items() if part.grad is not None}
    optimizer.step()
    after = {name: part.detach().clone() for name, part in weights.items()}
    optimizer.zero_grad()
    with torch.no_grad():
        for name, part in weights.items():
            part.copy_(before[name])
    return (logps * own).detach(), entropies.detach() * own, gradients, after


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("family", SHARED)
def test_values_gradients_and_a_step_are_those_of_whole_rows(family: str, most: int) -> None:
    import torch

    from flashrun_trainer.shared_prompts import can_share, compute_shared

    model = random_model(family).double()
    model.set_experts_implementation("eager")  # the others have no float64
    policy = adapted(model)
    assert can_share(policy, PROMPT_WIDTH + COMPLETION_WIDTH, COMPLETION_WIDTH)
    computed: list[tuple[int, ...]] = []
    model.base_model.register_forward_pre_hook(
        lambda _, __, arguments: computed.append(tuple(arguments["input_ids"].shape)),
        with_kwargs=True,
    )
    whole = one_step(policy, whole_rows)
    shared = one_step(
        policy, lambda *given: compute_shared(*given, completion_width=COMPLETION_WIDTH, most=most)
    )

    rows = sum(map(len, COMPLETIONS))
    portions = [(rows, 9)] if most == 1 else [(3, 3), (3, 7), (3, 9)]
    assert computed == [(rows, 15), (len(PROMPTS), 5), *portions]
    assert whole[2].keys() == shared[2].keys()
    assert all(gradient.abs().max() > 0 for gradient in whole[2].values())
    for ours, theirs in zip(shared, whole, strict=True):
        # Norms and the head compute in float32, also of a model in float64.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_base_model_is_computed_behind_prompts_of_its_own() -> None:
    import torch

    from flashrun_trainer.shared_prompts import compute_shared

    policy = adapted(random_model("Qwen3").double())
    ids, mask = micro_batch()
    with torch.no_grad(), policy.disable_adapter():
        theirs, _ = whole_rows(policy, ids, mask)
        ours, _ = compute_shared(policy, ids, mask, COMPLETION_WIDTH, 2)
    with torch.no_grad():
        trained, _ = compute_shared(policy, ids, mask, COMPLETION_WIDTH, 2)
    own = mask[:, PROMPT_WIDTH:]
    torch.testing.assert_close(ours * own, theirs * own)
    assert not torch.allclose(ours * own, trained * own, atol=1e-2)


def with_config(family: str = "Qwen3", **changes: Any) -> Any:
    import transformers

    class_name, settings = FAMILIES[family]
    kind = getattr(transformers, class_name)
    return kind(kind.config_class(**settings | changes))


def checkpointed() -> Any:
    model = random_model("Qwen3")
    model.gradient_checkpointing_enable()
    return model


def with_another_attention() -> Any:
    model = random_model("Qwen3")
    model.config._attn_implementation = "flash_attention_2"
    return model


def with_vision() -> Any:
    import transformers

    from tests.trainer.architectures import ARCHITECTURES

    _, config, *_ = ARCHITECTURES["Qwen3.5"]
    text = config["text_config"] | {"layer_types": ["full_attention"] * 2, "vocab_size": 128}
    kind = transformers.Qwen3_5ForConditionalGeneration
    return kind(kind.config_class(**config | {"text_config": text}))


WHOLE: dict[str, Any] = {
    "gradient checkpointing keeps no keys": checkpointed,
    "a window is shorter than a row": lambda: with_config(
        "Gemma 3", sliding_window=PROMPT_WIDTH + COMPLETION_WIDTH - 1
    ),
    "attention drops at random": lambda: with_config(attention_dropout=0.1),
    "positions depend on the number of tokens": lambda: with_config(
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    ),
    "an implementation of attention is not known": with_another_attention,
    "a loss of routers is asked for": lambda: with_config("Mixtral", output_router_logits=True),
    "a model also reads images": with_vision,
    **{
        f"{family} keeps something else": lambda family=family: random_model(family)
        for family in FAMILIES
        if family not in (*SHARED, "GPT-NeoX", "OPT")
    },
    **{
        f"{family} has dropout in its config": lambda family=family: random_model(family)
        for family in ("GPT-NeoX", "OPT")
    },
}


@pytest.mark.parametrize("why", WHOLE)
def test_rows_are_computed_whole_where(why: str) -> None:
    from flashrun_trainer.shared_prompts import can_share

    assert not can_share(WHOLE[why](), PROMPT_WIDTH + COMPLETION_WIDTH, COMPLETION_WIDTH)


def test_rows_are_computed_whole_where_the_adapter_drops_or_a_prompt_is_one_token() -> None:
    from flashrun_trainer.shared_prompts import can_share

    assert not can_share(adapted(random_model("Qwen3"), lora_dropout=0.1), 15, 9)
    policy = adapted(random_model("Qwen3"))
    assert [can_share(policy, width, 9) for width in (10, 11)] == [False, True]


def test_a_window_as_long_as_a_row_is_shared() -> None:
    from flashrun_trainer.shared_prompts import can_share

    width = PROMPT_WIDTH + COMPLETION_WIDTH
    assert can_share(with_config("Gemma 3", sliding_window=width), width, COMPLETION_WIDTH)


def test_equal_rows_have_one_number() -> None:
    from flashrun_trainer.shared_prompts import number_equal_rows

    assert number_equal_rows([[1, 2], [3, 4], [1, 2], [5, 6]]) == ([0, 1, 0, 2], [0, 1, 3])
    assert number_equal_rows([]) == ([], [])
