"""Where a gallery's items lie, and how the nearest of them are found: one interface, an implementation each."""
