"""Leave the terminal to an exec plugin that may ask a person something, while a command draws."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flashrun.exec_plugin import DRAWINGS

if TYPE_CHECKING:
    from rich.live import Live


@contextlib.contextmanager
def giving_way(live: "Live", resumed: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let exec plugins pause ``live``, which has been started; ``resumed`` is called after each.

    A plugin may end when the drawing has: then it does not begin again.
    """
    plugins, is_drawn = 0, True

    @contextlib.contextmanager
    def pause() -> Iterator[None]:
        nonlocal plugins
        plugins += 1
        if is_drawn:
            live.stop()
        try:
            yield
        finally:
            plugins -= 1
            if is_drawn and not plugins:
                live.start()
                resumed()

    DRAWINGS.append(pause)
    try:
        yield
    finally:
        is_drawn = False
        DRAWINGS.remove(pause)
