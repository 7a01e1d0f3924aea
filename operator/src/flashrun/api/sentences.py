"""Several parts of a message as one: what happened, where, and what to do."""


def with_stop(text: str) -> str:
    """Return a text that ends as a sentence does."""
    return text if not text or text.endswith((".", "!", "?", "…")) else f"{text}."


def join_sentences(*parts: str) -> str:
    """Join the parts that are not empty: each ends as a sentence does before the next begins.

    The last one stays as it is.
    """
    *before, last = [part for part in parts if part] or [""]
    return " ".join([*map(with_stop, before), last])


def with_hint(message: str, hint: str) -> str:
    """Return a message and its hint as one sentence."""
    return f"{message.removesuffix('.')}; {hint}" if hint else message
