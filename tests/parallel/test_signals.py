"""Signals that ask to stop, in a process that goes on afterwards."""

import os
import signal
import threading

import pytest

from ddhpc.errors import Stopped
from ddhpc.parallel.signals import StopRequest


def refuse(stop):
    raise stop


def test_in_the_start_up_it_may_raise_instead_of_leaving():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match="stopped by SIGINT in the start-up"), StopRequest("USR2", refuse):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_later_it_is_noted_and_the_second_interrupts():
    with StopRequest("USR2", refuse) as request:
        request.defer()
        os.kill(os.getpid(), signal.SIGUSR2)
        with pytest.raises(Stopped, match="^stopped by SIGUSR2$"):
            request.obey()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_leaves_the_signals_alone():
    seen = []

    def work():
        with StopRequest("USR2", refuse) as request:
            request.obey()
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
