"""The OpenAI endpoint on transformers: PEFT's log-probabilities, the same list, refused bytes."""

import hashlib
import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flashrun.api import names
from flashrun.api.catalog import Source
from flashrun.api.records import ResolvedModel
from flashrun.api.served import ServedAdapter, ServedList
from tests.trainer.architectures import save_random_model
from tests.trainer.engines import INSTALLED_ENGINES
from tests.trainer.pods import TrainerPod, Workshop, resolved

pytestmark = [pytest.mark.trainer, pytest.mark.filterwarnings("default")]

PROMPT = list(range(70, 90))


@pytest.fixture(scope="module")
def base(workshop: Workshop, tiny_model: Path) -> Path:
    """A random Llama, whose weights the adapters change by much."""
    return save_random_model("MiniCPM5", workshop, tiny_model)


@pytest.fixture(scope="module")
def trained(workshop: Workshop, base: Path) -> TrainerPod:
    """A run with two checkpoints and a final adapter."""
    run = resolved("sft", max_steps=6, save_every=3, learning_rate=0.1)
    model = ResolvedModel(
        id=base.parent.name.replace("--", "/"), source=Source.MIRROR, revision=base.name
    )
    pod = workshop.pod(run.model_copy(update={"model": model}))
    assert pod.train() == 0, pod.termination
    return pod


def served(pod: TrainerPod) -> ServedList:
    """The list of flash serve for the run: its final adapter and its checkpoints."""
    places = {
        pod.run.run.name: names.adapter_prefix(pod.prefix),
        f"{pod.run.run.name}/step-3": names.step_prefix(pod.prefix, 1, 3),
        f"{pod.run.run.name}/step-6": names.step_prefix(pod.prefix, 1, 6),
    }
    return ServedList(
        adapters=tuple(
            ServedAdapter(
                id=model_id,
                prefix=place,
                manifest=hashlib.sha256(pod.store.get_bytes(place + names.MANIFEST)).hexdigest(),
                rank=8,
            )
            for model_id, place in places.items()
        )
    )


class Client:
    """Speaks to an endpoint as any program of OpenAI's protocol does."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._address + path) as answer:
            return json.load(answer)

    def post(self, path: str, **body: Any) -> Any:
        return json.loads(self.raw(path, **body))

    def raw(self, path: str, **body: Any) -> bytes:
        data = json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, kind)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def refused(self, path: str, **body: Any) -> tuple[int, str]:
        with pytest.raises(urllib.error.HTTPError) as error:
            self.raw(path, **body)
        return error.value.code, json.load(error.value)["error"]["message"]

    def greedy(self, model: str, tokens: int = 16) -> Any:
        asked: dict[str, Any] = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
        asked |= {"logprobs": 2, "ignore_eos": True}
        [choice] = self.post("/v1/completions", model=model, **asked)["choices"]
        return choice


@contextmanager
def serving(pod: TrainerPod, base: Path, folder: Path) -> Iterator[Client]:
    """A server as its pod starts it, with an empty disk."""
    from flashrun_trainer.serving.adapter_cache import AdapterCache
    from flashrun_trainer.serving.endpoint import Endpoint, EndpointServer

    cache = AdapterCache(served(pod), pod.store, folder)
    with EndpointServer(Endpoint(base, pod.run, cache), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Client(server.server_address[1])
        finally:
            server.shutdown()


@contextmanager
def vllm_serving(pod: TrainerPod, base: Path, folder: Path) -> Iterator[Client]:
    """vLLM's own server as the container starts it, in float32 as PEFT is compared."""
    from flashrun_trainer.serving import server

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder.joinpath("served.json").write_text(served(pod).model_dump_json())
    command = server.vllm_command(base, pod.run.model.id, served(pod), gpus=1)
    command[command.index("--port") + 1] = str(port)
    variables = {
        **os.environ, **pod.environment, "FLASHRUN_WORK": str(folder),
        "FLASHRUN_SERVED": f"{folder}/served.json", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }  # fmt: skip
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256"]
    with folder.joinpath("log").open("w") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    client = Client(port)
    try:
        while process.poll() is None:
            try:
                client.get("/v1/models")
                break
            except urllib.error.URLError:
                time.sleep(1)
        assert process.poll() is None, folder.joinpath("log").read_text()
        yield client
    finally:
        process.terminate()
        process.wait()


