"""How much memory a TLS connection keeps for what it reads.

asyncio reads up to 256 KiB of a connection at a time. As long as the connection lives, it keeps
room for that, and OpenSSL for a third more once so much has come. The operator has a connection for
each watch, and one for each request that was once under way at the same time; the next request
takes the one that was idle for longest. Large objects of one run would grow all of them in turn.
"""

from asyncio.sslproto import SSLProtocol
from typing import Final

READ_BYTES: Final = 16 * 1024
"""One record of TLS: to read more at a time saves no processor time."""


def limit_tls_buffers() -> None:
    """Let all TLS connections of asyncio that are opened from now on keep little room."""
    SSLProtocol.max_size = READ_BYTES
