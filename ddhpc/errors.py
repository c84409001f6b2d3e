"""The two ways in which a job ends early and in order, on all ranks together."""

from ddhpc.visible import visible

BAD_INPUT = 2
"""Exit code of a job that ends for bad input."""
TO_BE_CONTINUED = 75
"""Exit code of a job that was asked to stop and can be continued (EX_TEMPFAIL of sysexits.h)."""


class InputError(ValueError):
    """Bad input; its message is one line that names the option or file, what was found and what was expected.

    Ends the job with exit code BAD_INPUT and the message once, from rank 0.
    """

    code = BAD_INPUT

    def __init__(self, message: str) -> None:
        super().__init__(visible(message, kept=""))


class Stopped(Exception):
    """The job was asked to stop, and everything that it needs to continue is on the disk.

    Ends the job with exit code TO_BE_CONTINUED and the message once, from rank 0.
    """

    code = TO_BE_CONTINUED

    def __init__(self, message: str) -> None:
        super().__init__(visible(message, kept=""))
