"""Mini-batches of any size: chunks, ranks, and the memory of a step."""
