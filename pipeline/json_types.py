"""What a decoder needs of an event, as one tree of types; and the msgspec type made of it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.errors import ConfigInvalid, Mistake
from pipeline.model import FLOATS, IdSpec, InputSpec, Tensor
from pipeline.recipe import Needs

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_BLANKS: dict[str, Any] = {"real": 0.0, "int": 0, "string": "", "bool": False}
_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}


@dataclass(frozen=True, slots=True)
class FieldType:
    """What one field of the event may hold: JSON types, and the width of integers and floats.

    `length` is None for a scalar, the number of elements of a vector, or 0 for any number.
    """

    json: frozenset[str]
    bits: int = 64
    length: int | None = None
    required: bool = True

    @property
    def real(self) -> bool:
        """Whether it is read as floats."""
        return "real" in self.json

    def intersection(self, other: Self) -> Self | None:
        """What satisfies both, or None where nothing does."""
        json = self.json & other.json
        if not json or (self.length is None) != (other.length is None):
            return None
        if self.length and other.length and self.length != other.length:
            return None
        return replace(
            self,
            json=json,
            bits=min(self.bits, other.bits),
            length=None if self.length is None else self.length or other.length,
            required=self.required or other.required,
        )

    def annotation(self) -> Any:
        """The type that msgspec checks."""
        if self.real:
            limit = msgspec.Meta(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)
            one: Any = Annotated[float, limit] if self.bits == 32 else float
        elif "int" in self.json:
            bound = 1 << (self.bits - 1)
            one = Annotated[int, msgspec.Meta(ge=-bound, le=bound - 1)]
            one = one | str if "string" in self.json else one
        else:
            one = str if "string" in self.json else bool
        if self.length is not None:
            whole = list[one] if self.required else list[one | None]
            size = msgspec.Meta(min_length=self.length, max_length=self.length)
            one = Annotated[whole, size] if self.length else whole
        return one if self.required else one | None

    def blank(self) -> Any:
        """A value of this type, which stands for nothing."""
        one = next(blank for name, blank in _BLANKS.items() if name in self.json)
        return one if self.length is None else [one] * self.length


FieldTree: TypeAlias = "dict[str, Node]"
Node: TypeAlias = "FieldType | FieldTree"


def input_type(one: InputSpec, tensor: Tensor) -> FieldType:
    """The type of each field of a model's input."""
    length = None if one.stacked or tensor.width == 1 else tensor.width
    if tensor.kind in FLOATS:
        bits = 32 if tensor.kind == "float" else 64
        return FieldType(frozenset({"int", "real"}), bits, length)
    name = tensor.kind if tensor.kind in ("bool", "string") else "int"
    return FieldType(frozenset({name}), _BITS.get(tensor.kind, 64), length)


def ids_type(spec: IdSpec) -> FieldType:
    """The type of a field that holds an id, or a list of ids of any length."""
    name = "string" if pa.types.is_string(spec.vocabulary.ids.type) else "int"
    length = 0 if spec.many else None
    return FieldType(frozenset({name}), length=length, required=not spec.optional)


def passed_type(kind: pa.DataType) -> Any:
    """The type of a field that passes through to an Arrow column; a tree for a struct."""
    if pa.types.is_struct(kind):
        return {field.name: passed_type(field.type) for field in kind}
    if pa.types.is_list(kind):
        return replace(passed_type(kind.value_type), length=0)
    if pa.types.is_floating(kind):
        return FieldType(frozenset({"int", "real"}), kind.bit_width, required=False)
    if pa.types.is_integer(kind):
        return FieldType(frozenset({"int"}), kind.bit_width, required=False)
    name = "bool" if pa.types.is_boolean(kind) else "string"
    return FieldType(frozenset({name}), required=False)


