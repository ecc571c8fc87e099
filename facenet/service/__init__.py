"""The HTTP service: faces of photos, the people of a gallery, and a page to ask both."""
