"""What the trainer chooses for a run: words of its records, and of the run's status."""

from enum import StrEnum


class Layout(StrEnum):
    """How the examples of one SFT micro-batch lie in its tensors."""

    PADDED = "padded"
    """One example per row, padded to the longest: for layers that would mix examples in a row."""
    ROWS = "rows"
    """Several examples per row of at most ``max_length``; attention masks separate them."""
    FLAT = "flat"
    """All examples in one row; kernels for sequences of several lengths separate them."""


class RoutedExperts(StrEnum):
    """What an adapter does to the routed experts of a model."""

    NONE = "none"
    """The model has none."""
    FROZEN = "frozen"
    TRAINED = "trained"
