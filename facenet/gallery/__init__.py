"""The gallery: named faces on disk, searched by squared L2."""
