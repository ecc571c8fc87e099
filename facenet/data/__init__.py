"""Images in: records, transforms, samplers, pairs, drawn faces, and the Lightning data module."""
