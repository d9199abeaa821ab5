"""Room models/families."""
