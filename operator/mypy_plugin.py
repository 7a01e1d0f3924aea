"""A mypy plugin: ``replace`` of a model takes the model's own fields, each with its own type.

Pydantic's plugin gives each model an ``__init__`` with its fields as keywords. The signature of
``replace`` is the same one, with every keyword optional.
"""

from collections.abc import Callable

from mypy.nodes import ARG_NAMED_OPT, FuncBase
from mypy.plugin import MethodSigContext, Plugin
from mypy.typeops import bind_self
from mypy.types import CallableType, FunctionLike, Instance, get_proper_type

_MODEL = "flashrun.api.base.FrozenModel"


class ReplacePlugin(Plugin):
    """Types calls of ``flashrun.api.base.FrozenModel.replace``."""

    def get_method_signature_hook(
        self, fullname: str
    ) -> Callable[[MethodSigContext], FunctionLike] | None:
        """Return the hook for ``replace``; mypy names the method by the class of the object."""
        return _signature if fullname.endswith(".replace") else None


def _signature(context: MethodSigContext) -> FunctionLike:
    model = get_proper_type(context.type)
    if not isinstance(model, Instance) or not model.type.has_base(_MODEL):
        return context.default_signature
    constructor = model.type.get_method("__init__")
    if not isinstance(constructor, FuncBase) or not isinstance(constructor.type, CallableType):
        return context.default_signature
    fields = bind_self(constructor.type, model)
    return fields.copy_modified(
        arg_kinds=[ARG_NAMED_OPT] * len(fields.arg_kinds),
        ret_type=context.default_signature.ret_type,
        name=context.default_signature.name,
    )


def plugin(_version: str) -> type[Plugin]:
    """Return the plugin; mypy calls this."""
    return ReplacePlugin
