"""The output of the plain scripts: one JSON line after each part of the start, one per step."""

import json
import time

from transformers import TrainerCallback


def over(part):
    """Print that a part of the start is over."""
    print(json.dumps({"part": part, "time": time.time()}), flush=True)


class Clock(TrainerCallback):
    """Prints the time of each step, with its loss or reward."""

    def __init__(self, value):
        self.value = value

    def on_log(self, args, state, control, logs=None, **_):
        if self.value in logs:
            row = {"step": state.global_step, "time": time.time()}
            print(json.dumps(row | {self.value: float(logs[self.value])}), flush=True)
