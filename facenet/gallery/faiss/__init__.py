"""All FAISS of the gallery: the index, a cache of the truth."""
