"""The program inside a trainer pod: three containers, one entry point, one table of exit codes.

``model`` and ``packages`` fill two folders, ``train`` does the rest. They read the resolved spec
and answer through storage, their exit code and their termination message. PyTorch is imported by
``sft``, ``grpo`` and ``loop`` alone, and those only once everything cheap has been checked.
"""
