"""The base model and its adapter, for every architecture of the catalog, as a tiny random model."""

import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any, Final

import pytest

from flashrun.api.exits import Exit
from flashrun.api.records import ResolvedModel
from flashrun_trainer.pod.trainer_errors import TrainerError
from tests.trainer.architectures import ARCHITECTURES
from tests.trainer.engines import ENGINES
from tests.trainer.pods import MODEL, TrainerPod, Workshop, resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]


def pod_of(
    workshop: Workshop,
    folder: Path,
    algorithm: str,
    steps: int = 1,
    prompt_date: date | None = None,
) -> TrainerPod:
    knobs = {"max_steps": steps} if algorithm == "sft" else {"steps": steps, "kl_penalty_coef": 0.1}
    model = ResolvedModel(
        id=folder.parent.name.replace("--", "/"), source=MODEL.source, revision=MODEL.revision
    )
    run = resolved(algorithm, learning_rate=0.01, save_every=1, prompt_date=prompt_date, **knobs)
    return workshop.pod(run.model_copy(update={"model": model}))


def keys_of(pod: TrainerPod) -> list[str]:
    """The names of the final adapter's weights."""
    from safetensors import safe_open

    path = pod.folder / "adapter_model.safetensors"
    path.write_bytes(pod.published(path.name))
    path.with_name("adapter_config.json").write_bytes(pod.published("adapter_config.json"))
    with safe_open(path, "pt") as file:
        return list(file.keys())


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_a_step_changes_the_language_model_only_under_the_names_that_serving_expects(
    workshop: Workshop, architecture: tuple[str, Path], algorithm: str
):
    from flashrun_trainer import model

    name, folder = architecture
    _, _, layers, adapted, _ = ARCHITECTURES[name]
    pod = pod_of(workshop, folder, algorithm)

    assert pod.train() == 0, pod.termination

    keys = keys_of(pod)
    pattern = rf"base_model\.model\.{re.escape(layers)}\.\d+\.[a-z_.]+\.lora_[AB]\.weight"
    assert [key for key in keys if not re.fullmatch(pattern, key)] == []
    assert {key.split(".")[-3] for key in keys} == adapted
    assert not [key for key in keys if "visual" in key or "experts." in key or "lm_head" in key]
    # Routers are frozen, so there is no loss that balances experts.
    assert pod.values("aux_loss") == []
    config = json.loads((pod.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == pod.run.model.id
    # SGLang refuses a pattern.
    assert config["target_modules"] == sorted(adapted)
    assert config["exclude_modules"] is None
    # PEFT loads the whole adapter onto the class that serving loads.
    attached = model.attach_adapter(model.load(folder), pod.folder, "reloaded").eval()
    if algorithm == "sft":  # one step of GRPO with equal rewards learns nothing
        check_loaders(pod, folder, attached)


def check_loaders(pod: TrainerPod, folder: Path, attached: Any) -> None:
    """Load the adapter as its model card says, and as people usually do."""
    import torch
    import transformers
    from peft import AutoPeftModelForCausalLM

    ids = torch.arange(70, 90)[None]

    def logits(network: Any) -> Any:
        with torch.no_grad():
            return network.eval()(input_ids=ids, use_cache=False).logits

    trained = logits(attached)
    with attached.disable_adapter():
        assert not torch.equal(logits(attached), trained)
    path = pod.folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": str(folder)}
    path.write_text(json.dumps(config))
    values: dict[str, Any] = {}
    exec(loading_code(pod, folder), values)
    for network in (
        values["model"],
        AutoPeftModelForCausalLM.from_pretrained(pod.folder),
        transformers.AutoModelForCausalLM.from_pretrained(pod.folder),
    ):
        torch.testing.assert_close(logits(network), trained)


def loading_code(pod: TrainerPod, folder: Path) -> str:
    """The code in the model card, with the folders of this test."""
    card = pod.published("README.md").decode()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    base, adapter = f'"{pod.run.model.id}"', '"."'
    assert base in code[1]
    assert adapter in code[1]
    return code[1].replace(base, repr(str(folder))).replace(adapter, repr(str(pod.folder)))


# Defined only where vLLM is installed: elsewhere it would count as a skipped test.
if "vllm" in ENGINES:

    def test_vllm_serves_what_was_trained(
        workshop: Workshop, architecture: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
    ):
        import torch
        from vllm import LLM
        from vllm.distributed import cleanup_dist_env_and_memory
        from vllm.lora.request import LoRARequest

        from flashrun_trainer import model

        monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        name, folder = architecture
        if "num_experts" in str(ARCHITECTURES[name][1]) and not torch.cuda.is_available():
            pytest.skip("vLLM for CPUs cannot serve adapters of a model with experts")
        # vLLM's kernels for linear attention on CPUs do not take float32.
        is_hybrid = "in_proj_qkv" in ARCHITECTURES[name][3]
        dtype, tolerance = ("bfloat16", 0.02) if is_hybrid else ("float32", 1e-4)
        pod = pod_of(workshop, folder, "sft", steps=8)
        assert pod.train() == 0, pod.termination
        rank = pod.adapter.lora_rank
        keys_of(pod)
        attached = model.attach_adapter(model.load(folder), pod.folder, "reloaded").eval()
        attached.to(getattr(torch, dtype))
        server = LLM(
            str(folder),
            enable_lora=True,
            max_lora_rank=rank,
            dtype=dtype,
            enforce_eager=True,
            language_model_only="text_config" in ARCHITECTURES[name][1],
            max_model_len=128,
            max_num_seqs=4,
        )
        try:
            adapter = LoRARequest(pod.run.run.name, 1, str(pod.folder))
            assert served_difference(server, attached, adapter) < tolerance
            assert served_difference(server, attached) > 0.1
            with attached.disable_adapter():
                assert served_difference(server, attached) < tolerance
        finally:
            del server
            cleanup_dist_env_and_memory()


def served_difference(server: Any, network: Any, adapter: Any = None) -> float:
    """The largest difference of log-probabilities of a token that vLLM answers with."""
    import torch
    from vllm import SamplingParams

    greedy = SamplingParams(temperature=0, max_tokens=16, logprobs=0, ignore_eos=True)
    prompts = [{"prompt_token_ids": ids} for ids in (list(range(70, 90)), [*range(100, 140, 3)])]
    differences = []
    for output in server.generate(prompts, greedy, lora_request=adapter, use_tqdm=False):
        (answer,) = output.outputs
        ids = torch.tensor([[*output.prompt_token_ids, *answer.token_ids]])
        with torch.no_grad():
            logits = network(input_ids=ids, use_cache=False).logits[0].float()
        chosen = logits.log_softmax(-1)[-len(answer.token_ids) - 1 : -1]
        for place, token in enumerate(answer.token_ids):
            served = answer.logprobs[place][token].logprob
            differences.append(abs(chosen[place, token].item() - served))
    return max(differences)


def test_the_models_generation_defaults_are_ignored(tiny_model: Path, tmp_path: Path):
    from flashrun_trainer import model as base_model

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    own = {"eos_token_id": [2, 3], "min_p": 0.9, "suppress_tokens": [7], "top_k": 1}
    (folder / "generation_config.json").write_text(json.dumps(own))
    tokenizer, network = base_model.load_tokenizer(folder), base_model.load(folder)
    assert network.generation_config.min_p is None
    assert network.generation_config.suppress_tokens is None
    ends = {2, 3, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert base_model.end_token_ids(network, tokenizer) == ends


DATED: Final = (
    "{% if strftime_now('%Y-%m-%d') != '2024-02-29' %}{{ raise_exception('another day') }}"
    "{% endif %}"
)
"""The beginning of a template that refuses every day but one."""


@pytest.mark.parametrize("algorithm", ["sft", "grpo"])
def test_templates_that_write_todays_date_write_the_day_of_the_run(
    empty_workshop: Workshop, tiny_model: Path, algorithm: str
):
    """A run that resumes on another day would otherwise learn from other prompts."""
    folder = empty_workshop.folder / "model" / "tiny--dated" / MODEL.revision
    shutil.copytree(tiny_model, folder)
    template = folder / "chat_template.jinja"
    template.write_text(DATED + template.read_text())
    pod = pod_of(empty_workshop, folder, algorithm, prompt_date=date(2024, 2, 29))
    assert pod.train() == Exit.DONE, pod.termination


def test_a_tokenizer_without_chat_template_is_refused(tiny_model: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    from flashrun_trainer import model

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TrainerError) as error:
        model.load_tokenizer(tmp_path)
    assert (error.value.code, error.value.reason) == (
        Exit.MODEL_UNAVAILABLE,
        "ChatTemplateMissing",
    )
    assert "instruction-tuned" in error.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("narrower", "size mismatch"),
        ("renamed", "its layers have other names, such as "),
        ("frozen", " weights, of which 0 are trainable"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, change: str, words: str
):
    import torch
    from peft import PeftModel
    from safetensors.torch import load, save

    source = workshop.pod(resolved("sft", max_steps=1))
    assert source.train() == 0
    weights = load(source.published("adapter_model.safetensors"))
    other = weights
    if change == "narrower":
        other = {name: torch.zeros(weight.shape[0], 3) for name, weight in weights.items()}
    elif change == "renamed":
        layers = ("model.layers", "model.language_model.layers")
        other = {name.replace(*layers): weight for name, weight in weights.items()}
    else:
        loaded = PeftModel.from_pretrained
        monkeypatch.setattr(
            PeftModel, "from_pretrained", lambda base, path, **_: loaded(base, path)
        )
    folder = workshop.folder / f"adapter-{change}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(save(other))
    (folder / "adapter_config.json").write_bytes(source.published("adapter_config.json"))

    from flashrun_trainer import model

    base = model.load(source.inside.model_folder(source.run))
    with pytest.raises(TrainerError) as error:
        model.attach_adapter(base, folder, "other-run")
    assert (error.value.code, error.value.reason) == (Exit.CONFIG, "AdapterMismatch")
    assert "adapter other-run does not fit the base model" in error.value.message
    assert words in error.value.message
    assert "train.init_from_adapter" in error.value.hint
