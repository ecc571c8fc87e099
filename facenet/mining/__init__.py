"""Online triplet mining: embeddings and labels to row numbers of triplets."""
