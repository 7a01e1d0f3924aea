"""The program inside a trainer pod: three containers, one entry point, one table of exit codes.

The methods are ``sft`` and ``grpo``; ``loop``, ``model`` and ``trl_arguments`` are what they share.

- ``data``      from the environment's dataset to tokens, completions and rewards
- ``records``   what an attempt writes to storage
- ``pod``       mounts, processes, errors and log of the pod
- ``init``      the init containers ``model`` and ``packages``
- ``launch``    the worker processes of a run with several GPUs

The containers read the resolved spec, and answer through storage, their exit code and their
termination message. Only ``sft``, ``grpo`` and ``loop`` import PyTorch at import time, and they are
imported after everything cheap has been checked.
"""
