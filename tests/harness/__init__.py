"""What conftest.py needs to run and to judge the tests; nothing here is a test.

``matrix``  the event loops and hosts that each async test runs on
``clean``   what a test may not leave behind
``limit``   how long a test may take
"""
