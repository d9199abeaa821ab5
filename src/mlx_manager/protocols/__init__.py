"""Wire formats of the HTTP dialects, to and from the ir. No web framework here."""
