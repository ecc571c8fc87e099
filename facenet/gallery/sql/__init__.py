"""All SQL of the gallery: the truth."""
