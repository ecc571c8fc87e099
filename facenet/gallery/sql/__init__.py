"""All SQL of the project: ``items.sqlite``, the truth of a gallery, and its tables."""
