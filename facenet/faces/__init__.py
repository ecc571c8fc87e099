"""Faces in photos: boxes, landmarks, aligned crops."""
