"""Measure any OpenAI-compatible server over HTTP. Imports nothing of ours."""
