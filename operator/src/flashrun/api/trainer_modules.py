"""The names that modules of an environment must not have.

An environment's folder comes first on Python's path. A module there that has the name of one that
the trainer imports, such as ``datasets.py``, would be imported in its place.
"""

import sys
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath
from typing import Final

_PACKAGES: Final = """
    Crypto _argon2_cffi_bindings _cffi_backend _distutils_hack _multiprocess _xxhash _yaml
    accelerate annotated_doc annotated_types anyio argon2 certifi cffi charset_normalizer click cuda
    datasets dateutil dill filelock flashrun flashrun_trainer freesolo fsspec functorch google h11
    hatchling hf_xet httpcore httpcore2 httpx httpx2 huggingface_hub idna isympy jinja2 jiter
    markdown_it markupsafe mdurl minio mpmath multiprocess networkx numpy nvidia openai
    opentelemetry packaging pandas pathspec peft pip pkg_resources platformdirs pluggy psutil
    pyarrow pycparser pydantic pydantic_core pygments regex requests rich safetensors setuptools
    shellingham six sniffio sympy tokenizers tomlkit torch torchgen tqdm transformers triton trl
    trove_classifiers truststore typer typing_extensions typing_inspection tzdata urllib3 wandb
    wheel xxhash yaml
"""
"""What is importable in the trainer image."""
_PACKAGES_OF_VLLM: Final = """
    PIL aiohappyeyeballs aiohttp aiosignal anthropic attr attrs blake3 cachetools cbor2 cloudpickle
    compressed_tensors cpuinfo cryptography cv2 depyf dns docstring_parser dotenv einops
    email_validator fastapi flashinfer frozenlist grpc gguf httptools ijson interegular jmespath
    jsonschema jwt lark llguidance llvmlite lmformatenforcer loguru mcp mistral_common ml_dtypes
    msgspec multidict ninja numba nvtx openai_harmony outlines_core partial_json_parser
    prometheus_client propcache pybase64 pycountry pydantic_extra_types pydantic_settings
    python_multipart referencing rpds sentencepiece sentry_sdk setproctitle sse_starlette starlette
    tabulate tiktoken torchaudio torchcodec torchvision tvm_ffi uvicorn uvloop vllm watchfiles
    websockets xgrammar yarl z3 zmq
"""
"""What the image with vLLM has besides."""
IMAGE_MODULES: Final = frozenset([*sys.stdlib_module_names, *_PACKAGES.split()])
"""What an environment can import in either trainer image without a pip list."""
TRAINER_MODULES: Final = frozenset(
    [*sys.stdlib_module_names, *_PACKAGES.split(), *_PACKAGES_OF_VLLM.split()]
)
"""Modules of Python's standard library, and of the packages in both trainer images."""
SHADOWING_HINT: Final = "rename it, and the imports of it in the environment"

_SUFFIXES: Final = frozenset({".py", ".pyc", ".so", ".pyd"})


def shadowing_files(
    files: Iterable[str], modules: Collection[str] = TRAINER_MODULES
) -> tuple[str, ...]:
    """Return the files that Python would import in place of one of ``modules``.

    ``files`` are relative to the folder on Python's path. A folder without ``__init__.py`` is not
    imported in place of a package.
    """
    return tuple(file for file in files if _top_level_module(PurePosixPath(file)) in modules)


def _top_level_module(file: PurePosixPath) -> str | None:
    """Return the name by which Python imports a file or the package whose beginning it is."""
    if file.suffix not in _SUFFIXES:
        return None
    match file.parts:
        case (name,):
            return name.partition(".")[0]
        case (folder, name) if name.partition(".")[0] == "__init__":
            return folder
        case _:
            return None
