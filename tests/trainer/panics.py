"""An error that ``except Exception`` does not catch."""


class PanicError(BaseException):
    """What libraries written in Rust raise when they fail where they must not."""
