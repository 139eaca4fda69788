"""What one request, and all of them together, may cost the server."""

from __future__ import annotations

from typing import Final

MAX_ROWS: Final = 4096
"""Of one request."""
MAX_BYTES: Final = 4 << 20
"""Of one request; also gRPC's own default."""
MAX_KEY: Final = 128
"""Characters of a key that a caller chooses."""
MAX_BATCH_ROWS: Final = 256
"""Answered at once: a larger request is answered by itself, in a thread."""
MAX_WAITING_ROWS: Final = 8192
"""Not answered yet: more are turned away."""
MAX_REQUESTS: Final = 1024
"""Connections to HTTP, and calls of gRPC, at a time."""
MAX_HEAD_BYTES: Final = 1 << 16
"""Of a request's line and headers, and of what comes with them at once."""
HEAD_SECONDS: Final = 10.0
"""In which they have to be there."""
IDLE_SECONDS: Final = 60
"""After which a connection that asks nothing more is closed."""
BODY_SECONDS: Final = 10.0
"""In which a request's body has to be there."""
GRACE_SECONDS: Final = 10.0
"""Given to requests in flight when the server stops."""
STREAM_WINDOW: Final = 64
"""Requests of one stream that are read ahead of their answers."""
