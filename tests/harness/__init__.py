"""The parts of conftest.py that run and judge the tests; nothing here is a test.

``matrix``  the event loops and hosts that each async test runs on
``clean``   the things that a test may not leave behind
``limit``   how long a test may take
"""
