"""What the service takes and answers as JSON."""
