"""Embedding networks: images (B, 3, H, W) to unit embeddings (B, D)."""