def peft_model(pod: TrainerPod, base: Path, place: str, folder: Path) -> Any:
    from flashrun_trainer import model

    pod.store.download_folder(place, folder)
    return model.attach_adapter(model.load(base), model.adapter_folder(folder), "served").eval()


def logprobs_of(network: Any, tokens: list[int]) -> list[float]:
    """What PEFT gives to each token of an answer."""
    import torch

    with torch.no_grad():
        logits = network(input_ids=torch.tensor([[*PROMPT, *tokens]]), use_cache=False).logits[0]
    rows = logits.float().log_softmax(-1)[len(PROMPT) - 1 : -1]
    return [float(row[token]) for row, token in zip(rows, tokens, strict=True)]


def greedy_tokens(network: Any, count: int) -> list[int]:
    import torch

    ids = list(PROMPT)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(PROMPT) :]


def compared_with_peft(
    client: Client, pod: TrainerPod, base: Path, folder: Path
) -> dict[str, list[float]]:
    """Compare what each adapter answers with PEFT; return the log-probabilities of its tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    places = {adapter.id: adapter.prefix for adapter in served(pod).adapters}
    answers = {}
    for number, model_id in enumerate((*places, *places)):  # each again, after the others
        choice = client.greedy(model_id)
        answers[model_id] = choice["logprobs"]["token_logprobs"]
        if number >= len(places):
            continue
        network = peft_model(pod, base, places[model_id], folder / f"peft-{number}")
        tokens = greedy_tokens(network, 16)
        texts = [tokenizer.decode([token]) for token in tokens]
        said = choice["logprobs"]["tokens"]  # vLLM says nothing for half of a character
        assert [one.replace("\N{REPLACEMENT CHARACTER}", "") for one in said] == [
            one.replace("\N{REPLACEMENT CHARACTER}", "") for one in texts
        ]
        expected = logprobs_of(network, tokens)
        assert answers[model_id] == pytest.approx(expected, abs=1e-3)
    return answers


def test_the_endpoint_gives_pefts_log_probabilities_of_every_adapter_of_its_list(
    trained: TrainerPod, base: Path, tmp_path: Path
) -> None:
    run = trained.run.run.name
    with serving(trained, base, tmp_path / "first") as client:
        listed = [model["id"] for model in client.get("/v1/models")["data"]]
        assert listed == [trained.run.model.id, run, f"{run}/step-3", f"{run}/step-6"]
        answers = compared_with_peft(client, trained, base, tmp_path)
        of_base = client.greedy(trained.run.model.id)["logprobs"]["token_logprobs"]
        assert abs(of_base[0] - answers[run][0]) > 0.01  # the adapter changes the answer
        assert answers[f"{run}/step-3"] != answers[run]
    with serving(trained, base, tmp_path / "second") as restarted:
        assert [model["id"] for model in restarted.get("/v1/models")["data"]] == listed
        again = restarted.greedy(f"{run}/step-3")["logprobs"]["token_logprobs"]
        assert again == pytest.approx(answers[f"{run}/step-3"], abs=1e-5)


# Defined only where vLLM is installed: elsewhere it would count as a skipped test.
if "vllm" in INSTALLED_ENGINES:

    def test_vllms_server_gives_pefts_log_probabilities_of_every_adapter_of_its_list(
        trained: TrainerPod, base: Path, tmp_path: Path
    ) -> None:
        with vllm_serving(trained, base, tmp_path) as client:
            compared_with_peft(client, trained, base, tmp_path)


def test_a_conversation_is_answered_at_once_or_piece_by_piece(
    trained: TrainerPod, base: Path, tmp_path: Path
) -> None:
    run = trained.run.run.name
    with serving(trained, base, tmp_path) as client:
        asked = {
            "model": run,
            "messages": [{"role": "user", "content": "1 + 1"}],
            "max_tokens": 12,
            "temperature": 0,
        }
        whole = client.post("/v1/chat/completions", **asked, logprobs=True, top_logprobs=2)
        [choice] = whole["choices"]
        assert choice["message"]["role"] == "assistant"
        first = choice["logprobs"]["content"][0]
        assert first["top_logprobs"][0]["logprob"] == pytest.approx(first["logprob"])
        assert whole["usage"]["completion_tokens"] == len(choice["logprobs"]["content"])
        lines = client.raw("/v1/chat/completions", **asked, stream=True).decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
        text = "".join(event["choices"][0]["delta"]["content"] for event in events)
        assert text == choice["message"]["content"]
        assert events[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
        going_on = {"model": run, "prompt": PROMPT, "seed": 5, "ignore_eos": True}
        full = client.post("/v1/completions", **going_on)["choices"][0]
        assert full["finish_reason"] == "length"
        stop = full["text"][2:4]
        cut = client.post("/v1/completions", **going_on, stop=[stop, ""])["choices"][0]
        assert cut["text"] == full["text"].partition(stop)[0]
        assert cut["finish_reason"] == "stop"
        sampled = {"model": run, "prompt": PROMPT, "seed": 3, "temperature": 1, "top_p": 0.9}
        one, other = (client.post("/v1/completions", **sampled) for _ in range(2))
        assert one["choices"] == other["choices"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "nobody", "prompt": "a"}, 404, "nobody does not exist here"),
        ({"prompt": "a"}, 400, "model: Field required"),
        ({"model": "RUN", "prompt": ""}, 400, "the prompt is empty"),
        ({"model": "RUN", "prompt": [10**6]}, 400, "a token that does not exist"),
        ({"model": "RUN", "prompt": [70] * 600}, 400, "has 600 tokens, and the model takes 512"),
        ({"model": "RUN", "prompt": "a", "n": 2}, 400, "n: Input should be 1"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_in_words(
    endpoint: Client, trained: TrainerPod, body: dict[str, Any], status: int, words: str
) -> None:
    if body.get("model") == "RUN":
        body = {**body, "model": trained.run.run.name}

    code, sentence = endpoint.refused("/v1/completions", **body)

    assert code == status
    assert words in sentence
    assert endpoint.get("/health") == {"status": "ok"}


@pytest.fixture(scope="module")
def endpoint(
    trained: TrainerPod, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    with serving(trained, base, tmp_path_factory.mktemp("endpoint")) as client:
        yield client


def test_a_changed_byte_is_refused_and_the_other_adapters_are_served(
    trained: TrainerPod, base: Path, tmp_path: Path
) -> None:
    run, place = trained.run.run.name, names.step_prefix(trained.prefix, 1, 3)
    key = f"{place}adapter/adapter_model.safetensors"
    weights = trained.store.get_bytes(key)
    damaged = bytearray(weights)
    damaged[-5] ^= 1
    with serving(trained, base, tmp_path) as client:
        trained.store.put_bytes(key, bytes(damaged))
        try:
            status, sentence = client.refused(
                "/v1/completions", model=f"{run}/step-3", prompt="a", stream=True
            )
        finally:
            trained.store.put_bytes(key, weights)
        assert status == 503
        assert f"adapter {run}/step-3 is refused" in sentence
        assert "is not what its manifest lists" in sentence
        assert client.greedy(f"{run}/step-6")["text"] is not None
        assert client.greedy(f"{run}/step-3")["text"] is not None  # once it is whole again
