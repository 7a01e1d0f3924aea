"""How long a model hub can make its clients wait: downloads of the trainer and of ``flash``.

The hub's own library waits for as long as an answer asks, in ``Retry-After`` or ``RateLimit``.
"""

import re
from typing import Any, Final

LONGEST_WAIT: Final = 30
"""Most seconds between two tries, whatever a hub answers."""
_RESET: Final = re.compile(r"\bt\s*=\s*([0-9]+)")


def bound_hub_waits() -> None:
    """Let every later request of ``huggingface_hub`` in this process wait within bounds.

    Raises:
        ImportError: the library is missing, or older than 1.0.
    """
    from huggingface_hub import get_session, set_client_factory

    client = get_session()
    hooks = client.event_hooks

    def make() -> Any:
        return type(client)(
            event_hooks={
                "request": hooks["request"],
                "response": [*hooks["response"], _bound_answer],
            },
            follow_redirects=True,
            timeout=None,  # each request of the library has its own
        )

    set_client_factory(make)


def _bound_answer(response: Any) -> None:
    """Shorten what an answer asks for; a text that is not a number asks for nothing."""
    headers = response.headers
    reset = _RESET.search(headers.get("RateLimit", ""))
    if reset is not None and _exceeds(reset[1]):
        del headers["RateLimit"]
        headers["Retry-After"] = str(LONGEST_WAIT)
    asked = headers.get("Retry-After", "").strip()
    if asked and not (asked.isascii() and asked.isdigit()):
        del headers["Retry-After"]
    elif asked and _exceeds(asked):
        headers["Retry-After"] = str(LONGEST_WAIT)


def _exceeds(digits: str) -> bool:
    return len(digits) > 6 or int(digits) > LONGEST_WAIT
