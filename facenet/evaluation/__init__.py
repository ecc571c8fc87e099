"""Evaluation of embeddings: pairs, identification, and what a score rests on."""
