"""Time to refuse hostile configs: deep nesting, very many unknown keys, very long text.

    python -m bench.hostile

The inputs are those of ``tests/cli/config/test_compose.py``, and some of the largest size that a
config may have. The time is the processor time of this process, without the start of Python.
"""

import argparse
import sys
import time

from bench import sides
from flashrun.cli.config.compose import SIZE_LIMIT, ConfigFile, compose
from flashrun.cli.config.problems import ConfigError
from tests.cli.config.test_compose import HOSTILE

LIMIT = 1.0
"""Most seconds that refusing a config may take."""


def full(line: bytes, head: bytes = b"") -> bytes:
    """Return ``head`` and as many numbered lines as a config may have."""
    lines = (line % number for number in range(SIZE_LIMIT))
    text = bytearray(head)
    for numbered in lines:
        if len(text) + len(numbered) > SIZE_LIMIT:
            return bytes(text)
        text += numbered
    return bytes(text)


VALID = b'model = "m"\n[environment]\nid = "a/b"\n'
LARGE = {
    "unknown keys of [train]": full(b"k%d=1\n", b"[train]\n"),
    "unknown sections": full(b"[k%d]\n"),
    "keys of params": full(b"k%d=1\n", VALID + b"[environment.params]\n"),
    "names that no variable has": full(b"k-%d=1\n", VALID + b"[worker_env]\n"),
    "dotted keys": full(b"a.b.c.k%d=1\n", VALID),
    "lists of tables": full(b"[[k%d]]\n", VALID),
    "an inline table": VALID
    + b"x={"
    + full(b"k%d=1,")[: -len(VALID) - 20].rpartition(b",")[0]
    + b"}",
    "90,000 unknown keys": b"".join(b"k%05d=1\n" % number for number in range(90_000)),
}


def seconds(data: bytes) -> float:
    """Return the processor time until ``data`` is refused."""
    began = time.process_time()
    try:
        compose([ConfigFile("run.toml", data)])
    except ConfigError:
        return time.process_time() - began
    raise AssertionError("a hostile config was accepted")


def main() -> int:
    """Refuse each input three times, print the slowest, and return 1 when one takes too long."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    inputs = {**{name: data for name, (data, _) in HOSTILE.items()}, **LARGE}
    times = {name: min(seconds(data) for _ in range(3)) for name, data in inputs.items()}
    slowest = sorted(times, key=lambda name: -times[name])
    for name in slowest[:8]:
        print(f"{times[name]:7.3f} s  {name} ({len(inputs[name]):,} bytes)")
    print(sides.machine())
    worst = slowest[0]
    return sides.verdict(
        (
            f"all {len(times)} within {LIMIT:g} s: {worst} took {times[worst]:.2f} s",
            times[worst] < LIMIT,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
