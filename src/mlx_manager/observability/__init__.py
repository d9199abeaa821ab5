"""What can be seen of a running server: metrics, traces and alerts.

Imported by module: the libraries of some of it take long to import.
"""
