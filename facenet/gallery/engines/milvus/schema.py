"""The collections of a gallery in Milvus."""

from __future__ import annotations

from typing import Any

from facenet.gallery.engines.milvus.connection import LOADING, Connection

LONGEST = 65_535  # bytes of a text
MOST_TAGS = 4096


def settings_schema(connection: Connection, name: str) -> None:
    """Make the collection of settings; its vectors stand for nothing, Milvus asks for one."""
    kinds = connection.pymilvus.DataType
    fields = [("key", kinds.VARCHAR, {"max_length": LONGEST}), ("value", kinds.VARCHAR, {"max_length": LONGEST})]
    fields += [("once", kinds.INT64, {}), ("vector", kinds.FLOAT_VECTOR, {"dim": 2})]
    _make(connection, name, fields)


def items_schema(connection: Connection, name: str, dim: int) -> None:
    """Make the collection of items, with vectors of width `dim`."""
    kinds = connection.pymilvus.DataType
    texts = ("id", "identity", "path", "root", "metadata", "digest")
    fields = [(text, kinds.VARCHAR, {"max_length": LONGEST}) for text in texts]
    fields += [("person", kinds.INT64, {}), ("encoder", kinds.INT64, {})]
    fields += [("tags", kinds.ARRAY, {"element_type": kinds.INT64, "max_capacity": MOST_TAGS})]
    fields += [("vector", kinds.FLOAT_VECTOR, {"dim": dim})]
    _make(connection, name, fields)


def _make(connection: Connection, name: str, fields: list[tuple[str, Any, dict[str, Any]]]) -> None:
    client, kinds = connection.client, connection.pymilvus.DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("number", kinds.INT64, is_primary=True)
    for field, kind, how in fields:
        schema.add_field(field, kind, **how)
    index = connection.index_of("FLAT", {})
    client.create_collection(name, schema=schema, index_params=index, timeout=max(LOADING, connection.timeout))
