"""The oracle of every test of what one team may do to others: another team goes on undisturbed.

It works in a namespace of its own. Its run starts within five seconds and finishes, and the
operator is the same process as before: it leads, it is healthy, and its memory has not grown.
"""

import asyncio
import os
import subprocess
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from flashrun.controller.free_memory import INTERVAL_SECONDS
from tests.controller.conftest import Operators
from tests.controller.stage import Trainer, World, wait_for_phase

START_SECONDS = 5.0
"""In which a run starts, on a machine that does nothing else."""
GROWTH_LIMIT = 24 * 1024 * 1024
_numbers = count(1)


def allocated_bytes(process: subprocess.Popen[bytes]) -> int:
    """What a process has allocated of resident memory.

    Pages of programs and libraries are left out: the kernel drops them when memory is scarce and
    loads them when they are used, so that they come and go by 20 MiB without any allocation.
    """
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024


async def least_allocated(process: subprocess.Popen[bytes]) -> int:
    """The least of what it has allocated while it gives free memory back once."""
    least = allocated_bytes(process)
    end = time.monotonic() + INTERVAL_SECONDS + 2
    while time.monotonic() < end:
        await asyncio.sleep(0.1)
        least = min(least, allocated_bytes(process))
    return least


def stretched(seconds: float) -> float:
    """How long to wait on this machine, by how much more than this test it does."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class OtherTenant:
    """A team beside the hostile one, and the operator process that serves both."""

    world: World
    """Of the team's own namespace; ``pass_over`` is not used, the process acts."""
    operators: Operators
    process: subprocess.Popen[bytes]
    memory: int = field(init=False)
    """What the process used before the hostile team began."""

    def __post_init__(self) -> None:
        self.memory = allocated_bytes(self.process)

    async def start_run(self, seconds: float = START_SECONDS) -> Trainer:
        """Submit a run; it starts in time."""
        name = f"flash-{next(_numbers)}-other"
        await self.world.submit(name)
        await wait_for_phase(self.world, name, "Starting", stretched(seconds))
        return await self.world.trainer(name)

    async def finish(self, trainer: Trainer) -> None:
        """A run that trains is followed, left alone, and succeeds; the operator is well."""
        pod = await self.world.cluster.get("Pod", self.world.namespace, trainer.name)
        assert "deletionTimestamp" not in pod["metadata"]
        await trainer.succeed()
        await wait_for_phase(self.world, trainer.run.name, "Succeeded", stretched(10))
        self.check_operator()

    async def is_served(self, seconds: float = START_SECONDS) -> None:
        """The oracle as a whole."""
        await self.finish(await self.start_run(seconds))

    def check_operator(self) -> None:
        """The operator has neither restarted nor grown by much."""
        assert self.process.poll() is None, self.operators.logs()[-3000:]
        assert self.operators.leads(self.process)
        assert self.operators.ask(self.process, "/healthz") == (200, "ok")
        assert "Traceback" not in self.operators.logs()
        grown = allocated_bytes(self.process) - self.memory
        assert grown < GROWTH_LIMIT, f"the operator grew by {grown / 2**20:.0f} MiB"
