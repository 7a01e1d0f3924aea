"""Compare a base model with its adapters on the held-out sums, with plain PEFT.

`python compare.py MODEL STAGE=ADAPTER...` takes folders, as `flash pull` makes them. The
environment builds the prompts and scores the greedy answers. The last line is JSON: for each stage
the answers, and the mean of each metric.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent
MAX_TOKENS = 8
BATCH = 16


def main(model: str, *stages: str) -> None:
    """Print the answers of the base model and of each adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows, environment = read_example()
    found = {"base": answer_all(base, tokenizer, rows, environment)}
    peft_model: Any = None
    for stage in stages:
        name, _, folder = stage.partition("=")
        if peft_model is None:
            peft_model = PeftModel.from_pretrained(base, folder, adapter_name=name)
        else:
            peft_model.load_adapter(folder, adapter_name=name)
        peft_model.set_adapter(name)
        found[name] = answer_all(peft_model, tokenizer, rows, environment)
    print(json.dumps(found))


def read_example() -> tuple[list[Any], Any]:
    """Return the held-out examples of the environment, and the environment."""
    from freesolo.datasets import TaskExample

    lines = (EXAMPLE / "dataset" / "eval.jsonl").read_text().splitlines()
    records = map(json.loads, lines)
    rows = [TaskExample(record=row, input=row["input"], output=row["output"]) for row in records]
    return rows, runpy.run_path(str(EXAMPLE / "environment.py"))["load_environment"]()


def answer_all(model: Any, tokenizer: Any, rows: list[Any], environment: Any) -> dict[str, Any]:
    """Return the greedy answer to each row and the mean of each metric."""
    import torch

    answers: list[str] = []
    prompts = [
        tokenizer.apply_chat_template(
            environment.build_prompt_messages(row, row.input),
            add_generation_prompt=True,
            tokenize=False,
        )
        for row in rows
    ]
    for begin in range(0, len(prompts), BATCH):
        batch = tokenizer(
            prompts[begin : begin + BATCH],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        with torch.no_grad():
            tokens = model.generate(**batch, max_new_tokens=MAX_TOKENS, do_sample=False)
        texts = tokens[:, batch["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(texts, skip_special_tokens=True)
    scores = [
        environment.score_response(row, text) for row, text in zip(rows, answers, strict=True)
    ]
    metrics = {
        metric.name: sum(score.metrics[place].score for score in scores) / len(scores)
        for place, metric in enumerate(scores[0].metrics)
    }
    examples = [
        {"question": row.input, "answer": text.strip()}
        for row, text in zip(rows, answers, strict=True)
    ]
    return {"metrics": metrics, "examples": examples}


if __name__ == "__main__":
    main(*sys.argv[1:])
