"""Serving an owner's own model: one core, which gRPC and HTTP ask, and a command that asks without a server."""
