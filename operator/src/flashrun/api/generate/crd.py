"""The models → the CustomResourceDefinition. ``python -m flashrun.api.generate.crd``.

pydantic writes JSON Schema; the API server wants a structural OpenAPI v3 schema. Between the two,
``$ref`` is inlined, ``anyOf`` with null becomes the other half (an absent key says the same), and
numeric exclusive bounds become the boolean form. Rules in CEL make a spec immutable except for
``control`` and ``budget``, and keep a cancelled run cancelled.
"""

import sys
from datetime import UTC, datetime
from typing import Any, Final

import yaml

from flashrun.api import evaluation, names
from flashrun.api.generate import crd_rules
from flashrun.api.reasons import ConditionType, Phase, Reason
from flashrun.api.resource import FlashRunSpec, FlashRunStatus
from flashrun.api.times import format_time

Schema = dict[str, Any]

_DROPPED: Final = frozenset({"title", "default", "$defs", "additionalProperties", "examples"})
_SMALL_STRING: Final = 253
"""Bound of strings that the models leave open; the cost of CEL rules grows with it."""


def crd() -> Schema:
    """Return the CustomResourceDefinition of FlashRun."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["flr"],
                "categories": ["flash"],
            },
            "versions": [_version()],
        },
    }


def _version() -> Schema:
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "selectableFields": [
            {"jsonPath": ".spec.algorithm"},
            {"jsonPath": ".spec.model"},
            {"jsonPath": ".spec.sweep.name"},
        ],
        "additionalPrinterColumns": [
            _column("Phase", "string", ".status.phase"),
            _column("Algorithm", "string", ".spec.algorithm"),
            _column("Model", "string", ".spec.model"),
            _column("Progress", "integer", ".status.progress.percent"),
            _column("Step", "integer", ".status.progress.step"),
            _column("Score", "string", ".status.evaluation.best.score"),
            _column("Checkpoints", "integer", ".status.checkpointCount"),
            _column("Age", "date", ".metadata.creationTimestamp"),
            _column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            _column(
                "Message", "string", '.status.conditions[?(@.type=="Ready")].message', wide=True
            ),
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "description": "One training run: a LoRA adapter by SFT or GRPO.",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": _spec_schema(),
                    "status": _status_schema(),
                },
                "x-kubernetes-validations": [_name_rule()],
            }
        },
    }


def _column(name: str, kind: str, path: str, *, wide: bool = False) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


def _spec_schema() -> Schema:
    schema = _structural(FlashRunSpec.model_json_schema(by_alias=True))
    schema["properties"]["algorithm"]["enum"] = ["sft", "grpo"]
    # A default that status or a selector reads is better seen in the object than implied.
    schema["properties"]["algorithm"]["default"] = "sft"
    # On the values, not on the object: there, CEL would find {a: 1} equal to {b: 1}.
    schema["properties"]["environment"]["properties"]["params"] = {
        "type": "object",
        "description": schema["properties"]["environment"]["properties"]["params"]["description"],
        "maxProperties": 64,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": True},
    }
    _add_defaults(schema["properties"])
    crd_rules.add_rules(schema)
    schema["x-kubernetes-validations"] = [
        *_immutable_rules(),
        _cancel_rule(),
        *_eval_rules(),
    ]
    return schema


def _status_schema() -> Schema:
    """Return the schema of the status, with what it says before an operator has seen the run.

    An object without status counts as current for kstatus, and says nothing to people.
    """
    schema = _structural(
        FlashRunStatus.model_json_schema(by_alias=True, mode="serialization"), required=False
    )
    unseen = {"reason": Reason.UNSEEN.value, "message": Reason.UNSEEN.sentence}
    condition = {"type": ConditionType.READY.value, "status": "Unknown", **unseen}
    epoch = {"lastTransitionTime": format_time(datetime.fromtimestamp(0, UTC))}
    schema["default"] = {
        "observedGeneration": 0,
        "phase": Phase.PENDING.value,
        "conditions": [{**condition, **epoch}],
        "pending": unseen,
    }
    return schema


def _add_defaults(fields: Schema) -> None:
    """Add what the API server fills in, so that a spec with defaults written out is the same spec.

    The rules below would take it for a change.
    """
    fields["thinking"]["default"] = False
    fields["eval"]["properties"]["enabled"]["default"] = True
    for parent, names_of_fields in (
        (fields["environment"]["properties"], ("params", "pip", "secrets")),
        (fields, ("train", "eval", "workerEnv", "wandb", "secretRefs", "floatParams")),
    ):
        for name in names_of_fields:
            parent[name]["default"] = [] if parent[name]["type"] == "array" else {}


def _immutable_rules() -> list[Schema]:
    """Return one rule per field, on ``spec``: a rule on a field does not see its removal."""
    fields = [
        field.alias or name
        for name, field in FlashRunSpec.model_fields.items()
        if name not in ("control", "budget")
    ]
    return [
        {
            "rule": f"has(self.{field}) == has(oldSelf.{field}) && "
            f"(!has(self.{field}) || self.{field} == oldSelf.{field})",
            "message": f"{field} cannot change once the run exists: submit a new run",
        }
        for field in fields
    ]


def _cancel_rule() -> Schema:
    def cancelled(owner: str) -> str:
        return f"(has({owner}.control) && has({owner}.control.cancel) && {owner}.control.cancel)"

    return {
        "rule": f"!{cancelled('oldSelf')} || {cancelled('self')}",
        "message": "a cancelled run stays cancelled: submit a new run",
    }


def _eval_rules() -> list[Schema]:
    """Return the rules about ``eval`` that need no other value than those of the spec.

    A rule cannot read ``environment.params``; the operator compares the two splits.
    """
    off = "!has(self.eval) || !has(self.eval.metric) || (has(self.eval.enabled) && "
    off += "!self.eval.enabled)"
    sft_only = ", ".join(f"'{metric}'" for metric in sorted(evaluation.SFT_METRICS))
    return [
        {
            "rule": f"{off} || self.algorithm == 'sft' || !(self.eval.metric in [{sft_only}])",
            "message": "eval.metric is measured in SFT only: use score or a metric of the "
            "environment",
        },
        {
            "rule": f"{off} || !self.eval.metric.startsWith('pass@') || "
            "(has(self.eval.samples) && self.eval.samples > 1)",
            "message": "pass@k needs several answers to each example: raise eval.samples",
        },
    ]


def _name_rule() -> Schema:
    limit = names.RUN_NAME_LIMIT
    return {
        "rule": f"size(self.metadata.name) <= {limit} && "
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "message": f"the name must be a lower-case RFC 1035 label of at most {limit} characters",
    }


def _structural(schema: Schema, *, required: bool = True) -> Schema:
    """Rewrite a JSON Schema of pydantic as a structural schema."""
    return _rewrite(schema, schema.get("$defs", {}), required=required)


def _rewrite(node: Schema, defs: dict[str, Schema], *, required: bool) -> Schema:
    node = _inlined(node, defs)
    kept = {key: value for key, value in node.items() if key not in _DROPPED}
    if not required:
        kept.pop("required", None)
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    for bound, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in kept:
            kept[inclusive], kept[bound] = kept[bound], True
    if "properties" in kept:
        kept["properties"] = {
            name: _rewrite(inner, defs, required=required)
            for name, inner in kept["properties"].items()
        }
    if "items" in kept:
        kept["items"] = _rewrite(kept["items"], defs, required=required)
        if map_keys := kept.get("x-kubernetes-list-map-keys"):
            kept["items"]["required"] = map_keys  # the API server asks for it
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        kept["additionalProperties"] = _rewrite(values, defs, required=required)
    if kept.get("type") == "string" and not kept.keys() & {"enum", "maxLength", "format"}:
        kept["maxLength"] = _SMALL_STRING
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split()).replace("``", "")
    return kept


def _inlined(node: Schema, defs: dict[str, Schema]) -> Schema:
    """Follow ``$ref`` and drop the null of ``anyOf``, keeping what the reference's site says."""
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return _inlined({**target, **{k: v for k, v in node.items() if k != "$ref"}}, defs)
    if "anyOf" in node:
        [other] = [option for option in node["anyOf"] if option.get("type") != "null"]
        return _inlined({**other, **{k: v for k, v in node.items() if k != "anyOf"}}, defs)
    return node


def to_yaml(document: Schema) -> str:
    """Return the document as the file in ``crds/`` holds it."""
    header = "# Generated from the models by `make crd`; do not edit.\n"
    return header + yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(to_yaml(crd()))
