"""Which instrument listens to which hook."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest

from nurseryio._base.instruments import Instruments
from nurseryio.abc import Instrument


class Noter(Instrument):
    def __init__(self) -> None:
        self.heard: list[object] = []

    def task_spawned(self, task: object) -> None:
        self.heard.append(task)


class Failing(Noter):
    def task_spawned(self, task: object) -> None:
        raise ValueError("instrument failed")


def test_an_instrument_is_registered_for_the_hooks_that_it_has() -> None:
    instruments = Instruments([Noter()])
    assert "task_spawned" in instruments
    assert "before_run" not in instruments
    assert not Instruments()


def test_an_instrument_need_not_derive_from_the_class() -> None:
    class Duck:
        heard: ClassVar[list[object]] = []

        def task_exited(self, task: object) -> None:
            self.heard.append(task)

    instruments = Instruments([Duck()])  # type: ignore[list-item]
    instruments.call("task_exited", 1)
    instruments.call("task_spawned", 2)
    assert Duck.heard == [1]


def test_adding_an_instrument_twice_adds_it_once() -> None:
    noter = Noter()
    instruments = Instruments([noter, noter])
    instruments.add(noter)
    instruments.call("task_spawned", "x")
    assert noter.heard == ["x"]
    instruments.remove(noter)
    assert not instruments
    assert "task_spawned" not in instruments
    with pytest.raises(KeyError):
        instruments.remove(noter)


class Unlike(Noter):
    """Neither hashed, compared nor shown."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __repr__(self) -> str:
        raise ZeroDivisionError

    def task_exited(self, task: object) -> None:
        raise ValueError("instrument failed")


def test_instruments_are_compared_by_identity(caplog: pytest.LogCaptureFixture) -> None:
    one, two = Unlike(), Unlike()
    instruments = Instruments([one, two])
    instruments.call("task_spawned", 1)
    instruments.remove(one)
    instruments.call("task_spawned", 2)
    assert (one.heard, two.heard) == ([1], [1, 2])
    instruments.call("task_exited", 2)
    assert not instruments
    assert "<Unlike, whose repr() failed>" in caplog.text


def test_a_logger_that_fails_on_an_instruments_error_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_args: object) -> None:
        raise OSError("the log is full")

    monkeypatch.setattr(logging.getLogger("nurseryio.abc.Instrument"), "exception", fail)
    instruments = Instruments([Failing()])
    instruments.call("task_spawned", 1)
    assert not instruments
    printed = capsys.readouterr().err
    assert "instrument failed" in printed
    assert "the log is full" in printed


def test_an_instrument_that_raises_is_logged_and_removed_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, noter = Failing(), Noter()
    instruments = Instruments([failing, noter])
    with caplog.at_level(logging.ERROR, "nurseryio.abc.Instrument"):
        instruments.call("task_spawned", 1)
        instruments.call("task_spawned", 2)
    assert noter.heard == [1, 2]
    assert list(instruments) == [noter]
    [record] = caplog.records
    assert "Instrument has been disabled" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
