"""What the benchmark of hostile requests sends, and how."""
