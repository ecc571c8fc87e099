"""Clustering of embeddings into people."""