def needed_fields(needs: Needs) -> FieldTree:
    """Everything needed, by its place in the event; raises ConfigInvalid where types exclude."""
    wanted: list[tuple[str, Node]] = [
        (spec.path, input_type(one, tensor)) for one, tensor in needs.inputs for spec in one.fields
    ]
    wanted += [(spec.field.path, ids_type(spec)) for spec in needs.ids]
    if needs.event_time is not None:
        wanted.append((needs.event_time, FieldType(frozenset({"int", "string"}))))
    trees = [_planted(path, kind) for path, kind in wanted]
    trees += [{field.name: passed_type(field.type)} for field in needs.pass_through]
    mistakes: list[Mistake] = []
    tree: FieldTree = {}
    for one in trees:
        tree = _merged(tree, one, "", mistakes)
    mistakes += _different_choices(needs)
    if mistakes:
        raise ConfigInvalid(mistakes)
    return tree


def _planted(path: str, kind: Node) -> FieldTree:
    name, _, rest = path.partition(".")
    return {name: _planted(rest, kind) if rest else kind}


def _merged(left: FieldTree, right: FieldTree, prefix: str, mistakes: list[Mistake]) -> FieldTree:
    merged = {**left, **right}
    for name in left.keys() & right.keys():
        one, other = left[name], right[name]
        both: Node | None = None
        if isinstance(one, dict) and isinstance(other, dict):
            both = _merged(one, other, f"{prefix}{name}.", mistakes)
        elif isinstance(one, FieldType) and isinstance(other, FieldType):
            both = one.intersection(other)
        if both is None:
            problem = "is asked for with types that exclude"
            way_out = "Ask for it with one type in model.yaml, input.pass_through, input.event_time"
            mistakes.append(Mistake("input", prefix + name, problem, way_out))
        else:
            merged[name] = both
    return merged


def _different_choices(needs: Needs) -> Iterator[Mistake]:
    choices: dict[str, str] = {}
    fields = [spec for one, _ in needs.inputs for spec in one.fields]
    for spec in [*fields, *(one.field for one in needs.ids)]:
        found = repr((spec.missing, spec.null, spec.invalid))
        if choices.setdefault(spec.path, found) != found:
            problem = "is read twice with different choices for what is missing, null or invalid"
            yield Mistake("inputs", spec.path, problem, "Make the choices the same")


@dataclass(frozen=True, slots=True)
class EventType:
    """A msgspec Struct made for a tree, and the attribute that stands for each field's name.

    Names of events need not be names of Python.
    """

    struct: Any
    attributes: dict[str, str]
    fields: "dict[str, FieldType | EventType]"
    required: bool

    def attribute(self, path: str) -> str:
        """The dotted attribute of a dotted field, for attrgetter."""
        name, _, rest = path.partition(".")
        node = self.fields[name]
        if isinstance(node, EventType) and rest:
            return f"{self.attributes[name]}.{node.attribute(rest)}"
        return self.attributes[name]

    def annotation(self) -> Any:
        """The type that msgspec checks."""
        return self.struct

    def blank(self) -> Any:
        """A record of values that stand for nothing, in the place of one that cannot be read."""
        made = {
            self.attributes[name]: node.blank() if node.required else None
            for name, node in self.fields.items()
        }
        return self.struct(**made)


def event_type(tree: FieldTree, forbid_unknown_fields: bool = False) -> EventType:
    """Make the type that parses and checks what the tree names, in one go."""
    attributes = {name: f"f{i}" for i, name in enumerate(tree)}
    fields: dict[str, FieldType | EventType] = {}
    definitions: list[Any] = []
    for name, node in tree.items():
        made = event_type(node, forbid_unknown_fields) if isinstance(node, dict) else node
        fields[name] = made
        kind = made.annotation()
        required = (attributes[name], kind)
        definitions.append(required if made.required else (attributes[name], kind | None, None))
    struct = msgspec.defstruct(
        "Event",
        definitions,
        rename={attribute: name for name, attribute in attributes.items()},
        kw_only=True,
        gc=False,
        forbid_unknown_fields=forbid_unknown_fields,
    )
    return EventType(struct, attributes, fields, any(one.required for one in fields.values()))
