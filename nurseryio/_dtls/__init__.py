"""DTLS over UDP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import (
        DTLSChannel as DTLSChannel,
        DTLSChannelStatistics as DTLSChannelStatistics,
    )
    from .endpoint import DTLSEndpoint as DTLSEndpoint
