"""Hypothesis strategies for records, derived from the structs: whatever the codec may read, bounds included."""

from functools import lru_cache
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

_KEYS = st.text(min_size=1, max_size=10)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)


@lru_cache(maxsize=64)
def records(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Values of ``struct``, as they are after decoding."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return st.builds(struct, **{field.name: _of(field.type) for field in info.fields})


def _of(kind: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911, PLR0912 - one line per kind of type
    match kind:
        case inspect.StructType(cls=struct):
            return records(struct)
        case inspect.UnionType(types=kinds):
            return st.one_of(*(_of(one) for one in kinds))
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min(high or 30, 30))
        case inspect.IntType(ge=low, le=high):
            return st.integers(-(2**63) if low is None else low, 2**63 - 1 if high is None else high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.ListType(item_type=item):
            return st.lists(_of(item), max_size=3)
        case inspect.VarTupleType(item_type=item):
            return st.lists(_of(item), max_size=3).map(tuple)
        case inspect.DictType(value_type=value):
            return st.dictionaries(_KEYS, _of(value), max_size=3)
        case inspect.AnyType():
            return _JSON
        case inspect.Metadata(type=inner):
            return _of(inner)
        case _:
            raise NotImplementedError(f"no strategy for {kind}")


def json_values() -> st.SearchStrategy[Any]:
    """Anything that JSON can hold."""
    return _JSON
