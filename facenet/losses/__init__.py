"""Losses: triplets, classification heads, and what a batch is asked."""
