"""Our trainer, which also prints the processor time of every step: ``[--padded] [--agreement]``.

With ``--padded`` every example has a row of its own. With ``--agreement`` the first step of GRPO
also prints how far our log-probabilities are from those that TRL computes for the same tokens.
"""

import argparse
import json
import os
import time


def print_processor_time():
    from flashrun_trainer import loop

    on_log = loop.TrainingCallback.on_log

    def clocked(self, args, state, control, logs, **objects):
        on_log(self, args, state, control, logs, **objects)
        if "loss" in logs:
            row = {"step": state.global_step, "processor": time.process_time()}
            print(json.dumps(row), flush=True)

    loop.TrainingCallback.on_log = clocked


def print_agreement():
    import torch

    from flashrun_trainer.grpo import GRPOTrainer, GrpoTrainer

    compute = GrpoTrainer._get_per_token_logps_and_entropies

    def compared(self, model, input_ids, attention_mask, logits_to_keep, *args, **arguments):
        given = (model, input_ids, attention_mask, logits_to_keep, *args)
        with torch.no_grad():
            theirs, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(self, *given, **arguments)
            learned, self._learned = self._learned, None  # compare all rows
            ours, _, _ = compute(self, *given, **arguments)
            self._learned = learned
        sampled = attention_mask[:, -logits_to_keep:].bool()
        difference = (ours - theirs)[sampled].abs()
        row = {"agreement": difference.max().item(), "tokens": difference.numel()}
        print(json.dumps(row), flush=True)
        GrpoTrainer._get_per_token_logps_and_entropies = compute
        return compute(self, *given, **arguments)

    GrpoTrainer._get_per_token_logps_and_entropies = compared


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--padded", action="store_true")
    parser.add_argument("--agreement", action="store_true")
    given = parser.parse_args()

    from flashrun.api.trainer_choices import Layout
    from flashrun_trainer import __main__ as entry
    from flashrun_trainer import row_layout

    print_processor_time()
    if given.padded:
        row_layout.choose_layout = lambda *_: row_layout.LayoutChoice(Layout.PADDED)
    if given.agreement:
        print_agreement()
    return entry.main(["train"])


if __name__ == "__main__":
    os._exit(main())
