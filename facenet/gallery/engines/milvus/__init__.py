"""A gallery in Milvus, spread over many machines. Needs the extra ``milvus``."""
