"""The states of a TLS stream."""

from __future__ import annotations

import ssl

import pytest

from nurseryio import BrokenResourceError, ClosedResourceError
from nurseryio._tls.state import Handshake, Life, TLSState


def test_a_new_tls_state_can_be_used_and_has_no_handshake() -> None:
    state = TLSState()
    state.check()
    assert state.handshake is Handshake.NOT_STARTED
    assert str(state) == "handshake not started"


def test_a_broken_tls_stream_says_why_and_the_first_reason_counts() -> None:
    state = TLSState()
    error = ssl.SSLError(1, "[SSL] bad record")
    error.__context__ = KeyError()
    state.lose("receiving failed", error)
    state.lose("sending failed", KeyError())
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match=r"receiving failed: \[SSL\] bad") as caught:
            state.check()
        cause = caught.value.__cause__
        # A copy: the error itself holds the frames that it has passed, and they the stream.
        assert isinstance(cause, ssl.SSLError)
        assert (cause.args, cause.errno) == (error.args, 1)
        assert cause.__context__ is cause.__traceback__ is None
    assert str(state) == "broken"


def test_a_reason_that_is_not_an_ssl_error_is_named_by_its_type() -> None:
    state = TLSState()
    state.lose("sending was cut short", KeyError("x"))
    with pytest.raises(BrokenResourceError, match=r"sending was cut short \(KeyError\)") as caught:
        state.check()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("life", [Life.CLOSING, Life.CLOSED])
def test_a_tls_stream_that_is_being_closed_is_closed_and_cannot_become_broken(life: Life) -> None:
    state = TLSState()
    state.life = life
    state.lose("sending was cut short")
    with pytest.raises(ClosedResourceError):
        state.check()
    assert str(state) == life.value
