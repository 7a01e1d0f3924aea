"""The output of the plain scripts: one JSON line after each part of the start, one per step."""

import json
import time

from transformers import TrainerCallback


def over(part):
    """Print that a part of the start is over."""
    print(json.dumps({"part": part, "time": time.time()}), flush=True)


class Clock(TrainerCallback):
    """Prints the time of each step, with its loss or reward."""

    def __init__(self, value, *others):
        self.value, self.others = value, others

    def on_log(self, args, state, control, logs=None, **_):
        if self.value in logs:
            row = {"step": state.global_step, "time": time.time(), "processor": time.process_time()}
            others = {name: logs[name] for name in self.others if name in logs}
            print(json.dumps(row | {self.value: float(logs[self.value])} | others), flush=True)
